"""Completion in real shells; what each offers is what a person sees after pressing the tab key."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ckptstore.cli import main
from ckptstore.cli.group import LazyGroup

Run = Callable[..., Result]
Save = Callable[..., None]
HEAVY = ("torch", "fsspec", "s3fs", "tiktoken", "numpy", "botocore")
PATIENCE = 60.0
STARTS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
SCRIPTS = {
    "bash": 'bind "set enable-bracketed-paste off"; eval "$(ckptstore completion bash)"',
    "zsh": 'autoload -Uz compinit; compinit -D -u; eval "$(ckptstore completion zsh)"',
}
# What is typed before the tab key, and the one thing that it can become.
TYPED = [
    ("ckptstore insp", "ckptstore inspect "),
    ("ckptstore inspect dante --fal", "ckptstore inspect dante --fallback "),
    ("ckptstore inspect dan", "ckptstore inspect dante/"),
    ("ckptstore sync dante old/lat", "ckptstore sync dante old/latest.pt"),
    ("ckptstore rm history --step 15", "ckptstore rm history --step 1500 "),
    ("ckptstore convert dante new --to bun", "ckptstore convert dante new --to bundle "),
    ("ckptstore convert --all dan", "ckptstore convert --all dante/"),
]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Give the environment of a shell that finds the installed command."""
    scripts = sysconfig.get_path("scripts")
    if shutil.which("ckptstore", path=scripts) is None:
        pytest.skip("ckptstore is not installed beside this Python")
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "TERM": "dumb", "HOME": str(tmp_path), "PS1": "> "}


@pytest.fixture
def places(dante: Path, save_history: Save, legacy: Path, tmp_path: Path) -> Path:
    """Give a folder with a checkpoint, a history and a legacy file."""
    folder = dante.parent
    save_history(folder / "history", 500, 1000, 1500)
    (legacy.parent / "virgil").rename(folder / "old")
    return folder


class Terminal:
    """A shell that somebody types into.

    Args:
        command: starts it.
        options: of the process.
    """

    def __init__(self, command: list[str], **options: Any) -> None:
        self._ours, theirs = os.openpty()
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, **options
        )
        os.close(theirs)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def wait_for(self, text: str) -> None:
        """Wait until a text was shown, but for what moves the cursor."""
        end = time.monotonic() + PATIENCE
        while text not in self.shown and time.monotonic() < end:
            if select.select([self._ours], [], [], 1.0)[0]:
                self.shown += os.read(self._ours, 4096).decode("utf-8", "replace")
                self.shown = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]|[\r\x07\x1b=>]*\x08*", "", self.shown)
        assert text in self.shown, self.shown

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)


@pytest.fixture(params=["bash", "zsh"])
def terminal(
    request: pytest.FixtureRequest, environ: dict[str, str], places: Path
) -> Iterator[Terminal]:
    """Give each shell in turn, with completion, in the folder with the checkpoints."""
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    terminal = Terminal(STARTS[name], env=environ, cwd=places)
    try:
        terminal.type(f"{SCRIPTS[name]}; echo is 'ready'\n")
        terminal.wait_for("is ready")
        yield terminal
    finally:
        terminal.close()


