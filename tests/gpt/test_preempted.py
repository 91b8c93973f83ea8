"""SIGTERM, SIGINT and notices end a training with its step saved; resumed, it is exact (G8)."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

import ckptstore
from gpt.data import GPTDataLoader
from gpt.saver import Saver

QUICK = ["--batch_size", 2, "--block_size", 8, "--n_embd", 8, "--n_head", 2, "--n_layer", 1,
         "--dropout", 0.2, "--eval_iters", 2, "--seed", 1, "--device", "cpu"]  # fmt: skip
STEPS = ["--max_iters", 9, "--eval_interval", 3]
# With these a training takes 9 batches to train on, and 3 times 4 to evaluate.
BATCHES = 9 + 3 * 2 * 2
HISTORY = ["--save_interval", 2, "--keep_last", 3, "--keep_every", 4]

Train = Callable[..., Result]


@pytest.fixture
def train(run: Any) -> Train:
    """Give a function that trains a tiny model called dante."""

    def train(*options: object, name: str = "dante") -> Result:
        return run("train", "--model_name", name, *QUICK, *options)

    return train


@pytest.fixture
def at_batch(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Give a function that has something happen before the batch of a number is taken."""
    taken = GPTDataLoader.get_batch

    def at_batch(number: int, act: Callable[[], object]) -> None:
        left = [number]

        def get_batch(self: Any, split: str, **rest: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                act()
            return taken(self, split, **rest)

        monkeypatch.setattr(GPTDataLoader, "get_batch", get_batch)

    return at_batch


def _signal(number: int = signal.SIGTERM) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def _end(name: str) -> tuple[Any, list[Any]]:
    """Return the weights of the last step, and what was measured until it, without the times."""
    checkpoint = ckptstore.open(f"checkpoints/{name}")
    rows = [{**row, "time": None} for row in checkpoint.load_metrics_log()]
    return checkpoint.load_model(), rows


def _assert_equal(one: tuple[Any, list[Any]], other: tuple[Any, list[Any]]) -> None:
    assert all(torch.equal(one[0][name], value) for name, value in other[0].items())
    assert one[1] == other[1]


@pytest.mark.parametrize("options", [[], HISTORY, [*HISTORY, "--async_saves"]],
                         ids=["single", "history", "async"])  # fmt: skip
def test_a_signal_at_any_moment_ends_well_and_the_run_that_goes_on_is_exact(
    train: Train, at_batch: Any, options: list[object]
) -> None:
    train(*STEPS, *options, name="whole")
    moments = random.Random(str(options)).sample(range(2, BATCHES), 4)

    for moment in (1, BATCHES, *moments):
        name = f"at-{moment}"
        at_batch(moment, _signal(random.Random(moment).choice([signal.SIGTERM, signal.SIGINT])))
        ended = train(*STEPS, *options, name=name)
        at_batch(0, _signal())
        resumed = train(*STEPS, *options, name=name)

        assert (ended.exit_code, ended.stderr) == (0, ""), ended.output
        assert (resumed.exit_code, resumed.stderr) == (0, ""), resumed.output
        last = ended.stdout.splitlines()[-1]
        assert "which is saved in checkpoints/" in last or last.startswith("step 9 is finished")
        _assert_equal(_end("whole"), _end(name))


def test_what_is_said_names_the_signal_the_step_and_the_place(train: Train, at_batch: Any) -> None:
    at_batch(5, _signal(signal.SIGINT))

    result = train("--max_iters", 9, "--eval_interval", 8)

    lines = result.stdout.splitlines()
    assert lines[-3].startswith("SIGINT: saving step 5, ")
    assert lines[-2:] == [
        "step 5 saved",
        "SIGINT: stopped after step 5, which is saved in checkpoints/dante",
    ]
    assert ckptstore.open("checkpoints/dante").step == 5


def test_an_evaluation_is_not_waited_for_and_is_made_up_for(train: Train, at_batch: Any) -> None:
    at_batch(3 + 1, _signal())
    ended = train(*STEPS)
    rows = ckptstore.open("checkpoints/dante").load_metrics_log()
    at_batch(0, _signal())
    resumed = train(*STEPS)

    assert "SIGTERM: stopped after step 3" in ended.stdout
    assert "loss" not in ended.stdout
    assert list(rows) == []
    assert resumed.stdout.splitlines()[1].startswith("step 3/9: train loss")
    assert [row["step"] for row in ckptstore.open("checkpoints/dante").load_metrics_log()] == [
        3, 6, 9]  # fmt: skip


def test_an_evaluation_that_is_finished_is_shown_and_saved(train: Train, at_batch: Any) -> None:
    at_batch(3 + 4, _signal())

    result = train(*STEPS)

    checkpoint = ckptstore.open("checkpoints/dante")
    assert result.stdout.splitlines()[1].startswith("step 3/9: train loss")
    assert (checkpoint.step, len(checkpoint.load_metrics_log())) == (3, 1)
    assert checkpoint.metrics.keys() == {"train_loss", "val_loss"}


@pytest.mark.parametrize("options", [[], ["--keep_last", 2]], ids=["single", "history"])
def test_the_last_step_is_evaluated_by_the_next_run(
    train: Train, at_batch: Any, options: list[object]
) -> None:
    train(*STEPS, *options, name="whole")
    at_batch(BATCHES - 1, _signal())
    ended = train(*STEPS, *options)
    at_batch(0, _signal())
    resumed = train(*STEPS, *options)
    again = train(*STEPS, *options)

    assert ended.stdout.splitlines()[-1].startswith("step 9 is finished")
    assert resumed.stdout.splitlines()[-2].startswith("step 9/9: train loss")
    assert again.stdout.splitlines()[-1].startswith("step 9 is finished")
    assert "loss" not in again.stdout
    assert ckptstore.open("checkpoints/dante").metrics.keys() == {"train_loss", "val_loss"}
    _assert_equal(_end("whole"), _end("dante"))


def test_a_step_that_is_saved_already_is_not_saved_again(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Saver.save

    def then_signal(self: Any, *arguments: Any) -> str:
        word = save(self, *arguments)
        _signal()()
        return word

    monkeypatch.setattr(Saver, "save", then_signal)

    result = train(*STEPS)

    assert "SIGTERM: stopped after step 3, which is saved" in result.stdout
    assert "saving" not in result.stdout
    assert ckptstore.open("checkpoints/dante").generation == 1


def test_before_the_first_step_there_is_nothing_to_save(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = GPTDataLoader.prepare_data

    def prepare_data(self: Any, *arguments: Any) -> None:
        _signal(signal.SIGINT)()
        prepare(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(GPTDataLoader, "prepare_data", prepare_data)
        result = train(*STEPS)
    Path("now").touch()
    train("--max_iters", 2)
    noticed = train("--max_iters", 3, "--preemption_file", "now")

    said = "stopped before the first step, there is nothing to save"
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == f"SIGINT: {said}"
    assert noticed.exit_code == 0
    assert noticed.stdout.splitlines()[-1] in (
        f"now is there: {said}; step 2 is the newest",
        "now is there: stopped after step 3, which is saved in checkpoints/dante",
        "step 3 is finished; the checkpoint is in checkpoints/dante",
    )


def test_a_file_that_appears_is_a_notice(train: Train, at_batch: Any) -> None:
    at_batch(5, lambda: Path("now").touch())

    result = train("--max_iters", 10**6, "--eval_interval", 10**6, "--preemption_file", "now")

    assert result.exit_code == 0
    last = result.stdout.splitlines()[-1]
    step = ckptstore.open("checkpoints/dante").step
    assert last == f"now is there: stopped after step {step}, which is saved in checkpoints/dante"


def test_a_save_that_fails_then_is_an_error(train: Train, at_batch: Any, tmp_path: Path) -> None:
    at_batch(2, lambda: (Path("checkpoints").mkdir(), Path("checkpoints/dante").touch(),
                         _signal()()))  # fmt: skip

    result = train(*STEPS)

    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def test_the_handlers_are_what_they_were(train: Train, at_batch: Any) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    at_batch(2, _signal())

    train(*STEPS)

    assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


# -- processes of their own: what ends at once ----------------------------------------------

# Trains, and has the storage hang for ever in the second save, once a signal has come. Another
# one is sent until it is heard: two that come at once may be one.
HANGING = """
import os, signal, sys, threading
from ckptstore.testing.injection import inject
from gpt.__main__ import main

first, *second = (getattr(signal, name) for name in sys.argv[1].split(","))
committed = []

def hang(operation, perform):
    if operation.name == "writer" and committed:
        print("hangs", flush=True)
        os.kill(os.getpid(), first)
        while not threading.Event().wait(0.3):
            for number in second:
                os.kill(os.getpid(), number)
    if operation.name == "create" and operation.path.endswith("manifest.json"):
        committed.append(operation.path)
    return perform()

with inject(hang):
    main(sys.argv[2:])
"""


def _hang(shell: Any, signals: str, *options: object) -> subprocess.CompletedProcess[str]:
    return shell("-W", "ignore", "-c", HANGING, signals, "train", "--model_name", "dante", *QUICK,
                 "--max_iters", 4, "--eval_interval", 2, "--keep_last", 2, *options)  # fmt: skip


@pytest.mark.parametrize("options", [[], ["--async_saves"]], ids=["sync", "async"])
def test_a_save_that_takes_too_long_is_given_up_and_the_old_one_is_whole(
    shell: Any, options: list[object]
) -> None:
    result = _hang(shell, "SIGTERM", "--grace", 0.5, *options)

    assert result.returncode == 1, result.stderr
    assert "hangs" in result.stdout
    assert result.stderr.splitlines()[-1] == (
        "error: the 0.5 s of --grace are over, and step 4 is not saved in checkpoints/dante; "
        "the newest saved step is 2"
    )
    checkpoint = ckptstore.open("checkpoints/dante")
    assert (checkpoint.step, checkpoint.verify().sound) == (2, True)


@pytest.mark.parametrize(("second", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("options", [[], ["--async_saves"]], ids=["sync", "async"])
def test_a_second_signal_ends_it_at_once(
    shell: Any, second: str, code: int, options: list[object]
) -> None:
    result = _hang(shell, f"SIGTERM,{second}", "--grace", 500, *options)

    assert (result.returncode, result.stderr) == (code, "interrupted\n")
    checkpoint = ckptstore.open("checkpoints/dante")
    assert (checkpoint.step, checkpoint.verify().sound) == (2, True)


def test_it_hears_what_a_shell_has_its_background_jobs_ignore(tmp_path: Path) -> None:
    train = [sys.executable, "-u", "-m", "gpt", "train", "--model_name", "dante", *QUICK,
             "--max_iters", 10**6, "--eval_interval", 1]  # fmt: skip
    with subprocess.Popen(
        ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *map(str, train)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.endswith("saved\n"))
        process.send_signal(signal.SIGINT)
        lines = process.stdout.read().splitlines()

    assert process.returncode == 0
    step = json.loads(Path("checkpoints/dante/training_state.json").read_text())["step"]
    assert lines[-1] == f"SIGINT: stopped after step {step}, which is saved in checkpoints/dante"
