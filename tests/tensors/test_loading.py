"""Loads are proved, bounded and safe, and their errors are the ones that happened."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
import torch

from ckptstore import ptfile, tensors
from ckptstore.commit.proved import open_plain
from ckptstore.errors import (
    CorruptionError,
    NotFoundError,
    SupersededError,
    UnsafeError,
    UnsupportedError,
)
from ckptstore.storage.base import RangeReader, Sink

HOW = ["whole", "named", "part"]


class Counted(io.BytesIO):
    """A file that notes what is read of it, and fails where it is told to."""

    def __init__(self, data, fail_after=None, error=None):
        super().__init__(data)
        self.spans = []
        self.fail_after = fail_after
        self.error = error

    def readinto(self, buffer, /):
        start = self.tell()
        if self.fail_after is not None and len(self.spans) >= self.fail_after:
            raise self.error
        count = super().readinto(buffer)
        self.spans.append((start, count))
        return count


def place_of(data, name):
    content = ptfile.read(io.BytesIO(data), "x.pt")
    record = content.records[content.stubs[name].record]
    return content.archive.start(io.BytesIO(data), record), record.size


@pytest.fixture
def state():
    return {name: torch.randn(1000) for name in ("a", "b", "c")}


@pytest.mark.parametrize("options", [{}, {"names": ["b"]}, {"part": lambda root: root}], ids=HOW)
def test_a_flipped_bit_is_found_by_the_records_crc(saved, loaded, state, options):
    data = bytearray(saved(state))
    start, _ = place_of(bytes(data), "b")
    data[start + 100] ^= 1

    with pytest.raises(CorruptionError, match=r"x\.pt is damaged: its record 'data/1' has the CRC"):
        loaded(bytes(data), **options)


def test_a_proved_file_is_not_checked_twice(saved, loaded, state):
    data = bytearray(saved(state))
    start, _ = place_of(bytes(data), "b")
    data[start] ^= 1

    assert not torch.equal(loaded(bytes(data), proved=True)["b"], state["b"])
    assert not torch.equal(loaded(bytes(data), proved=True, names=["b"])["b"], state["b"])


@pytest.mark.parametrize("proved", [True, False])
def test_a_whole_load_reads_each_record_once_into_its_place(saved, state, proved):
    data = saved(state)
    file = Counted(data)

    tensors.load(file, proved=proved, where="x.pt")

    for name in state:
        start, size = place_of(data, name)
        touching = [s for s in file.spans if s[0] < start + size and start < s[0] + s[1]]
        assert (start, size) in touching
        assert sum(count for _, count in touching) <= size + 5000, "torch looks for the end twice"


@pytest.mark.parametrize("proved", [True, False])
def test_named_tensors_are_read_alone(saved, state, proved):
    data = saved(state)
    file = Counted(data)

    read = tensors.load(file, names=["c", "a"], proved=proved, where="x.pt")

    assert list(read) == ["c", "a"]
    assert all(torch.equal(read[name], state[name]) for name in read)
    start, size = place_of(data, "b")
    assert not [s for s in file.spans if s[0] < start + size and start < s[0] + s[1]]


def test_named_tensors_are_found_under_their_repaired_names(saved, loaded):
    data = saved({"state_dict": {"module.w": torch.ones(2)}, "model_dtype": torch.float32})

    assert torch.equal(loaded(data, names=["w"])["w"], torch.ones(2))


def test_an_unknown_name_is_not_found(saved, loaded, state):
    with pytest.raises(NotFoundError, match=r"no tensor 'd' in x\.pt"):
        loaded(saved(state), names=["a", "d"])


def test_names_of_something_that_is_no_state_dict_are_damage(saved, loaded):
    with pytest.raises(CorruptionError, match=r"x\.pt holds a list, not a state dict"):
        loaded(saved([torch.ones(1)]), names=["a"])


def test_no_pickle_is_run_whatever_the_environment_says(tmp_path, loaded, monkeypatch):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    buffer = io.BytesIO()
    torch.save({"w": torch.ones(1), "b": Bomb()}, buffer)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")

    for options in ({}, {"proved": True}, {"names": ["w"]}):
        with pytest.raises(UnsafeError, match="holds more than tensors"):
            loaded(buffer.getvalue(), **options)

    assert not (tmp_path / "executed").exists()


def test_globals_that_somebody_allowed_in_torch_stay_refused(loaded):
    buffer = io.BytesIO()
    torch.save({"p": Path("x")}, buffer)

    with (
        torch.serialization.safe_globals([type(Path("x"))]),
        pytest.raises(UnsafeError, match="pathlib"),
    ):
        loaded(buffer.getvalue())


@pytest.mark.parametrize(
    "error",
    [
        SupersededError("gone"),
        CorruptionError("chunk 3 is damaged"),
        OSError(5, "input/output error"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    ("sparse", "after"), [(False, 0), (False, 1), (False, 2), (True, 0), (True, 5), (True, 20)]
)
def test_errors_of_the_file_surface_as_themselves(saved, state, error, sparse, after):
    if sparse:  # torch's own loader reads it.
        state["d"] = torch.eye(3).to_sparse()
    file = Counted(saved(state), fail_after=after, error=error)

    with pytest.raises(type(error)) as caught:
        tensors.load(file, where="x.pt")

    assert caught.value is error


def test_a_local_header_that_lies_is_found_when_its_record_is_read(saved, loaded, state):
    data = bytearray(saved(state))
    record = ptfile.read(io.BytesIO(bytes(data)), "x").records["data/1"]
    data[record.header + 28] ^= 8

    for options in ({}, {"names": ["b"]}, {"proved": True}):
        with pytest.raises(CorruptionError, match="the header of its record 'data/1' contradicts"):
            loaded(bytes(data), **options)


@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_indices_outside_the_shape_are_damage(saved, loaded):
    wrong = torch.sparse_coo_tensor(
        torch.tensor([[1_000_000]]), torch.ones(1), (2,), check_invariants=False
    )
    buffer = io.BytesIO()
    torch.save({"x": wrong}, buffer)

    with pytest.raises(CorruptionError, match=r"x\.pt is damaged: torch says"):
        loaded(buffer.getvalue())


@pytest.mark.parametrize("names", [None, ["x"]])
def test_sizes_whose_product_no_number_holds_are_damage(saved, loaded, names):
    archive = zipfile.ZipFile(io.BytesIO(saved({"x": torch.empty(65_535, 65_534, 0)})))
    size = {65_535: b"M\xff\xff", 65_534: b"M\xfe\xff", 2**62: b"\x8a\x08" + bytes(7) + b"\x40"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as changed:
        for name in archive.namelist():
            data = archive.read(name)
            if name.endswith("data.pkl"):
                assert size[65_535] in data
                data = data.replace(size[65_535], size[2**62]).replace(size[65_534], size[2**62])
            changed.writestr(name, data)

    with pytest.raises(CorruptionError, match=r"x\.pt"):
        loaded(buffer.getvalue(), names=names)


@pytest.mark.parametrize("names", [None, ["x"]])
def test_numbers_in_the_other_byte_order_are_turned(saved, loaded, names):
    tensor = torch.arange(6, dtype=torch.int32)
    swapped = tensor.clone()
    swapped.untyped_storage().byteswap(torch.int32)
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved({"x": swapped}))) as source,
        zipfile.ZipFile(buffer, "w") as target,
    ):
        for member in source.namelist():
            data = b"big" if member.endswith("byteorder") else source.read(member)
            target.writestr(member, data)

    assert torch.equal(loaded(buffer.getvalue(), names=names)["x"], tensor)


@pytest.mark.parametrize("options", [{}, {"names": ["a"]}, {"part": lambda root: root}], ids=HOW)
@pytest.mark.parametrize(
    ("where", "device"),
    [
        ("cpu", "cpu"),
        (torch.device("cpu"), "cpu"),
        (None, "cpu"),
        ({"cpu": "meta"}, "meta"),
        (lambda storage, location: storage, "cpu"),
        (lambda storage, location: None, "cpu"),
        ("meta", "meta"),
    ],
    ids=["text", "device", "None", "dict", "function", "function that declines", "meta"],
)
def test_tensors_go_where_they_are_sent(saved, loaded, state, where, device, options):
    if isinstance(where, dict) and not options:
        pytest.skip("torch itself has no meta in a dict")

    read = loaded(saved(state), map_location=where, **options)

    assert read["a"].device.type == device
    assert device == "meta" or torch.equal(read["a"], state["a"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("options", [{}, {"names": ["a"]}], ids=str)
def test_a_device_that_is_not_here_is_named(saved, loaded, state, options):
    with pytest.raises(UnsupportedError, match="map_location is 'cuda', which is not available"):
        loaded(saved(state), map_location="cuda", **options)


def test_the_file_stays_open(saved, state):
    file = io.BytesIO(saved(state))

    tensors.load(file, where="x.pt")

    assert not file.closed


@pytest.mark.slow
def test_a_tensor_over_2_gib_round_trips(tmp_path):
    size = 2**31 + 10
    tensor = torch.empty(size, dtype=torch.int8)
    tensor.untyped_storage().fill_(0)
    tensor[0], tensor[2**31 - 1], tensor[2**31 + 3], tensor[-1] = 1, 2, 3, 4
    path = tmp_path / "large.pt"
    with path.open("wb") as file:

        class FileSink(Sink):
            def write(self, data):
                file.write(data)

        tensors.save({"small": torch.ones(3), "x": tensor}, FileSink())
    del tensor
    try:
        with path.open("rb") as file:
            info = ptfile.index(file, "large.pt")["x"]
            x = tensors.load(file, names=["x"], where="large.pt")["x"]
            assert (info.shape, info.nbytes) == ((size,), size)
            assert [int(x[i]) for i in (0, 1, 2**31 - 1, 2**31 + 3, -1)] == [1, 0, 2, 3, 4]
            del x
            x = tensors.load(file, where="large.pt", proved=True)["x"]
            assert [int(x[i]) for i in (0, 1, 2**31 - 1, 2**31 + 3, -1)] == [1, 0, 2, 3, 4]
    finally:
        os.unlink(path)


def test_flags_that_differ_in_directory_and_header_are_no_mistake_of_ours(state):
    buffer, plain = io.BytesIO(), io.BytesIO()
    torch.save(state, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(plain, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    data = bytearray(plain.getvalue())
    entry = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    while b"data/0" not in data[entry + 46 : entry + 66]:
        entry = data.index(b"PK\1\2", entry + 1)
    data[entry + 8] |= 8  # "sizes follow the data", which the local header denies

    loaded = tensors.load(open_plain(Held(bytes(data))), part=lambda root: root, where="x.pt")

    assert all(torch.equal(loaded[name], value) for name, value in state.items())


@pytest.mark.parametrize("fresh", [False, True])
def test_an_error_while_filling_speaks_of_a_model_only_where_there_is_one(fresh):
    buffer = io.BytesIO()
    torch.save({"w": torch.full((100,), 7.0)}, buffer)
    data = bytearray(buffer.getvalue())
    data[data.index(torch.full((100,), 7.0).numpy().tobytes())] ^= 1

    with pytest.raises(CorruptionError, match="its record 'data/0' has the CRC-32") as caught:
        tensors.fill(
            io.BytesIO(bytes(data)),
            {"w": torch.empty(100)},
            part=lambda root: root,
            proved=False,
            atomic=False,
            fresh=fresh,
            where="x.pt",
        )

    assert ("the model holds a part of what was read" in str(caught.value)) is not fresh


class Held(RangeReader):
    def __init__(self, data):
        self.data, self.size = data, len(data)

    def readinto(self, start, target):
        target[:] = self.data[start : start + len(target)]
