"""The group of gpt's commands: its help, what it suggests, and what shells complete."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from gpt.__main__ import main

COMMANDS = ("train", "generate", "inspect")


def invoke(*arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(main, list(arguments), prog_name="gpt", env=variables)


def offered(words: str) -> list[str]:
    """Return what bash is offered for the last of some words, which may be empty."""
    environ = {
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "_GPT_COMPLETE": "bash_complete",
    }
    return [line.removeprefix("plain,") for line in invoke(**environ).stdout.split()]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_first(name: str) -> None:
    command = main.get_command(click.Context(main), name)

    assert command is not None
    listed = " ".join(invoke("--help").stdout.split())
    assert f"{name} {command.get_short_help_str(100)}" in listed


def test_a_mistyped_command_suggests_the_near_one() -> None:
    near, far = invoke("trian", "--model_name", "x"), invoke("zzz")

    assert near.exit_code == far.exit_code == 2
    assert near.stderr.startswith("error: there is no command 'trian'; did you mean 'train'?")
    assert "; there are train, generate, inspect, verify-resume (see " in far.stderr


def test_commands_options_models_and_kinds_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("checkpoints/dante", "checkpoints/.hidden", "other/virgil"):
        Path(name).mkdir(parents=True)
    Path("checkpoints/notes.txt").touch()

    assert offered("gpt tr") == ["train"]
    assert offered("gpt train --init_f") == ["--init_from_model"]
    assert offered("gpt train --model_name ") == ["dante"]
    assert offered("gpt train --base_dir other --model_name ") == ["virgil"]
    assert offered("gpt train --base_dir s3://bucket/x --model_name ") == []
    assert offered("gpt generate --tokenization gp") == ["gpt2"]
    assert offered("gpt train --base_dir ch") == ["dir,ch"]
    assert offered("gpt train --input_file te") == ["file,te"]
