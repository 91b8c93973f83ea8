"""What every good command does: colours, quiet, the log, Ctrl-C, and a reader that leaves."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]
Save = Callable[..., None]
Shell = Callable[..., Any]

COLOUR = "\x1b["


@pytest.fixture(autouse=True)
def _no_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def at_a_terminal(*arguments: object, **variables: str) -> str:
    """Return what a command prints where stdout is a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ckptstore", *map(str, arguments)]
    done = subprocess.run(
        command, stdout=theirs, stderr=theirs, env={**os.environ, **variables}, timeout=60
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # Linux says so at the end.
    os.close(ours)
    assert done.returncode == 0, shown
    return shown.decode()


# -- colours ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    ],
)
def test_a_terminal_has_colours_unless_somebody_wants_none(
    dante: Path, variables: dict[str, str], coloured: bool
) -> None:
    assert (COLOUR in at_a_terminal("verify", dante, **variables)) is coloured


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_a_pipe_has_colours_only_if_somebody_wants_them(
    shell: Shell, dante: Path, variables: dict[str, str], coloured: bool
) -> None:
    done = shell("verify", dante, env=variables)

    assert done.returncode == 0
    assert (COLOUR in done.stdout) is coloured


def test_json_has_no_colours(shell: Shell, dante: Path) -> None:
    assert COLOUR not in shell("verify", dante, "--json", env={"FORCE_COLOR": "1"}).stdout


# -- how much is said ------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    ("option", "kinds"),
    [(None, set()), ("-v", {"info"}), ("-vv", {"info", "debug"}), ("--verbose", {"info"})],
)
def test_the_log_is_on_stderr_as_much_as_is_asked_for(
    run: Run, dante: Path, tmp_path: Path, option: str | None, kinds: set[str], before: bool
) -> None:
    asked = [option] if option else []
    words = [*asked, "sync"] if before else ["sync", *asked]

    result = run(*words, dante, tmp_path / "copy")

    assert {line.partition(":")[0] for line in result.stderr.splitlines()} == kinds
    assert len(result.stdout.splitlines()) == 1
    if kinds:
        assert f"info: opened {dante}: generation 1, format bundle" in result.stderr.splitlines()
        copied = f"info: committed generation 1 of {tmp_path / 'copy'}: "
        assert any(line.startswith(copied) for line in result.stderr.splitlines())


def test_what_was_removed_is_in_the_log(run: Run, tmp_path: Path, save_history: Save) -> None:
    save_history(tmp_path / "h", 1, 2)

    result = run("rm", tmp_path / "h", "--step", 1, "--yes", "-v")

    assert f"info: removed step 1 of {tmp_path / 'h'}" in result.stderr.splitlines()


def test_where_options_come_from_is_in_the_log_and_what_they_are_is_not(
    run: Run, memory_url: str
) -> None:
    result = run("ls", memory_url, "-vv", "--storage-option", "secret=hush")

    assert "debug: the storage option secret is from --storage-option" in result.stderr
    assert "hush" not in result.output


def test_quiet_leaves_errors_and_what_was_asked_for(run: Run, dante: Path, tmp_path: Path) -> None:
    missing = run("inspect", tmp_path / "nowhere", "--quiet")
    listed = run("--quiet", "ls", dante)

    assert missing.exit_code == 3
    assert missing.stderr.startswith("error: ")
    assert "bundle" in listed.stdout
    assert listed.stderr == ""


def test_quiet_wins_over_verbose(run: Run, dante: Path, tmp_path: Path) -> None:
    assert run("-v", "sync", "-q", dante, tmp_path / "copy").output == ""


# -- Ctrl-C in an import; tests/world has it everywhere else ----------------------------------


@pytest.mark.parametrize(
    ("lasting", "presses", "ended"), [(1.0, 1, True), (60.0, 2, False)], ids=["one", "impatient"]
)
def test_an_interrupt_waits_for_the_end_of_an_import_and_a_second_does_not(
    tmp_path: Path, lasting: float, presses: int, ended: bool
) -> None:
    (tmp_path / "slowly").mkdir()
    (tmp_path / "slowly" / "__init__.py").touch()
    (tmp_path / "slowly" / "go.py").write_text(
        "import time\nfrom pathlib import Path\nimport click\n\n"
        f"Path('began').touch()\ntime.sleep({lasting})\nPath('ended').touch()\n\n"
        "@click.command()\ndef command():\n    time.sleep(60)\n"
    )
    program = (
        "from ckptstore.cli.group import LazyGroup\n"
        "LazyGroup(name='group', commands_in='slowly', commands={'go': 'Go.'})(['go'])"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        while not (tmp_path / "began").exists():
            assert process.poll() is None
            time.sleep(0.01)
        for _ in range(presses):
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        _, said = process.communicate(timeout=30)

    assert (process.returncode, said) == (130, "interrupted\n")
    assert (tmp_path / "ended").exists() is ended


# -- a reader that leaves --------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "--version",
        "ls PLACE",
        "ls PLACE --json",
        "verify PLACE",
        "inspect PLACE",
        "inspect PLACE --tensors --stats",
        "diff PLACE PLACE",
        "report PLACE --html -",
        "doctor PLACE",
        "plugins",
        "completion zsh",
        "sync PLACE copy",
    ],
)
def test_a_closed_pipe_ends_quietly(dante: Path, tmp_path: Path, words: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [str(dante) if word == "PLACE" else word for word in words.split()]
    command = [sys.executable, "-m", "ckptstore", *arguments]
    with subprocess.Popen(
        command, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        os.close(writing)
        _, said = process.communicate(timeout=60)

    assert (process.returncode, said) == (1, "")


def test_the_first_line_of_many_is_enough(dante: Path, save: Save) -> None:
    for name in ("a", "b", "c"):
        save(dante.parent / name)
    program = f"{sys.executable} -m ckptstore ls {dante.parent} | head -n 1"

    environ = {**os.environ, "COLUMNS": "500"}

    done = subprocess.run(
        ["sh", "-c", program], env=environ, capture_output=True, text=True, timeout=60
    )

    assert done.stdout.split()[:3] == ["location", "step", "format"]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_under_stdout_is_one_line(dante: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ckptstore", "ls", str(dante)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )

    assert done.returncode == 1
    assert done.stderr == "error: [Errno 28] No space left on device\n"
