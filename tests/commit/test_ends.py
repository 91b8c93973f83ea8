"""What was written is looked through from what passed, and not read back from the storage."""

from __future__ import annotations

import io

import pytest
import torch

import ckptstore
from ckptstore.commit.ends import Ends, NotKeptError
from ckptstore.testing.injection import inject

MIB = 2**20


def looked_at(seen) -> list[str]:
    return [str(one) for one in seen.operations if one.name in ("open", "readinto")]


def test_a_save_reads_nothing_back_of_what_it_wrote(tmp_path):
    state = {f"w{n}": torch.randn(3_000_000) for n in range(5)}

    with inject(lambda operation, perform, *args: perform(*args)) as seen:
        saved = ckptstore.save(tmp_path / "x", model=state, optimizer={"state": state})

    assert looked_at(seen) == []
    assert list(saved.tensors()) == list(state)
    assert saved.verify().sound


def test_an_index_that_is_too_long_for_that_is_read_back(tmp_path):
    state = {f"{n:0200}": torch.empty(0) for n in range(9000)}  # names of 1.8 MB

    with inject(lambda operation, perform, *args: perform(*args)) as seen:
        saved = ckptstore.save(tmp_path / "x", model=state)

    assert looked_at(seen) != []
    assert list(saved.tensors()) == list(state)


def test_what_safe_loading_refuses_is_found_all_the_same(tmp_path):
    folder = tmp_path / "foreign"
    folder.mkdir()
    torch.save(torch.nn.Linear(2, 2), folder / "model.pt")

    with pytest.raises(ckptstore.UnsafeError):
        ckptstore.sync(folder, tmp_path / "copy")
    assert not (tmp_path / "copy" / "manifest.json").exists()


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("sizes", [[], [10], [MIB] * 3, [300_000] * 11, [5 * MIB], [1, 4 * MIB, 1]])
def test_both_ends_are_kept_and_nothing_else(sizes, stays):
    ends, data = Ends(), b""
    for number, size in enumerate(sizes):
        part = bytearray([number % 251]) * size
        ends.take(memoryview(part), stays=stays)
        data += part
        if not stays:
            part[:] = b"\xff" * size
    first, last = data[:MIB], data[-MIB:]

    assert ends.seek(0, io.SEEK_END) == len(data)
    assert ends.seek(0) == 0
    assert ends.read(len(first)) == first
    ends.seek(len(data) - len(last))
    assert ends.read() == last
    if len(data) > 4 * MIB:
        ends.seek(2 * MIB)
        with pytest.raises(NotKeptError):
            ends.read(10)
