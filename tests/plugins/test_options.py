"""The training options of tokenizer kinds: how they are declared, found, parsed and passed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from ckptstore import PluginError, UnsupportedError, plugins
from ckptstore.tokenizers.char import CharTokenizer
from ckptstore.tokenizers.options import TokenizerOption, options_of

if TYPE_CHECKING:
    from elsewhere import Progress  # nobody can evaluate what is annotated with it

Install = Callable[..., None]

PLUGIN = """
    from ckptstore import UnsupportedError, hookimpl
    from ckptstore.tokenizers.char import CharTokenizer

    class Told(CharTokenizer):
        kind = "told"

        @classmethod
        def from_text(cls, text, *, size: int = 300, rate: float = 1, mode: str = "fast",
                      lower: bool = False):
            if mode == "refuse":
                raise ValueError("mode is refuse")
            if mode == "lack":
                raise UnsupportedError("a file is lacking")
            if mode == "break":
                raise KeyError("inside")
            made = super().from_text(text)
            made.told = {"size": size, "rate": rate, "mode": mode, "lower": lower}
            return made

    @hookimpl
    def ckptstore_tokenizers():
        return [Told]
"""


class Declaring(CharTokenizer):
    """Declares in every way."""

    kind = "declaring"

    @classmethod
    def from_text(
        cls,
        text: str,
        positional: int = 1,
        *,
        size: int = 8192,
        rate: float = 1,
        mode: str = "bpe",
        lower: bool = True,
        guessed=0.5,
        progress: Progress | None = None,
        unlike: int = None,  # type: ignore[assignment]  # noqa: RUF013
        endless: float = float("inf"),
        truth: int = True,
        **more: int,
    ) -> CharTokenizer:
        return super().from_text(text)


@pytest.fixture
def told(install: Install) -> None:
    install("ckptstore-told", PLUGIN, entry="told")


def test_options_are_the_keyword_only_parameters_of_plain_types_with_a_default() -> None:
    assert list(options_of(Declaring).values()) == [
        TokenizerOption("size", int, 8192),
        TokenizerOption("rate", float, 1.0),
        TokenizerOption("mode", str, "bpe"),
        TokenizerOption("lower", bool, True),
        TokenizerOption("guessed", float, 0.5),
    ]


def test_annotations_that_are_types_count_as_those_that_are_text(told: None) -> None:
    """The module of the plugin has no ``from __future__ import annotations``."""
    options = plugins.tokenizer_options("told")
    assert {name: option.type for name, option in options.items()} == {
        "size": int,
        "rate": float,
        "mode": str,
        "lower": bool,
    }
    assert plugins.tokenizer_options("char") == plugins.tokenizer_options("gpt2") == {}


def test_values_and_their_texts_are_passed_alike(told: None) -> None:
    texts = {"size": "512", "rate": "0.25", "mode": "slow=er", "lower": "True"}
    values = {"size": 512, "rate": 0.25, "mode": "slow=er", "lower": True}
    for options in (texts, values):
        tokenizer: Any = plugins.train_tokenizer("told", "text", options)
        assert tokenizer.told == values
        assert type(tokenizer.told["rate"]) is float
    defaults: Any = plugins.train_tokenizer("told", "text")
    assert defaults.told == {"size": 300, "rate": 1, "mode": "fast", "lower": False}


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("1", True), ("FALSE", False)])
def test_what_is_true_or_false_has_many_spellings(told: None, text: str, value: bool) -> None:
    tokenizer: Any = plugins.train_tokenizer("told", "text", {"lower": text})
    assert tokenizer.told["lower"] is value


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("size", "many", "'many', not a whole number"),
        ("size", "1.5", "'1.5', not a whole number"),
        ("size", 1.0, "1.0, not a whole number"),
        ("size", True, "True, not a whole number"),
        ("size", "9" * 9999, r"'9{1,30}\.\.\.9{1,30}', not a whole number"),
        ("rate", "fast", "'fast', not a number"),
        ("rate", "nan", "'nan', not a number"),
        ("rate", 10**999, r"10{1,30}\.\.\.0{1,30}, not a number"),
        ("mode", 5, "5, not a text"),
        ("lower", "maybe", "'maybe', not true or false"),
        ("lower", 1, "1, not true or false"),
    ],
)
def test_a_value_of_another_type_says_what_is_expected(
    told: None, name: str, given: object, expected: str
) -> None:
    with pytest.raises(ValueError, match=f"^the tokenizer option '{name}' is {expected}$"):
        plugins.train_tokenizer("told", "text", {name: given})


def test_an_unknown_option_names_the_kind_and_what_it_has(told: None) -> None:
    with pytest.raises(
        ValueError,
        match=r"kind 'told' has no training option 'sizes'; it has 'size' \(int, default 300\), "
        r".*'lower' \(bool, default False\); did you mean 'size'\?$",
    ):
        plugins.train_tokenizer("told", "text", {"sizes": 5})
    with pytest.raises(ValueError, match=r"default False\)$"):
        plugins.train_tokenizer("told", "text", {"zzz": 5})


def test_a_kind_without_options_says_so() -> None:
    with pytest.raises(
        ValueError, match="^the tokenizer kind 'char' has no training options; leave out 'size'$"
    ):
        plugins.train_tokenizer("char", "text", {"size": 5})


def test_what_the_kind_itself_refuses_comes_through(told: None) -> None:
    with pytest.raises(ValueError, match="^mode is refuse$"):
        plugins.train_tokenizer("told", "text", {"mode": "refuse"})
    with pytest.raises(UnsupportedError, match="^a file is lacking$"):
        plugins.train_tokenizer("told", "text", {"mode": "lack"})


def test_whatever_else_the_kind_raises_is_an_error_of_the_plugin(told: None) -> None:
    with pytest.raises(
        PluginError, match=r"kind 'told' \(ckptstore_told_module.Told\) failed on this text: KeyErr"
    ):
        plugins.train_tokenizer("told", "text", {"mode": "break"})


def test_options_of_a_kind_that_is_not_installed() -> None:
    with pytest.raises(UnsupportedError, match="'klingon' is not installed"):
        plugins.tokenizer_options("klingon")
    with pytest.raises(UnsupportedError, match="'klingon' is not installed"):
        plugins.train_tokenizer("klingon", "text", {"size": 5})
