"""G8 and G2 of several ranks: real runs by torchrun, which die where they are told to.

One run costs seconds, most of it to import torch in each process. So they are few, and what there
is to be seen of one is asserted in one test, or of a run that several tests look at.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from gpt.fit import estimate_loss
from gpt.model import GPT

# The command itself. Where DIE says so, a rank sends a signal to itself or to its launcher when it
# draws its batch of that number, which is in the middle of a step.
COMMAND = """
import os, sys
from gpt import data
draw = data.GPTDataLoader.get_batch
rank, number, signalled, whom = os.environ.get("DIE", "- 0 0 -").split()
taken = 0

def get_batch(self, split, *, generator=None):
    global taken
    taken += generator is None
    if generator is None and os.environ.get("RANK") == rank and taken == int(number):
        os.kill(os.getpid() if whom == "self" else os.getppid(), int(signalled))
    return draw(self, split, generator=generator)

data.GPTDataLoader.get_batch = get_batch
from gpt.train import main
main(sys.argv[1:], prog_name="train")
"""
SETTINGS = {
    "batch_size": 2, "block_size": 8, "n_embd": 8, "n_head": 2, "n_layer": 1, "dropout": 0.2,
    "device": "cpu", "seed": 1, "eval_interval": 5, "eval_iters": 3, "rank_timeout": 60,
}  # fmt: skip
TINY = [part for name, value in SETTINGS.items() for part in (f"--{name}", str(value))]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
RUNS = "checkpoints"

# The gradients of one batch, once after others and once as the first.
GRADIENTS = """
from gpt.ranks import Ranks

with Ranks.of_environment(timeout=60) as ranks:
    import torch
    from gpt.model import GPT, GPTConfig

    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = GPT(GPTConfig(block_size=8, vocab_size=41, n_embd=16, n_head=2, n_layer=2,
                          dropout=0.0, device="cpu"))
    generator = torch.Generator().manual_seed(ranks.rank)
    batches = [torch.randint(41, (2, 9), generator=generator) for _ in range(4)]

    def gradients(wrapped, ids):
        model.zero_grad(set_to_none=True)
        wrapped(ids[:, :-1], ids[:, 1:].contiguous())[1].backward()
        return [value.grad.clone() for value in model.parameters()]

    wrapped = ranks.wrapped(model)
    late = [gradients(wrapped, ids) for ids in batches][-1]
    first = gradients(ranks.wrapped(model), batches[-1])
    print(all(map(torch.equal, late, first)))
"""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def torchrun(
    folder: Path, ranks: int, *options: object, die: str | None = None
) -> subprocess.CompletedProcess[str]:
    (folder / "command.py").write_text(COMMAND)
    command = [*TORCHRUN, str(ranks), "command.py", *TINY, *map(str, options)]
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment(**({"DIE": die} if die else {})),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def ours(stderr: str) -> list[str]:
    """Return our lines; torchrun has a report of its own."""
    return [
        line for line in stderr.splitlines() if re.match(r"(rank \d+: )?(error|warning):", line)
    ]


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def same_training(one: ckptstore.Checkpoint, other: ckptstore.Checkpoint) -> bool:
    return (
        one.step == other.step
        and one.metrics == other.metrics
        and equal(one.load_model(), other.load_model())
        and equal(one.load_optimizer(), other.load_optimizer())
        and equal(one.load_state("rng"), other.load_state("rng"))
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the checkpoint ``whole``, of two ranks that nobody interrupted."""
    folder = tmp_path_factory.mktemp("ranks")
    result = torchrun(folder, 2, "--model_name", "whole", "--max_iters", 12)
    assert result.returncode == 0, result.stderr
    assert ours(result.stderr) == []
    lines = result.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "starting", "step  5/12", "step 10/12", "step 12/12", lines[-1],
    ]  # fmt: skip
    return folder


def opened(runs: Path, name: str) -> ckptstore.Checkpoint:
    return ckptstore.open(runs / RUNS / name)


def test_a_checkpoint_of_two_ranks_is_one_as_any_other(runs: Path) -> None:
    checkpoint = opened(runs, "whole")
    model, _, step, _ = GPT.load(runs / RUNS / "whole")

    assert step == 12
    assert checkpoint.verify().sound
    stored = torch.load(runs / RUNS / "whole" / "model.pt", weights_only=True)
    assert stored.keys() == model.state_dict().keys()
    rng = checkpoint.load_state("rng")
    assert rng.keys() == {"torch", "cuda", "data", "other_ranks", "trail"}
    (other,) = rng["other_ranks"]
    assert other.keys() == {"torch", "cuda", "data"}
    assert not torch.equal(other["torch"], rng["torch"])
    assert not torch.equal(other["data"]["generator"], rng["data"]["generator"])


def test_losses_are_those_that_one_process_measures(runs: Path) -> None:
    from gpt.data import GPTDataLoader
    from gpt.train import SAMPLE_TEXT

    model = GPT.load(runs / RUNS / "whole")[0]
    loader = GPTDataLoader(model.config, model)
    loader.prepare_data(SAMPLE_TEXT.read_text(encoding="utf-8"))

    losses = estimate_loss(model, loader, 3)
    assert opened(runs, "whole").metrics == {f"{name}_loss": x for name, x in losses.items()}


