"""A training saves to the disk first, and is copied to a tier; a new machine goes on from there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from click.testing import Result

import ckptstore

QUICK = ["--batch_size", 2, "--block_size", 8, "--n_embd", 8, "--n_head", 2, "--n_layer", 1,
         "--dropout", 0.2, "--eval_iters", 1, "--seed", 1, "--device", "cpu"]  # fmt: skip

Train = Callable[..., Result]


@pytest.fixture
def train(run: Any) -> Train:
    """Give a function that trains a tiny model, which is copied to a tier."""

    def train(*options: object, name: str = "dante") -> Result:
        return run("train", "--model_name", name, *QUICK, *options)

    return train


def test_a_single_checkpoint_is_on_both_and_a_new_machine_goes_on_from_the_tier(
    train: Train,
) -> None:
    train("--max_iters", 6, "--eval_interval", 3, name="whole")
    tier = ["--eval_interval", 3, "--tier", "bucket"]
    train("--max_iters", 3, *tier)
    assert ckptstore.open("bucket/dante").step == ckptstore.open("checkpoints/dante").step == 3
    shutil.rmtree("checkpoints/dante")
    result = train("--max_iters", 6, *tier)
    assert "going on at step 3" in result.output
    one, other = (
        ckptstore.open(location).load_model() for location in ("checkpoints/whole", "bucket/dante")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_history_keeps_other_steps_in_the_tier_and_goes_back_in_both(train: Train) -> None:
    options = ["--eval_interval", 2, "--tier", "bucket"]
    train("--max_iters", 8, *options, "--keep_last", 1, "--tier_keep_every", 4)
    assert ckptstore.Store("checkpoints/dante").steps() == (8,)
    assert ckptstore.Store("bucket/dante").steps() == (4, 8)
    result = train("--max_iters", 6, *options, "--keep_last", 2, "--from_step", 4)
    assert "went back to step 4: removed step 8" in result.output
    assert ckptstore.Store("checkpoints/dante").steps() == (4, 6)
    assert ckptstore.Store("bucket/dante").steps() == (4, 6)


def test_a_history_of_the_tier_goes_on_as_one_where_the_folder_is_empty(train: Train) -> None:
    train("--max_iters", 2, "--eval_interval", 2, "--tier", "bucket", "--keep_last", 2)
    shutil.rmtree("checkpoints/dante")
    result = train("--max_iters", 4, "--eval_interval", 2, "--tier", "bucket")
    assert "going on with a history" in result.output
    assert ckptstore.Store("checkpoints/dante").steps() == (4,)
    assert ckptstore.Store("bucket/dante").steps() == (2, 4)


def test_what_the_tier_keeps_needs_a_tier(train: Train) -> None:
    result = train("--max_iters", 1, "--tier_keep_last", 2)
    assert result.exit_code == 2
    assert "--tier_keep_last and --tier_keep_every need --tier LOCATION" in result.output
