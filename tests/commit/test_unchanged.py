"""What the forerunner has is not stored again, and never trusted where it could be damaged."""

from __future__ import annotations

import hashlib
import os

import pytest
import torch

import ckptstore
from ckptstore.commit.incoming import Incoming, Known
from ckptstore.digests import Chunks, sha256_of
from ckptstore.storage.base import Held, Sink
from ckptstore.testing.injection import inject

CHUNK = 8 * 2**20


def weights(seed: int = 0, *, millions: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"w{n}": torch.randn(1_000_000, generator=generator) for n in range(millions)}


def generation_files(location) -> dict[str, os.stat_result]:
    folder = max((location / ".ckptstore").glob("0*"))
    return {path.name.split(".")[0]: path.stat() for path in folder.glob("*.pt")}


def test_a_file_that_did_not_change_is_linked_and_not_written(tmp_path):
    model, optimizer = weights(), {"state": weights(1), "param_groups": []}
    first = ckptstore.save(tmp_path / "x", model=model, optimizer=optimizer, step=1)
    before = generation_files(tmp_path / "x")
    optimizer["state"]["w0"][3] += 1

    second = ckptstore.save(tmp_path / "x", model=model, optimizer=optimizer, step=2)

    after = generation_files(tmp_path / "x")
    assert (first.generation, second.generation) == (1, 2)
    assert after["model"].st_ino == before["model"].st_ino
    assert after["optimizer"].st_ino != before["optimizer"].st_ino
    assert second.verify().sound
    loaded = second.load_optimizer()["state"]
    assert all(torch.equal(loaded[name], optimizer["state"][name]) for name in loaded)


def test_a_forerunner_that_is_damaged_is_not_taken_over(tmp_path):
    model = weights()
    ckptstore.save(tmp_path / "x", model=model, step=1)
    with (tmp_path / "x" / "model.pt").open("r+b") as file:  # the generation's own bytes, linked
        file.seek(9_000_000)
        file.write(b"damage")

    with pytest.raises(ckptstore.CorruptionError):
        ckptstore.open(tmp_path / "x").load_model()
    again = ckptstore.save(tmp_path / "x", model=model, step=2)

    assert again.verify().sound
    assert torch.equal(again.load_model()["w4"], model["w4"])


def test_a_forerunner_that_goes_meanwhile_is_not_needed(tmp_path):
    model = weights()
    ckptstore.save(tmp_path / "x", model=model, step=1)

    def without_copies(operation, act):
        if operation.name == "copy" and ".ckptstore" in operation.path:
            raise ckptstore.NotFoundError("it is gone")
        return act()

    with inject(without_copies):
        again = ckptstore.save(tmp_path / "x", model=model, step=2)

    assert again.verify().sound


@pytest.mark.parametrize("url", ["memory://unchanged", "{tmp}/x"])
def test_the_same_state_twice_is_two_generations_with_equal_digests(url, tmp_path):
    location = url.format(tmp=tmp_path)
    one = ckptstore.save(location, model=weights(), step=1).files()["model.pt"]
    two = ckptstore.save(location, model=weights(), step=2).files()["model.pt"]

    assert one.sha256 == two.sha256
    assert ckptstore.open(location).verify().sound


# -- what comes in, chunk by chunk ---------------------------------------------------------------


class Stored(Sink):
    def __init__(self, *, takes_held: bool) -> None:
        self.takes_held = takes_held
        self.data = bytearray()
        self.held: list[tuple[int, int, Held]] = []

    def write(self, data: memoryview, /) -> None:
        self.data += data

    def lend(self, data: memoryview, /, held: Held | None = None) -> None:
        if held is not None:
            self.held.append((len(self.data), len(data), held))
        self.data += data


def known(data: bytes) -> Known:
    chunks = Chunks()
    chunks.update(data)
    return Known("old", chunks.digest(sha256_of(data)))


def came_in(data: bytes, old: bytes | None, *, how: str, takes_held: bool, resident: bool = True):
    sinks: list[Stored] = []

    def start() -> Stored:
        sinks.append(Stored(takes_held=takes_held))
        return sinks[-1]

    forerunner = None if old is None else known(old)
    incoming = Incoming(start, len(data), forerunner, resident=resident)
    view = memoryview(data)
    at, sizes = 0, [100, 2**20, 3 * 2**20, CHUNK, 70_000]
    while at < len(view):
        size = sizes[0]
        sizes = [*sizes[1:], size]
        lend = how == "lend" or (how == "mixed" and size != 70_000)
        (incoming.lend if lend else incoming.write)(view[at : at + size])
        at += size
    unchanged = incoming.unchanged
    if not unchanged:
        incoming.finish()
    assert incoming.digest().sha256 == hashlib.sha256(data if not unchanged else b"").hexdigest()
    return unchanged, sinks[0] if sinks else None, incoming.chunked()


def changed_at(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


OLD = os.urandom(CHUNK * 3 + 1000)


@pytest.mark.parametrize("how", ["lend", "write", "mixed"])
@pytest.mark.parametrize("takes_held", [False, True])
@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        *(changed_at(OLD, at) for at in (0, CHUNK - 1, CHUNK, 2 * CHUNK + 5, len(OLD) - 1)),
        *(OLD[:-1], OLD + b"x", OLD[: 2 * CHUNK], b"", b"x", OLD[CHUNK:], OLD),
    ],
    ids=["0", "7", "8", "16", "end", "shorter", "longer", "cut", "none", "one", "moved", "same"],
)
def test_what_comes_in_is_stored_whole_or_known_whole(data, how, takes_held, resident):
    options = {"how": how, "takes_held": takes_held, "resident": resident}
    unchanged, stored, digest = came_in(data, OLD, **options)

    chunks = Chunks()
    chunks.update(data)
    assert digest == chunks.digest()
    assert unchanged == (data == OLD and resident and how == "lend")
    assert unchanged or bytes(stored.data) == data
    for start, size, held in stored.held if stored else ():
        assert held.name == "old"
        assert OLD[held.start : held.start + size] == data[start : start + size]


def test_the_chunks_that_are_there_already_are_told_to_a_storage_that_can_copy_them():
    data = changed_at(OLD, CHUNK + 7)

    _, stored, _ = came_in(data, OLD, how="lend", takes_held=True)

    told = {start // CHUNK for start, _, _ in stored.held}
    assert told == {0, 2}
