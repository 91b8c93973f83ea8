"""A Trainer that is killed goes on in a fresh process as if nothing had been."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ckptstore

KILLED = -signal.SIGKILL


def losses(folder: Path) -> list[dict[str, Any]]:
    """Return what was logged of the model, without what was measured of the machine."""
    state = json.loads((folder / "final.json").read_text("utf-8"))
    wanted = ("step", "epoch", "loss", "grad_norm", "learning_rate", "eval_loss")
    rows = [row for row in state["log_history"] if "loss" in row or "eval_loss" in row]
    return [{name: row[name] for name in wanted if name in row} for row in rows]


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def final(folder: Path) -> dict[str, Any]:
    return dict(torch.load(folder / "final.pt", weights_only=True))


def test_a_killed_training_ends_as_one_that_was_not(train, whole, tmp_path):
    out, location = tmp_path / "out", tmp_path / "store"
    asked = {"output_dir": out, "location": location}

    while_saving = ("create", "step-00000008/manifest.json")
    assert train(**asked, kill_at=while_saving) == KILLED
    assert ckptstore.Store(location).steps() == (4,)
    shutil.rmtree(out)  # It goes on on another machine.
    assert train(**asked, resume={}) == 0

    assert equal(final(out), final(whole))
    assert losses(out) == losses(whole)
    assert len(losses(out)) == 20
    assert ckptstore.Store(location).steps() == (4, 8, 12, 16)
    checkpoint = ckptstore.open(location)
    weights = load_file(whole / "checkpoint-16/model.safetensors")
    assert equal(checkpoint.load_model(), weights)
    assert checkpoint.config["model_type"] == "gpt2"
    assert checkpoint.metrics["eval_loss"] == losses(whole)[-1]["eval_loss"]
    assert checkpoint.verify().sound


def test_in_a_bucket_beside_the_training_the_best_and_the_newest_stay(train, whole, moto, tmp_path):
    location, options = moto.url("run"), moto.storage_options
    best = {"load_best_model_at_end": True, "save_total_limit": 1}
    asked = {
        "location": location,
        "storage_options": options,
        "arguments": best,
        "callback": {"asynchronous": True, "keep_local": False},
    }
    store = ckptstore.Store(location, storage_options=options)
    evaluated = {row["step"]: row["eval_loss"] for row in losses(whole) if "eval_loss" in row}
    assert min(evaluated, key=evaluated.__getitem__) == 4

    first, second = tmp_path / "first", tmp_path / "second"
    assert train(**asked, output_dir=first, kill_at=("write", "step-00000012/model")) == KILLED
    assert store.steps() == (4, 8)
    assert train(**asked, output_dir=second, resume={}) == 0

    assert store.steps() == (4, 16)
    assert losses(second) == losses(whole)
    weights = load_file(whole / "checkpoint-4/model.safetensors")
    kept = {name: value for name, value in final(second).items() if name in weights}
    assert equal(kept, weights), "the best one was loaded at the end"
    newest = store.open().load_model()
    assert equal(newest, load_file(whole / "checkpoint-16/model.safetensors"))
    # That which was fetched stays; those that were saved went when they were committed.
    assert [path.name for path in second.glob("checkpoint-*")] == ["checkpoint-4"]


def test_two_processes_go_on_where_each_of_them_was(train, tmp_path):
    out, asked = tmp_path / "out", {"location": tmp_path / "store", "processes": 2}

    assert train(**asked, output_dir=tmp_path / "whole") == 0
    assert train(**asked, output_dir=out, resume={"step": 8, "rewind": True}) == 0

    assert equal(final(out), final(tmp_path / "whole"))
    assert losses(out) == losses(tmp_path / "whole")
    store = ckptstore.Store(tmp_path / "store")
    assert store.steps() == (4, 8, 12, 16)
    assert [*store.open().load_state("rng")] == ["rng_state_0.pth", "rng_state_1.pth"]
    [fetched] = out.glob("checkpoint-8")
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {file.name for file in fetched.iterdir()}


@pytest.mark.parametrize("name", ["model.pt", "optimizer.pt", "trainer.pt", "rng.pt"])
def test_a_corrupted_store_is_refused_and_leaves_no_folder(whole, tmp_path, name):
    from ckptstore_transformers import resume, upload

    upload(whole / "checkpoint-4", tmp_path / "store")
    file = tmp_path / "store/step-00000004" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)

    with pytest.raises(ckptstore.CorruptionError, match=f"{name} in .* is damaged"):
        resume(tmp_path / "store", tmp_path / "out")

    assert [*(tmp_path / "out").glob("*"), *(tmp_path / "out").glob(".*")] == []
