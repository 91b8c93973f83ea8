"""G9: what a release has written, every later one reads.

`format_1` holds checkpoints as format version 1 was first written; never write them again. A new
format version gets a folder and a test beside this one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import ckptstore

WRITTEN = Path(__file__).parent / "format_1"
WEIGHT = [
    [-0.006322421133518219, 0.307709664106369, -0.477175772190094],
    [-0.42688605189323425, -0.2243645191192627, 0.15281763672828674],
]
BIAS = [-0.013438905589282513, 0.45576581358909607]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a copy, as a clone of the repository has it: no hard links, other inodes."""
    return Path(shutil.copytree(WRITTEN, tmp_path / "format_1"))


def test_a_checkpoint_of_format_1_reads_as_it_was_written(folder):
    checkpoint = ckptstore.open(folder / "single")

    assert (checkpoint.format, checkpoint.generation, checkpoint.step) == ("bundle", 2, 2)
    assert checkpoint.config == {"n_in": 3, "n_out": 2, "unknown": {"è": [1, None, 2.5]}}
    assert checkpoint.tokenizer_state == {"token_kind": "char", "chars": ["\n", " ", "a", "è"]}
    assert checkpoint.training_state == {
        "step": 2,
        "optimizer_file": "optimizer.pt",
        "rng_file": "rng.pt",
        "seed": 7,
    }
    assert (checkpoint.metrics, checkpoint.edited, checkpoint.proved) == (
        {"val_loss": 0.5},
        (),
        True,
    )
    assert checkpoint.load_tokenizer().encode("a è") == [2, 1, 3]
    weights = checkpoint.load_model()
    assert (weights["weight"].tolist(), weights["bias"].tolist()) == (WEIGHT, BIAS)
    moments = checkpoint.load_optimizer()
    assert moments["param_groups"][0]["lr"] == 1e-3
    assert moments["state"][0]["step"] == 2
    assert checkpoint.load_state("rng")["torch"].tolist() == [0, 1, 2, 3]
    report = checkpoint.verify()
    assert (report.sound, report.proved) == (True, True)


def test_a_history_of_format_1_reads_as_it_was_written(folder):
    store = ckptstore.Store(folder / "history", keep=ckptstore.Keep())

    assert store.steps() == (1, 2)
    for step in store.steps():
        checkpoint = store.open(step)
        expected = torch.full((2,), float(step), dtype=torch.bfloat16)
        assert torch.equal(checkpoint.load_model()["w"], expected)
        assert checkpoint.config == {"n": step}


def test_saving_goes_on_where_format_1_ended(folder):
    checkpoint = ckptstore.save(folder / "single", model={"w": torch.ones(1)}, step=3)

    assert checkpoint.generation == 3
    assert json.loads((folder / "single" / "manifest.json").read_text())["generation"] == 3


def test_a_later_format_is_refused_and_says_so(folder):
    manifest = folder / "history/step-00000002/manifest.json"
    manifest.write_text(manifest.read_text().replace('"ckptstore": 1', '"ckptstore": 2'))

    with pytest.raises(ckptstore.UnsupportedError, match="format version 2, this ckptstore reads"):
        ckptstore.open(folder / "history")


def test_shards_of_version_1_read_as_they_were_written(tmp_path):
    folder = Path(shutil.copytree(WRITTEN.parent / "sharded_1", tmp_path / "sharded_1"))

    ranks = ckptstore.open(folder / "ranks")
    assert (ranks.format, ranks.step, ranks.config) == ("sharded", 2, {"n": 3})
    assert ranks.training_state == {"step": 2, "seed": 7}
    assert ranks.metrics == {"val_loss": 0.5}
    assert ranks.load_tokenizer().encode("è") == [1]
    weights = ranks.load_model()
    assert torch.equal(weights["w"], torch.arange(12.0).reshape(4, 3) / 4)
    assert torch.equal(weights["b"], torch.tensor([1.5, -2.0]).to(torch.bfloat16))
    assert weights["none"].shape == (0, 2)
    moments = ranks.load_optimizer()
    assert torch.equal(moments["state"]["w"]["exp_avg"], torch.arange(12.0).reshape(4, 3) / 8)
    assert moments["param_groups"] == [{"lr": 0.001, "params": ["w", "b"]}]
    assert ranks.load_state("scheduler") == {"last_epoch": 7}
    assert ranks.load_state("epoch") == 3
    assert ranks.verify().sound

    cut = ckptstore.open(folder / "cut")
    weights = cut.load_model()
    assert torch.equal(weights["in.weight"], torch.arange(6.0).reshape(2, 3))
    assert weights["in.weight"] is weights["out.weight"]
    moments = cut.load_optimizer()
    assert torch.equal(moments["state"][0]["exp_avg"], torch.arange(6.0).reshape(2, 3) / 2)
    assert moments["param_groups"] == [{"lr": 0.5, "betas": (0.9, 0.95), "params": [0]}]
    assert cut.load_state("rng")["torch"].tolist() == [0, 1, 2, 3]
    assert cut.load_metrics_log() == ({"step": 4, "val_loss": 1.0},)
    assert cut.verify().sound
