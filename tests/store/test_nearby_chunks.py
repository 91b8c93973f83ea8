"""A copy does not read from afar what the destination has: chunk by chunk, and proved."""

from __future__ import annotations

import pytest
import torch

import ckptstore

CHUNK = 8 * 2**20


@pytest.fixture
def copied(tmp_path):
    """A source and its copy, and how to change the source in one place."""
    model = {"w": torch.randn(10_000_000)}  # 40 MB, five chunks
    source, copy = tmp_path / "source", tmp_path / "copy"
    ckptstore.save(source, model=model, step=1)
    ckptstore.sync(source, copy)
    model["w"][CHUNK // 2] += 1  # in the third chunk
    ckptstore.save(source, model=model, step=2)
    return source, copy, model


def test_only_the_chunks_that_differ_come_from_the_source(copied):
    source, copy, model = copied

    report = ckptstore.sync(source, copy)

    size = (source / "model.pt").stat().st_size
    assert report.copied_bytes < 2 * CHUNK + 10_000
    assert report.copied_bytes + report.spared_bytes >= size
    assert ckptstore.open(copy).verify().sound
    assert torch.equal(ckptstore.open(copy).load_model()["w"], model["w"])


def test_a_chunk_that_is_damaged_there_comes_from_the_source(copied):
    source, copy, model = copied
    with (copy / "model.pt").open("r+b") as file:
        file.seek(4 * CHUNK + 99)
        file.write(b"damage")

    ckptstore.sync(source, copy)

    assert ckptstore.open(copy).verify().sound
    assert torch.equal(ckptstore.open(copy).load_model()["w"], model["w"])


def test_a_source_of_another_size_is_copied_right(copied, tmp_path):
    source, copy, model = copied
    model["w"] = model["w"][:9_000_001].clone()
    ckptstore.save(source, model=model, step=3)

    ckptstore.sync(source, copy)

    assert ckptstore.open(copy).verify().sound
    assert torch.equal(ckptstore.open(copy).load_model()["w"], model["w"])
