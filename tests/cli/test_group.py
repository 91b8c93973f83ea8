"""The group of commands: help, suggestions, what is imported, and how errors end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ckptstore.cli import main
from ckptstore.cli.group import LazyGroup

COMMANDS = ("completion", "convert", "diff", "doctor", "inspect", "ls")
COMMANDS += ("pin", "plugins", "prune", "report", "rm", "sync", "tokenizer", "upload", "verify")
HEAVY = ("torch", "fsspec", "s3fs", "tiktoken", "numpy", "botocore")


def imported(*arguments: str) -> set[str]:
    """Return which heavy packages a command imports, asked in a process of its own."""
    program = (
        "import sys\nfrom ckptstore.cli import main\n"
        f"try: main({list(arguments)!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stderr.split())


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LazyGroup:
    """Give a group whose command ``fail`` raises what its argument says."""
    package = tmp_path / "failing_commands"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "fail.py").write_text(
        "import click\nimport ckptstore\n\n"
        "@click.command()\n@click.argument('what')\n"
        "def command(what):\n    raise eval(what)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return LazyGroup(name="group", commands_in="failing_commands", commands={"fail": "Fail."})


def test_every_command_is_there() -> None:
    assert tuple(main.list_commands(click.Context(main))) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_every_option_has_help(name: str) -> None:
    context = click.Context(main)
    command = main.get_command(context, name)

    assert command is not None
    assert command.help
    assert len(command.get_short_help_str(80)) < 60, "the list of commands shows it uncut"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
    help_text = CliRunner().invoke(main, [name, "--help"]).stdout
    assert help_text.startswith("Usage:")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_first(name: str) -> None:
    context = click.Context(main)
    command = main.get_command(context, name)

    assert command is not None
    listed = CliRunner().invoke(main, ["--help"]).stdout
    assert f"  {name.ljust(10)}  {command.get_short_help_str(80)}\n" in listed


def test_help_imports_nothing_heavy() -> None:
    assert imported("--help") == set()
    assert imported("--version") == set()


def test_help_imports_of_ours_only_the_group_and_looks_for_no_plugin() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ckptstore", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {name for name in modules if name.startswith("ckptstore")} == {
        "ckptstore",
        "ckptstore.cli",
        "ckptstore.cli.group",
        "ckptstore.cli.talking",
        "ckptstore.errors",
    }
    assert modules.isdisjoint({"importlib.metadata", "json", "logging", "dataclasses", "pluggy"})


def test_help_is_shown_though_a_command_cannot_be_imported() -> None:
    group = LazyGroup(name="group", commands_in="no_such_package", commands={"one": "Do."})

    result = CliRunner().invoke(group, ["--help"])

    assert result.exit_code == 0
    assert "  one  Do.\n" in result.stdout


def test_inspect_of_a_local_bundle_imports_no_torch_no_s3fs_and_no_tiktoken(dante: Path) -> None:
    assert imported("inspect", str(dante), "--tensors") <= {"fsspec"}
    assert imported("inspect", str(dante), "--json") <= {"fsspec"}


def test_inspect_of_a_legacy_file_imports_no_torch(legacy: Path) -> None:
    assert imported("inspect", str(legacy)) <= {"fsspec"}


def test_without_a_command_the_help_is_shown_and_it_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, [])

    assert result.exit_code == 2
    assert result.stdout == ""
    assert all(name in result.stderr for name in COMMANDS)


def test_version_is_the_package_version() -> None:
    import ckptstore

    assert CliRunner().invoke(main, ["--version"]).stdout == f"ckptstore {ckptstore.__version__}\n"


def test_a_mistyped_command_suggests_the_near_one() -> None:
    result = CliRunner().invoke(main, ["inspct", "x"])

    assert result.exit_code == 2
    assert result.stderr.startswith("error: there is no command 'inspct'; did you mean 'inspect'?")
    assert len(result.stderr.splitlines()) == 1


def test_an_unknown_command_lists_those_that_there_are() -> None:
    result = CliRunner().invoke(main, ["zzz"])

    assert result.exit_code == 2
    assert "there are completion, convert, diff, doctor, inspect" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["inspect"], "missing argument 'LOCATION'"),
        (["--nonsense"], "no such option"),
        (["inspect", "x", "--jso"], "no such option '--jso'; did you mean '--json'?"),
        (["inspect", "x", "--jsn"], "no such option"),
        (["inspect", "x", "--step", "-3"], "-3 is not in the range"),
        (["inspect", "x", "--storage-option", "sesame"], "number 1 is not KEY=VALUE"),
        (["inspect", "x", "--storage-option", "a=1", "--storage-option", "a=2"], "given twice"),
        (["convert"], "give one SOURCE, or --all FOLDER"),
        (["convert", "a", "--all", "b"], "give one SOURCE, or --all FOLDER"),
        (["doctor", "x", "--adopt", "--restore"], "exclude each other"),
    ],
)
def test_wrong_usage_is_one_line_and_exits_2(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert "--help)" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_storage_option_without_its_key_is_not_repeated() -> None:
    result = CliRunner().invoke(main, ["inspect", "x", "--storage-option", "wJalrXUtnFEMI"])

    assert "wJalrXUtnFEMI" not in result.output


@pytest.mark.parametrize(
    ("what", "line", "code"),
    [
        ("ckptstore.NotFoundError('no checkpoint')", "error: no checkpoint", 3),
        ("ckptstore.CorruptionError('damaged')", "error: damaged", 4),
        ("ckptstore.UnsafeError('unsafe')", "error: unsafe", 5),
        ("ckptstore.ConflictError('there')", "error: there", 6),
        ("ckptstore.SupersededError('gone')", "error: gone", 6),
        ("ckptstore.StorageError('unreachable')", "error: unreachable", 1),
        ("ckptstore.PluginError('broken')", "error: broken", 1),
        ("ckptstore.UnsupportedError('two\\nlines')", "error: two; lines", 1),
        ("ckptstore.CkptstoreError('\\x1b[2J')", "error: \\x1b[2J", 1),
        ("OSError(28, 'No space left on device', 'a/b')", "error: a/b: No space left on device", 1),
        ("KeyboardInterrupt()", "interrupted", 130),
    ],
)
def test_each_error_is_one_line_and_its_exit_code(
    failing: LazyGroup, what: str, line: str, code: int
) -> None:
    result = CliRunner().invoke(failing, ["fail", what])

    assert result.stderr == line + "\n"
    assert result.stdout == ""
    assert result.exit_code == code


def test_an_unexpected_exception_is_a_bug_and_is_let_through(failing: LazyGroup) -> None:
    result = CliRunner().invoke(failing, ["fail", "ValueError('a bug')"])

    assert isinstance(result.exception, ValueError)


@pytest.mark.parametrize("arguments", [("--json", "--tensors"), ("--tensors",)])
def test_a_reader_that_leaves_is_no_error(dante: Path, arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ckptstore", "inspect", str(dante), *arguments]
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, text=True) as process:
        os.close(writing)
        _, said = process.communicate(timeout=60)

    assert said == ""


def test_the_installed_command_is_this_group() -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="ckptstore")

    assert script.load() is main
