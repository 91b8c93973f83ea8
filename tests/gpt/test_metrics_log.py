"""What was measured in a training is a small file of the checkpoint, and belongs to its step."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from gpt.checkpoint import CheckpointManager
from gpt.data import GPTDataLoader
from gpt.model import GPT

WHERE = Path("checkpoints/dante")


@pytest.fixture
def train(text: str, make_config: Any) -> Any:
    """Give a function that trains up to a step, as ``gpt train`` does."""

    def train(steps: int, name: str = "dante", **options: Any) -> GPT:
        manager = CheckpointManager(name, options.pop("base_dir", "checkpoints"))
        model, optimizer, step = manager.initialize_for_training(
            make_config(), "char", text, **options
        )
        loader = GPTDataLoader(model.config, model)
        loader.prepare_data(text)
        model.fit(loader, optimizer, steps, eval_interval=2, eval_iters=1, start_step=step,
                  checkpoint_dir=manager.checkpoint_dir)  # fmt: skip
        return model

    return train


def rows(where: Path = WHERE) -> list[dict[str, Any]]:
    """Return what a person reads with cat."""
    return [json.loads(line) for line in (where / "metrics.jsonl").read_text().splitlines()]


def test_a_training_leaves_a_line_for_each_evaluation(train: Any) -> None:
    train(5)

    assert [row["step"] for row in rows()] == [2, 4, 5]
    assert all(
        list(row) == ["step", "train_loss", "val_loss", "learning_rate", "time"] for row in rows()
    )
    assert {row["learning_rate"] for row in rows()} == {3e-4}
    assert all(datetime.fromisoformat(row["time"]).tzinfo is not None for row in rows())


def test_the_last_line_is_what_was_measured_of_the_checkpoint(train: Any) -> None:
    train(4)

    metrics = ckptstore.open(WHERE).metrics
    assert {name: rows()[-1][name] for name in metrics} == metrics


def test_a_resumed_training_goes_on_with_its_lines(train: Any) -> None:
    train(4)
    before = rows()

    train(6, learning_rate=1e-4)

    assert rows()[:2] == before
    assert [row["step"] for row in rows()] == [2, 4, 6]
    assert rows()[-1]["learning_rate"] == 1e-4


def test_a_resumed_training_has_no_line_beyond_its_step(train: Any, text: str) -> None:
    train(6)
    model, *_ = GPT.load(WHERE)
    model.pending = None
    loader = GPTDataLoader(model.config, model)
    loader.prepare_data(text)

    model.fit(loader, model.configure_optimizer(), 4, eval_iters=1, start_step=3,
              checkpoint_dir="checkpoints/lower")  # fmt: skip

    assert [row["step"] for row in rows(Path("checkpoints/lower"))] == [2, 4]


def test_saving_a_lower_step_leaves_the_later_lines_out(train: Any) -> None:
    model = train(6)

    model.save_checkpoint_bundle("checkpoints/lower", step=4)

    assert [row["step"] for row in rows(Path("checkpoints/lower"))] == [2, 4]


def test_a_killed_training_has_the_lines_of_what_it_saved(train: Any, monkeypatch: Any) -> None:
    train(4)
    before = (WHERE / "metrics.jsonl").read_bytes()

    def killed(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ckptstore.Store, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(6)
    assert (WHERE / "metrics.jsonl").read_bytes() == before

    train(6)
    assert [row["step"] for row in rows()] == [2, 4, 6]


def test_training_state_stays_under_a_kilobyte_however_long_the_training(train: Any) -> None:
    model = train(2)
    model.metrics_log = [{"step": step, "val_loss": 1.0} for step in range(3000)]

    model.save_checkpoint_bundle(WHERE, step=3000)

    assert len(rows()) == 3000
    assert (WHERE / "training_state.json").stat().st_size < 1024


def test_new_weights_keep_the_lines(train: Any) -> None:
    model = train(2)
    before = rows()

    model.save(WHERE)

    assert rows() == before


def test_another_model_begins_without_lines(train: Any) -> None:
    train(2)

    train(2, name="virgil", init_from_model="dante")

    assert [row["step"] for row in rows(Path("checkpoints/virgil"))] == [2]


def test_lines_of_other_programs_are_kept(train: Any) -> None:
    train(2)
    theirs = [{"event": "began", "ä": [1, None]}, {"step": 1.5, "tokens": 7}]
    model, _, _, optimizer = GPT.load(WHERE)
    model.metrics_log = [*theirs, *model.metrics_log]
    model.save_checkpoint_bundle(WHERE, step=2, optimizer_state=optimizer)

    train(4)

    assert rows()[:2] == theirs
    assert [row.get("step") for row in rows()] == [None, 1.5, 2, 4]


def test_a_loss_that_is_no_number_is_null(train: Any) -> None:
    with pytest.warns(UserWarning, match="diverged"):
        train(2, learning_rate=1e30)

    assert rows()[-1]["val_loss"] is None


def test_a_copy_without_the_file_goes_on_without_and_says_so(train: Any) -> None:
    train(2)
    for path in (WHERE / "metrics.jsonl", *WHERE.glob(".ckptstore/*/metrics*")):
        path.unlink()

    with pytest.warns(UserWarning, match=r"what was measured before: .*metrics\.jsonl"):
        train(4)

    assert [row["step"] for row in rows()] == [4]


def test_an_old_checkpoint_begins_its_lines_where_it_is(train: Any, legacy_file: Path) -> None:
    step = ckptstore.open(legacy_file).step
    assert step is not None

    train(step + 1)

    assert [row["step"] for row in rows()] == [step + 1]


def test_the_lines_go_into_a_bucket_too(train: Any, memory_url: str) -> None:
    train(2, base_dir=memory_url)

    (row,) = ckptstore.open(f"{memory_url}/dante").load_metrics_log()
    assert row["step"] == 2


def test_evaluating_draws_from_no_random_state_for_its_lines(train: Any) -> None:
    torch.manual_seed(5)
    one = train(3, name="one")
    torch.manual_seed(5)
    two = train(3, name="two")

    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))
