"""``gpt train --tokenizer_option``: what a kind is told when it makes a vocabulary."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import ckptstore
from ckptstore import plugins
from gpt.checkpoint import CheckpointManager

Run = Callable[..., Result]

PLUGIN = """
    from ckptstore import hookimpl
    from ckptstore.tokenizers.char import CharTokenizer

    class Letters(CharTokenizer):
        kind = "letters"

        @classmethod
        def from_text(cls, text, *, more: str = "", digits: bool = False):
            return cls(sorted({*text, *more, *("0123456789" if digits else "")}))

    @hookimpl
    def ckptstore_tokenizers():
        return [Letters]
"""


@pytest.fixture(autouse=True)
def _letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a kind with options, for a test."""
    info = tmp_path / "site" / "ckptstore_letters-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ckptstore-letters\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[ckptstore]\nletters = letters_module\n")
    (tmp_path / "site" / "letters_module.py").write_text(textwrap.dedent(PLUGIN))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    plugins.reload()
    yield
    sys.modules.pop("letters_module", None)
    monkeypatch.undo()
    plugins.reload()


@pytest.fixture
def train(run: Run) -> Run:
    """Give a function that trains a tiny model on a text of two characters."""
    Path("text.txt").write_text("ab" * 100)

    def train(*arguments: object) -> Result:
        sizes = ("--batch_size", 2, "--block_size", 8, "--n_embd", 8, "--n_head", 1, "--n_layer", 1)
        quick = ("--eval_iters", 1, "--eval_interval", 5, "--input_file", "text.txt")
        return run("train", "--model_name", "dante", *quick, *sizes, *arguments)

    return train


LETTERS = ("--tokenization", "letters", "--max_iters", 1)


def chars(name: str = "dante") -> str:
    state: Any = ckptstore.open(f"checkpoints/{name}").tokenizer_state
    return "".join(state["chars"])


def test_options_reach_the_kind(train: Run) -> None:
    told = ("--tokenizer_option", "more==x", "--tokenizer_option", "digits=true")

    assert train(*LETTERS, *told).exit_code == 0
    assert chars() == "0123456789=abx"


def test_without_options_the_defaults_hold(train: Run) -> None:
    assert train(*LETTERS).exit_code == 0
    assert chars() == "ab"


def test_a_resumed_model_keeps_its_vocabulary_and_says_so(train: Run) -> None:
    train(*LETTERS, "--tokenizer_option", "more=x")

    again = train(*LETTERS, "--max_iters", 2, "--tokenizer_option", "more=yz")

    assert again.exit_code == 0, again.output
    (line,) = again.stderr.splitlines()
    assert line.startswith("warning: the tokenizer stays the one of ")
    assert line.endswith(
        "checkpoints/dante, 3 characters; options are for a new model and change nothing here: "
        "more=yz"
    )
    assert chars() == "abx"


def test_a_model_that_starts_from_another_keeps_its_vocabulary_and_says_so(train: Run) -> None:
    train(*LETTERS, "--tokenizer_option", "more=x")

    new = train(
        *("--model_name", "new", "--init_from_model", "dante", "--max_iters", 1),
        *("--tokenizer_option", "more=yz"),
    )

    assert new.exit_code == 0, new.output
    assert "the tokenizer stays the one of " in new.stderr
    assert chars("new") == "abx"


def test_the_manager_takes_values(train: Run, make_config: Any) -> None:
    model, _, _ = CheckpointManager("new").initialize_for_training(
        make_config(), "letters", "ab", tokenizer_options={"digits": True}
    )

    assert model.tokenizer.n_vocab == 12


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["more"], "--tokenizer_option 'more' is not KEY=VALUE, such as vocab_size=512"),
        (["=x"], "--tokenizer_option '=x' is not KEY=VALUE"),
        (["more=x", "more=y"], "--tokenizer_option more is given twice"),
        (["digit=true"], "no training option 'digit'; it has 'more' (str, default '')"),
        (["digits=5"], "the tokenizer option 'digits' is '5', not true or false"),
    ],
)
def test_a_mistaken_option_is_one_line(train: Run, arguments: list[str], part: str) -> None:
    told = [word for given in arguments for word in ("--tokenizer_option", given)]

    result = train(*LETTERS, *told)

    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert part in line
    assert not Path("checkpoints/dante").exists()


def test_an_option_beside_the_default_kind_says_which_kind_that_is(train: Run) -> None:
    result = train("--max_iters", 1, "--tokenizer_option", "vocab_size=512")

    assert result.exit_code == 2
    assert "the tokenizer kind 'char' has no training options" in result.stderr


def test_the_help_says_where_options_are_listed(run: Run) -> None:
    assert "'ckptstore plugins' lists" in " ".join(run("train", "--help").stdout.split())


def test_the_shell_completes_the_options_of_the_kind() -> None:
    from click.shell_completion import ShellComplete

    from gpt.__main__ import main

    words = ["train", "--tokenization", "letters", "--tokenizer_option"]
    found = ShellComplete(main, {}, "gpt", "_GPT_COMPLETE").get_completions(words, "d")

    assert [item.value for item in found] == ["digits="]
