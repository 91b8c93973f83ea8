"""``pin`` and ``prune``: what stays, what goes, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

import ckptstore

Run = Callable[..., Result]
LOSSES = {100: 3.0, 200: 1.0, 300: 2.0, 400: 2.5}


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Give a history of four steps with a loss each."""
    with ckptstore.Store(tmp_path / "h", keep=ckptstore.Keep()) as store:
        for step, loss in LOSSES.items():
            store.save(model={"w": torch.ones(2)}, step=step, metrics={"val_loss": loss})
    return tmp_path / "h"


def steps(location: Path) -> tuple[int, ...]:
    return ckptstore.Store(location).steps()


def document(run: Run, *arguments: object) -> dict[str, Any]:
    result = run("prune", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_prune_removes_what_no_rule_keeps_and_says_why_the_others_stay(
    run: Run, history: Path
) -> None:
    run("pin", history, 100)

    result = run("prune", history, "--keep-last", 1, "--keep-best", "val_loss")

    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1] == ["100", "stays", "pinned"]
    assert lines[2] == ["200", "stays", "best"]
    assert lines[3][:2] == ["300", "removed"]
    assert lines[4] == ["400", "stays", "newest,", "last"]
    assert "removed 1 step, " in result.output
    assert steps(history) == (100, 200, 400)


def test_a_dry_run_of_prune_removes_nothing(run: Run, history: Path) -> None:
    result = run("prune", history, "--keep-every", 200, "--dry-run")

    assert "would go" in result.stdout
    assert "would remove 2 steps, " in result.output
    assert steps(history) == tuple(LOSSES)


def test_prune_as_json(run: Run, history: Path) -> None:
    found = document(run, history, "--keep-best", "val_loss", "--max", "--keep-every", 300)

    assert list(found) == ["schema", "location", "dry_run", "stays", "gone", "nbytes"]
    assert (found["schema"], found["location"], found["dry_run"]) == (1, str(history), False)
    assert found["stays"] == [
        {"step": 100, "rules": ["best"]},
        {"step": 300, "rules": ["every"]},
        {"step": 400, "rules": ["newest"]},
    ]
    assert [row["step"] for row in found["gone"]] == [200]
    assert found["nbytes"] == found["gone"][0]["nbytes"] > 0


@pytest.mark.parametrize("age", ["7d", "90m", "12h", "30s", "1.5w"])
def test_what_is_newer_than_a_time_stays(run: Run, history: Path, age: str) -> None:
    assert document(run, history, "--newer-than", age)["gone"] == []


@pytest.mark.parametrize("age", ["7", "d", "0d", "-1d", "7 days", "1e9d", "7D"])
def test_a_time_that_is_none_is_a_usage_error(run: Run, history: Path, age: str) -> None:
    result = run("prune", history, "--newer-than", age)

    assert result.exit_code == 2
    assert "is not a time above 0; write a number and s, m, h, d or w, such as 7d" in result.stderr
    assert steps(history) == tuple(LOSSES)


@pytest.mark.parametrize(
    ("options", "said"),
    [((), "no rule is given"), (("--max", "--keep-last", 1), "--max is for --keep-best")],
)
def test_rules_that_say_nothing_are_a_usage_error(
    run: Run, history: Path, options: tuple[object, ...], said: str
) -> None:
    result = run("prune", history, *options)

    assert result.exit_code == 2
    assert said in result.stderr
    assert steps(history) == tuple(LOSSES)


def test_a_mistyped_metric_removes_nothing_and_names_those_that_there_are(
    run: Run, history: Path
) -> None:
    result = run("prune", history, "--keep-best", "val_los", "--keep-last", 1)

    assert result.exit_code == 3
    assert "there are: val_loss" in result.stderr
    assert steps(history) == tuple(LOSSES)


def test_what_is_no_history_is_not_pruned_and_not_pinned(
    run: Run, tmp_path: Path, dante: Path
) -> None:
    for location in (tmp_path / "nowhere", dante):
        assert run("prune", location, "--keep-last", 1).exit_code == 3
        assert run("pin", location, 100).exit_code == 3
        assert run("pin", location, 100, "--remove").exit_code == 3


def test_pin_and_its_removal(run: Run, history: Path) -> None:
    for _ in range(2):
        result = run("pin", history, 200)
        assert (result.exit_code, result.output) == (0, "step 200 is pinned\n")
    rows = {row["step"]: row["pinned"] for row in json.loads(run("ls", history, "--json").stdout)}
    assert rows == {100: False, 200: True, 300: False, 400: False}
    assert "pinned" in run("ls", history).stdout.splitlines()[3]

    assert run("pin", history, 200, "--remove").output == "step 200 is not pinned any more\n"
    assert run("pin", history, 200, "--remove").output == "step 200 was not pinned\n"
    assert "pinned" not in run("ls", history).stdout


def test_a_pinned_step_is_not_deleted_by_rm_nor_by_sync(
    run: Run, history: Path, tmp_path: Path
) -> None:
    run("pin", history, 100)

    for options in (("--step", 100), ()):
        result = run("rm", history, *options, "--yes")
        assert result.exit_code == 6
        assert "ckptstore pin --remove" in result.stderr
    with ckptstore.Store(tmp_path / "other", keep=ckptstore.Keep()) as store:
        store.save(model={"w": torch.ones(2)}, step=500)
    assert run("sync", tmp_path / "other", history, "--all", "--delete", "--yes").exit_code == 0

    assert steps(history) == (100, 500)


def test_a_pin_that_nobody_can_be_sure_of_is_a_conflict(run: Run, history: Path) -> None:
    (history / "step-00000200" / "removing.0123456789ab").write_text("{}")

    result = run("pin", history, 200)

    assert result.exit_code == 6
    assert "is being removed, or a removal of it was cut off" in result.stderr


def test_doctor_and_verify_take_a_pin_for_what_it_is(run: Run, history: Path) -> None:
    run("pin", history, 200)

    assert "nothing needs mending" in run("doctor", history).stdout
    assert run("verify", history, "--all").exit_code == 0