def test_the_tab_key_completes(terminal: Terminal) -> None:
    for typed, completed in TYPED:
        terminal.shown = ""
        terminal.type(f"{typed}\t")
        terminal.wait_for(completed)
        terminal.type("\x15")  # Clears the line.


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(("typed", "completed"), TYPED)
def test_fish_completes(environ: dict[str, str], places: Path, typed: str, completed: str) -> None:
    program = 'ckptstore completion fish | source; complete -C "$argv[1]"'

    done = subprocess.run(
        ["fish", "--no-config", "-c", program, typed],
        env=environ,
        cwd=places,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    assert done.stderr == ""
    (offered,) = done.stdout.splitlines()
    assert offered.partition("\t")[0] == completed.split()[-1]


# -- what is offered, and what that costs ----------------------------------------------------


def offered(*words: str) -> list[str]:
    """Return what is offered for the last of some words, as bash hears it."""
    environ = {
        "COMP_WORDS": " ".join(("ckptstore", *words)),
        "COMP_CWORD": str(len(words)),
        "_CKPTSTORE_COMPLETE": "bash_complete",
    }
    result = CliRunner().invoke(main, [], prog_name="ckptstore", env=environ)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stderr == ""
    return [line.removeprefix("plain,") for line in result.stdout.splitlines() if line]


def test_commands_are_offered_with_their_help() -> None:
    assert offered("i") == ["inspect"]
    assert offered("") == main.list_commands(main.make_context("ckptstore", ["ls"]))
    environ = {
        "COMP_WORDS": "ckptstore in",
        "COMP_CWORD": "1",
        "_CKPTSTORE_COMPLETE": "zsh_complete",
    }
    told = CliRunner().invoke(main, [], prog_name="ckptstore", env=environ).stdout
    assert told == ("plain\ninspect\nShow what a checkpoint holds, without reading its weights.\n")


def test_the_commands_and_kinds_of_tokenizer_are_offered() -> None:
    assert offered("tokenizer", "") == ["export", "fetch"]
    assert offered("tokenizer", "fetch", "") == ["gpt2"]
    assert offered("tokenizer", "fetch", "cha") == []


def test_steps_are_offered_the_highest_first(places: Path) -> None:
    history = str(places / "history")

    assert offered("inspect", history, "--step", "") == ["1500", "1000", "500"]
    assert offered("verify", history, "--step", "1") == ["1500", "1000"]


@pytest.mark.parametrize(
    "location", ["s3://bucket/dante", "no/such/place", "", "gopher://host/x", "x\\0"]
)
def test_no_steps_are_offered_where_there_are_none(location: str) -> None:
    assert offered("inspect", location, "--step", "") == []


def test_a_damaged_checkpoint_offers_nothing_and_says_nothing(places: Path) -> None:
    (places / "history" / "step-00001500" / "manifest.json").write_text("{")

    assert offered("inspect", str(places / "history"), "--step", "5") == ["500"]


def test_paths_are_left_to_the_shell_and_urls_to_the_person() -> None:
    assert offered("sync", "dante", "ba") == ["file,ba"]
    assert offered("sync", "dante", "s3://bucket/x") == []


def test_the_formats_that_can_be_written_are_offered() -> None:
    assert offered("convert", "x", "--to", "") == ["bundle", "legacy", "sharded"]
    assert offered("convert", "x", "--to", "le") == ["legacy"]


def imported(*words: str) -> set[str]:
    """Return which heavy packages a completion imports."""
    program = (
        "import sys\nfrom ckptstore.cli import main\n"
        "try: main(prog_name='ckptstore')\nexcept SystemExit as end: assert not end.code\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    environ = {
        **os.environ,
        "COMP_WORDS": " ".join(("ckptstore", *words)),
        "COMP_CWORD": str(len(words)),
        "_CKPTSTORE_COMPLETE": "bash_complete",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip()
    return set(done.stderr.split())


def test_completion_imports_nothing_heavy(places: Path) -> None:
    assert imported("ins") == set()
    assert imported("sync", "--no") == set()
    assert imported("inspect", "dan") == set()
    assert imported("inspect", str(places / "history"), "--step", "1") == set()
    assert imported("convert", "x", "--to", "bun") == set()


def test_completing_the_name_of_a_command_imports_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = LazyGroup(
        name="group", commands_in="no_such_package", commands={"one": "Do.", "two": "Don't."}
    )
    environ = {"COMP_WORDS": "group t", "COMP_CWORD": "1", "_GROUP_COMPLETE": "bash_complete"}

    result = CliRunner().invoke(group, [], prog_name="group", env=environ)

    assert result.stdout == "plain,two\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_that_of_the_variable(run: Run, shell: str) -> None:
    environ = {"_CKPTSTORE_COMPLETE": f"{shell}_source"}

    by_variable = CliRunner().invoke(main, [], prog_name="ckptstore", env=environ)

    assert run("completion", shell).stdout.rstrip() == by_variable.stdout.rstrip()
    assert "_CKPTSTORE_COMPLETE" in by_variable.stdout


def test_another_shell_is_refused_with_those_that_there_are(run: Run) -> None:
    result = run("completion", "csh")

    assert result.exit_code == 2
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in result.stderr
    assert len(run("completion").stderr.splitlines()) == 1
