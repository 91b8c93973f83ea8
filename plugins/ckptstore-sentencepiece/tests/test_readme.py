"""The examples of the README run as they stand there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch

import ckptstore
from ckptstore import plugins

README = Path(__file__).parents[1] / "README.md"
KIND = "sentencepiece"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fences(language):
    return [found[2] for found in FENCE.finditer(README.read_text("utf-8")) if found[1] == language]


def test_the_commands_run(run, tmp_path):
    given = plugins.train_tokenizer(KIND, "To be, or not to be.\n" * 100)
    (tmp_path / "tokenizer.model").write_bytes(given.to_model())
    lines = [line for block in fences("console") for line in block.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines if not line.startswith("$ pip ")]
    assert len(commands) > 2

    for command in commands:
        done = run("sh", "-c", command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert done.stderr == "", command


def test_the_python_runs(run, tmp_path):
    (tmp_path / "readme.py").write_text("\n".join(fences("python")))

    done = run(sys.executable, "readme.py")

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_table_has_every_option():
    found = re.findall(r"^\| `(\w+)` \| (\S*) ?\|", README.read_text("utf-8"), re.MULTILINE)

    assert dict(found) == {
        name: str(option.default) for name, option in plugins.tokenizer_options(KIND).items()
    }


def test_without_the_package_a_checkpoint_opens_and_encoding_says_what_is_missing(run):
    tokenizer = plugins.train_tokenizer(KIND, "To be, or not to be.\n" * 100)
    ckptstore.save("dante", model={"w": torch.ones(2)}, tokenizer=tokenizer)
    code = """
import ckptstore
checkpoint = ckptstore.open("dante")
checkpoint.verify()
print(sorted(checkpoint.load_model()), checkpoint.tokenizer_state["token_kind"])
checkpoint.load_tokenizer()
"""
    done = run(sys.executable, "-c", code, CKPTSTORE_DISABLE_PLUGINS=f"ckptstore-{KIND}")

    assert done.stdout == f"['w'] {KIND}\n"
    told = f"the tokenizer kind {KIND!r} is not installed; installed: "
    assert f"ckptstore.errors.UnsupportedError: {told}" in done.stderr
    assert told in " ".join(README.read_text("utf-8").split())
