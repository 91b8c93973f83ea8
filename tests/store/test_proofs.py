"""A conversion proves that it changed nothing but the layout, tensor by tensor."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import ckptstore
from ckptstore import tensors
from ckptstore.formats.bundle import BundleFormat


@pytest.fixture
def legacy(tmp_path):
    """A file of a model with a view and a tie, its optimizer, and a further state."""
    table = torch.randn(50, 4)
    weight = torch.nn.Parameter(torch.randn(3, 3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    model = {"w": weight.detach(), "tied": weight.detach(), "row": table[7], "nan": table[0] / 0}
    (tmp_path / "old").mkdir()
    torch.save(
        {
            "model_state_dict": model,
            "optimizer_state_dict": optimizer.state_dict(),
            "config": {"n": 1},
            "step": 3,
            "ema": {"w": torch.randn(3, 3)},
        },
        tmp_path / "old" / "latest.pt",
    )
    return tmp_path / "old"


def test_every_tensor_of_every_part_is_proved(legacy, tmp_path):
    done = ckptstore.convert(legacy, tmp_path / "new")

    names = {part: [proof.name for proof in proofs] for part, proofs in done.proofs.items()}
    assert names == {
        "model": ["w", "tied", "row", "nan"],
        "optimizer": ["state.0.step", "state.0.exp_avg", "state.0.exp_avg_sq"],
        "ema": ["w"],
    }
    same = {p.name: p.before.crc32 == p.after.crc32 for p in done.proofs["model"]}
    assert same == {"w": True, "tied": True, "row": False, "nan": True}


@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_a_tensor_that_differs_is_told(legacy, tmp_path, monkeypatch, part):
    real = BundleFormat.write

    def changed(self, contents, files):
        state = tensors.loaded(getattr(contents, part))
        tensor = state["w"] if part == "model" else state["state"][0]["exp_avg"]
        tensor[1, 1] += 1
        real(self, replace(contents, **{part: state}), files)

    monkeypatch.setattr(BundleFormat, "write", changed)

    with pytest.raises(ckptstore.CorruptionError, match=f"tensors of its {part} differ") as told:
        ckptstore.convert(legacy, tmp_path / "new")

    assert told.value.committed is True


def test_what_is_there_already_needs_no_proof(legacy, tmp_path):
    ckptstore.convert(legacy, tmp_path / "new")

    assert ckptstore.convert(legacy, tmp_path / "new").proofs == {}


def test_the_command_lists_each_when_asked(legacy, tmp_path):
    from click.testing import CliRunner

    from ckptstore.cli import main

    run = CliRunner().invoke(main, ["convert", "--report", str(legacy), str(tmp_path / "new")])

    lines = run.stdout.splitlines()
    assert "tensors of the optimizer" in lines
    (row,) = [line for line in lines if line.split()[:1] == ["row"]]
    assert row.endswith("values compared")
    assert "8 tensors proved the same" in lines[-1]


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (torch.tensor([0.0, float("nan")]), torch.tensor([0.0, float("nan")]), True),
        (torch.tensor([0.0]), torch.tensor([-0.0]), False),
        (torch.ones(2), torch.ones(2).double(), False),
        (torch.eye(3).t(), torch.eye(3), True),
        (torch.eye(2).to_sparse(), torch.eye(2).to_sparse(), True),
        ({"a": [1, (2,)]}, {"a": [1, (2,)]}, True),
        ({"a": 1}, {"b": 1}, False),
        ([1], [1, 2], False),
        (float("nan"), float("nan"), True),
    ],
)
def test_alike_is_bit_for_bit(one, two, same):
    assert tensors.alike(one, two) is same
