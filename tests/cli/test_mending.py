"""``rm`` and ``doctor``: nothing goes or changes unasked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


# -- doctor -------------------------------------------------------------------------------


def test_doctor_of_a_healthy_checkpoint_finds_nothing(run: Run, dante: Path) -> None:
    result = run("doctor", dante)

    assert result.exit_code == 0
    assert result.stdout == f"{dante}: nothing needs mending\n"


def test_doctor_only_says_what_it_would_do_until_it_is_told_to(run: Run, dante: Path) -> None:
    (dante / "model.pt").unlink()

    looked = run("doctor", dante)
    assert looked.exit_code == 0
    assert "--fix" in looked.stderr
    assert not (dante / "model.pt").exists()

    mended = run("doctor", dante, "--fix")
    assert mended.exit_code == 0, mended.stderr
    assert (dante / "model.pt").exists()
    assert "nothing needs mending" in run("doctor", dante).stdout


@pytest.mark.parametrize(("choice", "expected"), [("--adopt", 3.0), ("--restore", 100.0)])
def test_doctor_adopts_or_restores_a_replaced_file(
    run: Run, dante: Path, tmp_path: Path, save: Save, choice: str, expected: float
) -> None:
    import torch

    save(tmp_path / "other", step=3)
    shutil.copy(tmp_path / "other" / "model.pt", tmp_path / "model.pt")
    os.replace(tmp_path / "model.pt", dante / "model.pt")
    refused = run("inspect", dante)
    assert refused.exit_code == 6
    assert "--adopt" in refused.stderr
    assert "--restore" in refused.stderr

    result = run("doctor", dante, choice)

    assert result.exit_code == 0, result.stderr
    assert run("inspect", dante).exit_code == 0
    loaded = torch.load(dante / "model.pt", weights_only=True)
    assert loaded["embedding.weight"][0, 0].item() == expected


def test_doctor_lists_leftovers_and_removes_them_when_told_to(run: Run, dante: Path) -> None:
    leftover = dante / ".ckptstore" / "00000001" / "model.deaddeaddead.pt"
    leftover.write_bytes(b"half")

    looked = run("doctor", dante)
    assert looked.stdout == f"would remove the leftover {leftover.relative_to(dante)}\n"
    assert "--fix" in looked.stderr
    assert leftover.exists()

    assert run("doctor", dante, "--fix").stdout.startswith("removed the leftover ")
    assert not leftover.exists()
    assert run("inspect", dante).exit_code == 0


def test_doctor_asks_for_no_fix_where_all_it_says_is_what_stays(run: Run, moto_server: Any) -> None:
    import ckptstore

    url, options = moto_server.url("dante"), moto_server.storage_options
    ckptstore.save(url, model={}, storage_options=options)
    client = moto_server.client()
    key = "dante/.ckptstore/00000002/model.deaddeaddead.pt"
    client.create_multipart_upload(Bucket=url.split("/")[2], Key=key)
    client.close()
    given = [f"--storage-option={name}={value}" for name, value in options.items()]

    looked = run("doctor", url, *given)

    assert looked.exit_code == 0, looked.stderr
    assert looked.stdout.startswith("left alone: the unfinished upload of .ckptstore/00000002/")
    assert "--fix" not in looked.stderr