def test_after_a_signal_and_a_death_the_run_ends_as_one_that_was_not_harmed(runs: Path) -> None:
    options = ("--model_name", "harmed", "--max_iters", 12)
    told = torchrun(runs, 2, *options, die=f"1 8 {int(signal.SIGTERM)} self")

    # One rank alone is told to end, in its eighth step: both end after the same one, with one save.
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()[2:]
    assert [re.sub("[0-9.]+ s are", "30 s are", line) for line in lines] == [
        "SIGTERM of rank 1: saving step 9, 30 s are left",
        "step 9 saved",
        "SIGTERM of rank 1: stopped after step 9, which is saved in checkpoints/harmed",
    ]
    assert ours(told.stderr) == []
    assert (opened(runs, "harmed").step, opened(runs, "harmed").generation) == (9, 2)

    killed = torchrun(runs, 2, *options, die=f"1 2 {int(signal.SIGKILL)} self")
    assert killed.returncode == 1
    assert killed.stdout.startswith("going on at step 9")
    assert killed.stderr.count("Traceback") == 1  # torchrun's own
    (said,) = ours(killed.stderr)
    assert said.startswith("error: another rank of this run has ended, or cannot be reached (")
    assert opened(runs, "harmed").step == 10

    resumed = torchrun(runs, 2, *options)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.startswith("going on at step 10")
    assert ours(resumed.stderr) == []
    assert same_training(opened(runs, "harmed"), opened(runs, "whole"))


def test_one_process_goes_on_with_what_two_ranks_saved_and_two_with_what_one_did(
    runs: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    ckptstore.sync(runs / RUNS / "whole", runs / RUNS / "other")
    options = ("--model_name", "other", "--max_iters")

    alone = run("train", *TINY, *options, 13)
    assert alone.exit_code == 0, alone.stderr
    (said,) = ours(alone.stderr)
    assert "of a run of 2 ranks, and goes on with one process; weights, optimizer and" in said
    assert "other_ranks" not in opened(runs, "other").load_state("rng")

    both = torchrun(runs, 2, *options, 14)
    assert both.returncode == 0, both.stderr
    (said,) = ours(both.stderr)
    assert "of a run of 1 process, and goes on with the 2 there are; from rank 1 on they" in said
    assert opened(runs, "other").step == 14
    assert len(opened(runs, "other").load_state("rng")["other_ranks"]) == 1


def test_an_error_of_all_ranks_is_one_line(runs: Path) -> None:
    result = torchrun(runs, 2, "--model_name", "new", "--init_from_model", "absent")

    assert result.returncode == 1
    assert ours(result.stderr) == ["error: no checkpoint in checkpoints/absent: nothing is there"]
    assert result.stderr.count("Traceback") == 1  # torchrun's own


def test_without_torchrun_no_rank_trains_on(runs: Path) -> None:
    options = [*TINY, "--model_name", "orphans", "--max_iters", "1000000"]
    command = [*TORCHRUN, "2", "command.py", *options]
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=runs,
        env=environment(DIE=f"0 8 {int(signal.SIGKILL)} parent"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # Its end is the end of all that hold the pipe: torchrun and both ranks.
        _, stderr = process.communicate(timeout=120)

    assert process.returncode == -signal.SIGKILL
    assert ours(stderr) == [
        "error: torchrun has ended, and its ranks with it; what was saved is whole: "
        "give the same command again to go on from there"
    ]
    assert opened(runs, "orphans").verify().sound


def by_hand(
    folders: list[Path], *options: object, program: str = COMMAND
) -> list[subprocess.CompletedProcess[str]]:
    """Start a rank in each folder, without torchrun."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank, folder in enumerate(folders):
        (folder / "command.py").write_text(program)
        place = {"RANK": str(rank), "WORLD_SIZE": str(len(folders)), "MASTER_PORT": str(port)}
        processes.append(
            subprocess.Popen(
                [sys.executable, "command.py", *map(str, options)],
                cwd=folder,
                env=environment(**place, MASTER_ADDR="127.0.0.1"),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    found = []
    for process in processes:
        stdout, stderr = process.communicate(timeout=120)
        found.append(subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr))
    return found


def test_ranks_that_see_other_files_say_so_and_nothing_changes(runs: Path, tmp_path: Path) -> None:
    before = opened(runs, "whole").write_id
    results = by_hand([runs, tmp_path], *TINY, "--model_name", "whole", "--max_iters", 20)

    assert [result.returncode for result in results] == [1, 1]
    (said,) = ours("".join(result.stderr for result in results))
    assert re.fullmatch(
        r"error: the checkpoint in checkpoints/whole: rank 0 has step 12, generation 3, write "
        rf"{before}, contents \w+, rank 1 has nothing; all ranks have to see the same files, .*",
        said,
    )
    assert "Traceback" not in "".join(result.stderr for result in results)
    assert opened(runs, "whole").write_id == before
    assert not (tmp_path / RUNS).exists()


def test_sums_over_ranks_are_rounded_alike_in_the_first_step_and_later(tmp_path: Path) -> None:
    # Of two numbers the sum is the same in either order; of three it is not.
    results = by_hand([tmp_path] * 3, program=GRADIENTS)

    assert [(result.returncode, result.stdout) for result in results] == [(0, "True\n")] * 3
