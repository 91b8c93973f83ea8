"""G5: what our index says of a `.pt` is what torch loads and zipfile lists, or it is refused."""

from __future__ import annotations

import io
import pickletools
import random
import struct
import zipfile
from contextlib import suppress
from typing import Any

import pytest
import torch

from ckptstore import ptfile, tensors
from ckptstore.errors import CkptstoreError, CorruptionError, UnsafeError

GADGET = b"cposix\nsystem\nX\x04\x00\x00\x00true\x85R"


def saved(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def rebuilt(data: bytes, changes: dict[str, bytes]) -> bytes:
    """Return a zip with other content in some members, and some members more."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in dict.fromkeys([*old.namelist(), *changes]):
            new.writestr(name, changes.get(name) or old.read(name))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def sound() -> bytes:
    return saved(
        {"a": torch.arange(6.0).reshape(2, 3), "b": {"c": torch.ones(2, dtype=torch.int8)}}
    )


def listed_by_zipfile(data: bytes) -> dict[str, int] | None:
    """Return the members and their sizes, or None where zipfile refuses the file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            folder = archive.namelist()[0].split("/")[0]
            return {
                member.filename.removeprefix(f"{folder}/"): member.file_size
                for member in archive.infolist()
            }
    except (zipfile.BadZipFile, NotImplementedError):
        return None


def same_everywhere(data: bytes) -> None:
    """Check that three readers agree on what our own accepts."""
    found = ptfile.read(io.BytesIO(data), "x.pt")
    ours = tensors.load(io.BytesIO(data), where="x.pt")
    theirs = torch.load(io.BytesIO(data), weights_only=True)
    flat = {"a": theirs["a"], "b.c": theirs["b"]["c"]}
    assert {name: info.shape for name, info in found.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in flat.items()
    }
    assert torch.equal(ours["a"], theirs["a"])
    assert torch.equal(ours["b"]["c"], theirs["b"]["c"])
    listed = listed_by_zipfile(data)
    assert listed is None or listed == {name: record.size for name, record in found.records.items()}


def test_a_sound_file_is_the_same_everywhere(sound: bytes) -> None:
    same_everywhere(sound)
    same_everywhere(rebuilt(sound, {}))


def test_a_file_that_is_changed_in_its_directory_is_the_same_everywhere_or_refused(
    sound: bytes,
) -> None:
    start, chance, refused = sound.index(b"PK\1\2"), random.Random(5), 0

    for _ in range(400):
        data = bytearray(sound)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(start, len(data))] = chance.choice((0, 1, 8, 16, 0x41, 0xFF))
        try:
            same_everywhere(bytes(data))
        except CkptstoreError:
            refused += 1

    assert refused > 200


def test_an_end_that_is_changed_is_the_same_everywhere_or_refused(sound: bytes) -> None:
    for place in range(len(sound) - 22 - 76, len(sound)):
        for value in (0, 1, 0x7F, 0xFF):
            data = bytearray(sound)
            data[place] = value
            with suppress(CkptstoreError):
                same_everywhere(bytes(data))


@pytest.mark.parametrize("name", ["BYTEORDER", "Version", ".DATA/version", "DATA.PKL"])
@pytest.mark.parametrize("folder", ["archive", "ARCHIVE"])
def test_a_name_that_torch_alone_would_find_is_refused(
    sound: bytes, folder: str, name: str
) -> None:
    changed = rebuilt(sound, {f"{folder}/{name}": b"big"})

    with pytest.raises(CorruptionError, match="in capitals|stands there twice"):
        ptfile.read(io.BytesIO(changed), "x.pt")


def test_a_byte_order_that_torch_finds_by_another_case_turns_no_numbers_around(
    sound: bytes,
) -> None:
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    del members["archive/byteorder"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {**members, "archive/BYTEORDER": b"big"}.items():
            archive.writestr(name, content)

    with pytest.raises(CorruptionError, match="in capitals"):
        tensors.load(io.BytesIO(buffer.getvalue()), where="x.pt")


def test_a_gadget_between_any_two_opcodes_is_refused(sound: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        pickled = archive.read("archive/data.pkl")
    places = [place for _, _, place in pickletools.genops(pickled)]

    for place in places:
        changed = pickled[:place] + GADGET + pickled[place:]
        with pytest.raises(UnsafeError, match=r"\(posix\.system"):
            ptfile.read(io.BytesIO(rebuilt(sound, {"archive/data.pkl": changed})), "x.pt")


def test_a_gadget_after_the_end_of_the_pickle_is_never_reached(sound: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        pickled = archive.read("archive/data.pkl")

    same_everywhere(rebuilt(sound, {"archive/data.pkl": pickled + GADGET}))


def test_a_long_list_in_earnest_is_still_read() -> None:
    words = {f"w{number}": number for number in range(50_000)}
    state = {"order": list(range(300_000)), "words": words, "sets": [set() for _ in range(1000)]}

    assert tensors.load(io.BytesIO(saved(state)), where="x.pt") == state


def test_many_small_tensors_are_still_read() -> None:
    storage = torch.zeros(3000)
    state = {f"layer.{number}.weight": storage[number].clone() for number in range(3000)}

    assert len(ptfile.index(io.BytesIO(saved(state)), "x.pt")) == 3000


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"(" + b"\x8f" * 2_000_000, id="sets"),
        pytest.param(
            b"]q\x01(" + b"K\x01" * 99_999 + b"ec__builtin__\nset\nq\x02" + b"h\x02h\x01\x85R" * 99,
            id="copies",
        ),
        pytest.param(
            b"X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"q\x01c_codecs\nencode\nq\x02"
            b"X\x06\x00\x00\x00latin1q\x03" + b"h\x02h\x01h\x03\x86R" * 999,
            id="texts",
        ),
    ],
)
def test_a_pickle_that_asks_for_much_more_than_its_size_is_refused(
    sound: bytes, stream: bytes
) -> None:
    changed = rebuilt(sound, {"archive/data.pkl": b"\x80\x02" + stream + b"."})

    with pytest.raises(CorruptionError, match="ask for too much memory"):
        ptfile.read(io.BytesIO(changed), "x.pt")
