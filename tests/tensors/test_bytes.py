"""What is written is what `torch.save` writes, byte for byte, but for a number nobody reads."""

from __future__ import annotations

import io
import re
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections import OrderedDict

import pytest
import torch

from ckptstore import ptfile, tensors
from ckptstore.ptfile.writing import Writer
from ckptstore.storage.base import Sink

ID = "archive/.data/serialization_id"


def by_torch(state) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def with_the_id_of(data: bytes, other: bytes) -> bytes:
    """Put another file's serialization id into a file, and its CRC-32 into both of its places."""
    mine, theirs = (zipfile.ZipFile(io.BytesIO(one)).read(ID) for one in (data, other))
    crcs = [struct.pack("<I", zlib.crc32(one)) for one in (mine, theirs)]
    assert data.count(mine) == 1
    assert data.count(crcs[0]) == 2
    return data.replace(mine, theirs).replace(*crcs)


def a_model():
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5)).state_dict()


def an_optimizer():
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


TIED = torch.arange(6.0)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"empty": torch.empty(0), "none": torch.empty(3, 0), "scalar": torch.tensor(1.0)},
        {"new": torch.ones(5, dtype=torch.uint16), "fp8": torch.ones(3).to(torch.float8_e5m2)},
        {"tied": TIED, "too": TIED, "turned": TIED.reshape(2, 3).T},
        {"p": torch.nn.Parameter(torch.ones(2)), "g": torch.ones(2, requires_grad=True)},
        OrderedDict(a_model()),
        an_optimizer(),
        {"text": "é" * 100, "n": [1, 2.5, None, (True, {3})], "device": torch.device("cpu")},
        {f"layer.{n}": torch.full((n,), float(n)) for n in range(300)},
    ],
    ids=["nothing", "empty", "new", "tied", "grad", "model", "optimizer", "values", "many"],
)
def test_a_plain_state_is_written_as_torch_writes_it(saved, state):
    data = saved(state)

    assert with_the_id_of(by_torch(tensors.saving._canonical(state, {}, {})), data) == data


class WithoutLarge(Sink):
    """Keeps all that passes but the pieces of a large record, which it counts."""

    def __init__(self) -> None:
        self.kept, self.left_out = bytearray(), 0

    def write(self, data: memoryview, /) -> int:
        if len(data) < 2**19:
            self.kept += data
        else:
            self.left_out += len(data)
        return len(data)

    def flush(self) -> None:
        pass


@pytest.mark.slow
def test_records_around_4_gib_are_written_as_torch_writes_them():
    size = 2**32 - 1  # The first that 32 bits do not tell from "look elsewhere".
    state = {"a": torch.zeros(3), "large": torch.zeros(size, dtype=torch.uint8), "b": torch.ones(7)}
    mine, theirs = WithoutLarge(), WithoutLarge()

    tensors.save(state, mine)
    torch.save(state, theirs)

    ids = [
        re.search(rb"serialization_id(?:\x01.{11})?FB..Z*(\d{40})", one.kept, re.DOTALL)[1]
        for one in (mine, theirs)
    ]
    kept = theirs.kept.replace(ids[1], ids[0])
    for crc in (struct.pack("<I", zlib.crc32(one)) for one in ids):
        assert (mine.kept + theirs.kept).count(crc) == 2
    kept = kept.replace(*(struct.pack("<I", zlib.crc32(one)) for one in ids[::-1]))
    assert mine.left_out == theirs.left_out == size
    assert kept == mine.kept


def test_equal_states_give_equal_bytes_and_other_states_another_id(saved):
    one, same, other = ({"w": torch.full((4,), v)} for v in (1.0, 1.0, 2.0))

    ids = [zipfile.ZipFile(io.BytesIO(saved(state))).read(ID) for state in (one, same, other)]

    assert saved(one) == saved(same)
    assert ids[0] == ids[1] != ids[2]
    assert all(len(number) == 40 and number.isdigit() for number in ids)


def test_others_find_nothing_wrong_with_it(saved, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(saved({f"w{n}": torch.randn(n, 7) for n in range(20)}))

    assert zipfile.ZipFile(path).testzip() is None
    if shutil.which("unzip"):
        told = subprocess.run(["unzip", "-t", path], capture_output=True, text=True, check=True)
        assert "No errors detected" in told.stdout
    with path.open("rb") as file:
        ptfile.check_records(file, "model.pt")
    assert torch.load(path, weights_only=True, mmap=True)["w19"].shape == (19, 7)


def test_a_record_of_another_size_than_was_said_is_refused():
    class Nowhere(Sink):
        def write(self, data: memoryview, /) -> None:
            pass

    with pytest.raises(ValueError, match="'data/0' has 3 bytes, not 4"):
        Writer(Nowhere()).record("data/0", [memoryview(b"abc")], 4)
