"""Formats and kinds by name, and what is told where one is missing or fails."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from ckptstore import plugins
from ckptstore.errors import CorruptionError, PluginError, UnsupportedError
from tests.plugins.test_saving_in import RAW

CHAR = {"token_kind": "char", "chars": ["a", "b"]}
MISSING = {"token_kind": "no-such-kind", "words": [1, 2]}


def test_a_missing_kind_says_which_kinds_there_are() -> None:
    expected = (
        r"^the tokenizer kind 'no-such-kind' is not installed; installed: .*'char', 'gpt2'.*"
        r"; install the plugin that provides it$"
    )
    for ask in (plugins.tokenizer_kind, lambda kind: plugins.load_tokenizer({"token_kind": kind})):
        with pytest.raises(UnsupportedError, match=expected):
            ask("no-such-kind")


def test_a_near_match_is_suggested() -> None:
    with pytest.raises(
        UnsupportedError, match=r"'gtp2' is not installed; .*; did you mean 'gpt2'\?"
    ):
        plugins.tokenizer_kind("gtp2")
    with pytest.raises(UnsupportedError, match=r"the format 'bundel' .*; did you mean 'bundle'\?"):
        plugins.format_named("bundel")


def test_formats_are_instances_by_name() -> None:
    formats = plugins.formats()
    assert plugins.format_named("bundle") is formats["bundle"]
    assert all(format_.name == name for name, format_ in formats.items())
    formats.clear()
    assert plugins.formats()


def test_a_tokenizer_comes_back_from_its_state() -> None:
    tokenizer = plugins.load_tokenizer(CHAR)
    assert tokenizer.encode("ba") == [1, 0]
    same = plugins.load_tokenizer(CHAR, fingerprint=plugins.fingerprint_of(CHAR))
    assert same.state() == CHAR


def test_another_vocabulary_than_that_of_the_training_is_refused() -> None:
    expected = (
        "the 'char' vocabulary here is another one than the model was trained on: its fingerprint "
        "is sha256:[0-9a-f]{64}, the checkpoint's is sha256:other; restore tokenizer.json"
    )
    with pytest.raises(CorruptionError, match=expected):
        plugins.load_tokenizer(CHAR, fingerprint="sha256:other")


def test_a_kind_that_is_not_installed_is_still_described() -> None:
    assert plugins.fingerprint_of(MISSING) is None
    assert plugins.describe(MISSING) == "the tokenizer kind 'no-such-kind' is not installed"
    assert plugins.describe(CHAR) == "2 characters"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "the tokenizer state is a NoneType, not a JSON object with token_kind"),
        ([], "is a list, not a JSON object"),
        ("char", "is a str, not a JSON object"),
        ({}, "has None as its token_kind, not a name"),
        ({"token_kind": 7}, "has 7 as its token_kind"),
        ({"token_kind": ""}, "has '' as its token_kind"),
        ({"token_kind": ["x" * 10**6]}, r"has .{1,60} as its token_kind"),
        ({"token_kind": "char", "chars": 7}, "'chars' is 7"),
    ],
)
def test_a_malformed_state_is_damage(state: Any, message: str) -> None:
    for ask in (plugins.load_tokenizer, plugins.fingerprint_of, plugins.describe):
        with pytest.raises(CorruptionError, match=message):
            ask(state)


def test_a_kind_that_fails_is_named(install: Callable[..., None]) -> None:
    install(
        "failing",
        """
        from ckptstore import hookimpl
        from ckptstore.tokenizers.char import CharTokenizer

        class Failing(CharTokenizer):
            kind = "failing"
            @classmethod
            def from_state(cls, state):
                return state["not there"]
            fingerprint_of = describe = from_state

        @hookimpl
        def ckptstore_tokenizers():
            return [Failing]
        """,
    )
    for ask in (plugins.load_tokenizer, plugins.fingerprint_of, plugins.describe):
        with pytest.raises(
            PluginError,
            match=r"the tokenizer kind 'failing' \(failing_module\.Failing\) failed on this state: "
            r"KeyError: 'not there'; report it",
        ):
            ask({"token_kind": "failing"})


def test_a_checkpoint_whose_format_is_gone_says_where_it_is_and_which(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install("raw", RAW)
    ckptstore.save(tmp_path / "dante", model={"w": torch.ones(2)}, format="raw")
    (tmp_path / "copy").mkdir()
    for path in (tmp_path / "dante").iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path / "copy")
    monkeypatch.setenv("CKPTSTORE_PLUGINS", "none")
    plugins.reload()

    for name in ("dante", "copy"):
        expected = (
            rf"{name} cannot be opened: the format 'raw' is not installed; installed: 'bundle', "
            r"'legacy', 'sharded'; .*the plugin 'raw' \(.*\) is switched off by "
            "CKPTSTORE_PLUGINS=none"
        )
        with pytest.raises(UnsupportedError, match=expected):
            ckptstore.open(tmp_path / name)


def test_what_is_listed_cannot_be_changed() -> None:
    info = plugins.loaded()[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.status = "off"  # type: ignore[misc]


def test_plugins_are_looked_for_again_after_reload(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plugins.loaded()
    monkeypatch.setenv("CKPTSTORE_PLUGINS", "none")
    assert plugins.loaded() is before
    plugins.reload()
    assert plugins.loaded() is not before
