"""``rm``: nothing goes unasked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]
Save = Callable[..., None]


@pytest.fixture
def at_a_terminal() -> Iterator[Callable[..., tuple[int, str]]]:
    """Give a function that runs ``rm`` where stdin is a terminal, and types something there."""
    open_ends: list[int] = []

    def at_a_terminal(typed: str | signal.Signals, *arguments: object) -> tuple[int, str]:
        ours, theirs = os.openpty()
        open_ends.extend((ours, theirs))
        command = [sys.executable, "-m", "ckptstore", "rm", *map(str, arguments)]
        with subprocess.Popen(
            command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            if isinstance(typed, str):
                os.write(ours, typed.encode())
            else:
                assert process.stdout is not None
                said = ""
                while "[y/N]" not in said:
                    said += process.stdout.read(1)
                time.sleep(0.2)  # the question is there; let the process begin to wait for us
                process.send_signal(typed)
            said, _ = process.communicate(timeout=60)
        return process.returncode, said

    yield at_a_terminal
    for end in open_ends:
        os.close(end)


def test_rm_without_a_terminal_refuses_and_shows_what_would_go(run: Run, dante: Path) -> None:
    result = run("rm", dante)

    assert result.exit_code == 2
    assert "--yes" in result.stderr.splitlines()[-1]
    assert "model.pt" in result.stderr
    assert run("inspect", dante).exit_code == 0


def test_rm_with_yes_deletes(run: Run, dante: Path) -> None:
    result = run("rm", dante, "--yes")

    assert result.exit_code == 0, result.stderr
    assert "deleted" in result.stdout
    assert run("inspect", dante).exit_code == 3


def test_rm_of_a_step_leaves_the_others(run: Run, tmp_path: Path, save_history: Save) -> None:
    save_history(tmp_path / "h", 500, 1000)

    assert run("rm", tmp_path / "h", "--step", 500, "--yes").exit_code == 0

    listed = json.loads(run("ls", tmp_path / "h", "--json").stdout)
    assert [row["step"] for row in listed] == [1000]
    assert run("rm", tmp_path / "h", "--step", 500, "--yes").exit_code == 3


def test_rm_never_deletes_what_is_not_of_the_checkpoint(run: Run, dante: Path) -> None:
    (dante / "notes.txt").write_text("mine")

    run("rm", dante, "--yes")

    assert (dante / "notes.txt").read_text() == "mine"


def test_rm_of_what_is_not_there_is_not_found(run: Run, tmp_path: Path) -> None:
    assert run("rm", tmp_path / "nowhere", "--yes").exit_code == 3
    assert run("rm", tmp_path / "nowhere").exit_code == 3


def test_rm_asks_at_a_terminal(
    run: Run, dante: Path, at_a_terminal: Callable[..., tuple[int, str]]
) -> None:
    code, said = at_a_terminal("n\n", dante)
    assert code == 1
    assert "nothing was deleted" in said
    assert run("inspect", dante).exit_code == 0

    code, said = at_a_terminal("y\n", dante)
    assert code == 0, said
    assert run("inspect", dante).exit_code == 3


def test_an_interrupt_exits_130_and_says_so(
    run: Run, dante: Path, at_a_terminal: Callable[..., tuple[int, str]]
) -> None:
    code, said = at_a_terminal(signal.SIGINT, dante)

    assert code == 130
    assert said.strip() == "interrupted"
    assert run("inspect", dante).exit_code == 0
