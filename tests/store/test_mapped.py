"""Mapped weights: proved first, never written back, and only where there is something to map."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import pytest
import torch

import ckptstore

STATE = {f"w{n}": torch.randn(300, 1000) for n in range(24)}


@pytest.fixture
def folder(tmp_path):
    ckptstore.save(tmp_path / "x", model=OrderedDict(STATE, tied=STATE["w3"], none=torch.empty(0)))
    return tmp_path / "x"


def digest(folder) -> str:
    return hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest()


@pytest.mark.parametrize("prove", [True, False])
def test_mapped_weights_are_the_weights(folder, prove):
    model = ckptstore.open(folder).load_model(mmap=True, prove=prove)

    assert list(model) == [*STATE, "tied", "none"]
    assert all(torch.equal(model[name], value) for name, value in STATE.items())
    assert model["tied"].data_ptr() == model["w3"].data_ptr()
    assert torch.equal(ckptstore.open(folder).load_model(["w7"], mmap=True)["w7"], STATE["w7"])


def test_what_is_written_to_mapped_weights_stays_in_memory(folder):
    before = digest(folder)
    checkpoint = ckptstore.open(folder)
    model = checkpoint.load_model(mmap=True)

    model["w0"].zero_()

    assert digest(folder) == before
    assert torch.equal(checkpoint.load_model(mmap=True)["w0"], STATE["w0"])


def test_mapped_weights_outlive_the_files_names(folder):
    model = ckptstore.open(folder).load_model(mmap=True)
    ckptstore.save(folder, model={"w": torch.ones(3)})

    assert all(torch.equal(model[name], value) for name, value in STATE.items())


def test_mapped_weights_are_saved_like_others(folder, tmp_path):
    again = ckptstore.save(tmp_path / "y", model=ckptstore.open(folder).load_model(mmap=True))

    assert again.files()["model.pt"].sha256 == digest(folder)


@pytest.mark.parametrize("manifest", [True, False], ids=["proved", "by CRC"])
def test_damage_is_found_before_mapped_weights_are_handed_out(folder, tmp_path, manifest):
    with (folder / "model.pt").open("r+b") as file:
        file.seek(10_000_000)
        file.write(b"damage")
    if not manifest:
        data = (folder / "model.pt").read_bytes()
        folder = tmp_path / "plain"
        folder.mkdir()
        (folder / "model.pt").write_bytes(data)

    with pytest.raises(ckptstore.CorruptionError, match="is damaged"):
        ckptstore.open(folder).load_model(mmap=True)
    assert len(ckptstore.open(folder).load_model(mmap=True, prove=False)) == 26


def test_a_legacy_file_is_mapped_too(tmp_path):
    torch.save({"model_state_dict": STATE, "config": {}, "step": 3}, tmp_path / "latest.pt")

    model = ckptstore.open(tmp_path).load_model(mmap=True)

    assert all(torch.equal(model[name], value) for name, value in STATE.items())


def test_what_cannot_be_mapped_says_so(folder):
    ckptstore.save("memory://mapped", model=STATE)
    sparse = {"w": torch.eye(3).to_sparse()}

    with pytest.raises(ckptstore.UnsupportedError, match="cannot be mapped, for it is on no local"):
        ckptstore.open("memory://mapped").load_model(mmap=True)
    with pytest.raises(ckptstore.UnsupportedError, match="holds tensors that cannot be mapped"):
        ckptstore.save(folder, model=sparse).load_model(mmap=True)
    with pytest.raises(ckptstore.UnsupportedError, match="mapped tensors stay on the CPU"):
        ckptstore.open(folder).load_model(mmap=True, map_location="meta")
    with pytest.raises(ckptstore.UnsupportedError, match="prove=False needs mmap=True"):
        ckptstore.open(folder).load_model(prove=False)
