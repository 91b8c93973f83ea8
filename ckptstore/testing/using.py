"""The part of the kit for tokenizers that is about their use: any text, threads, checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import ckptstore
from ckptstore.errors import CkptstoreError, CorruptionError
from ckptstore.testing.memory import InMemory
from ckptstore.texts import dump_json, parse_json
from ckptstore.tokenizers.base import Tokenizer

__all__ = ["TokenizerUse", "through_json"]

_SEED = 20260101
_TEXTS = 200
_THREADS = 8
_PLANES = ((0x20, 0x7F), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x10000), (0x10000, 0x110000))
_HALVES = ("\ud800", "a\udfffb", "\udcff\ud83d", "\ud83d\ude00")

# Run with the name of a class and of its module, and the kind; it prints what it makes of a text.
_ELSEWHERE = """
import importlib, json, sys
told = json.load(sys.stdin)
sys.path[:] = told["path"]
try:
    cls = importlib.import_module(told["module"])
    for name in told["name"].split("."):
        cls = getattr(cls, name)
except (ImportError, AttributeError):
    from ckptstore import plugins
    cls = plugins.tokenizer_kind(told["kind"])
new, same = cls.from_text(told["text"]), cls.from_state(told["state"])
json.dump([[t.state(), t.encode(told["text"]), t.fingerprint()] for t in (new, same)], sys.stdout)
"""


class TokenizerUse(InMemory):
    """Promises about the use of a kind; a part of `TokenizerTests`."""

    # -- any text -----------------------------------------------------------------------

    def test_random_text_comes_back_or_is_refused(self, tokenizer: Tokenizer, text: str) -> None:
        """Whatever stands beside what: equal afterwards, or a `ValueError`; the same every time."""
        chosen = random.Random(_SEED)  # noqa: S311
        alphabet = sorted(set(text))
        for length in range(_TEXTS):
            known = "".join(chosen.choices(alphabet, k=length))
            assert tokenizer.decode(tokenizer.encode(known)) == known
            any_text = "".join(
                chr(chosen.randrange(*chosen.choice(_PLANES))) for _ in range(length)
            )
            with contextlib.suppress(ValueError):
                ids = tokenizer.encode(any_text)
                assert tokenizer.decode(ids) == any_text
                assert all(0 <= number < tokenizer.n_vocab for number in ids)

    def test_half_a_surrogate_pair_comes_back_or_is_refused(self, tokenizer: Tokenizer) -> None:
        """Python has such text, and UTF-8 does not: it is not silently made another one.

        `UnicodeEncodeError` would be a `ValueError` too, and is about a codec that nobody asked
        for; `ckptstore.texts.encode_utf8` raises one that says what the text holds.
        """
        for text in _HALVES:
            try:
                found = tokenizer.decode(tokenizer.encode(text))
            except ValueError as error:
                refusal = error
            else:
                assert found == text
                continue
            assert not isinstance(refusal, UnicodeError), f"a {type(refusal).__name__}: {refusal}"
            halves = {f"{ord(char):04X}" for char in text if 0xD800 <= ord(char) < 0xE000}
            assert any(half in str(refusal).upper() for half in halves)

    # -- use ----------------------------------------------------------------------------

    def test_encoding_changes_nothing(self, tokenizer: Tokenizer, text: str) -> None:
        """Ids mean the same after any use, so neither state nor fingerprint moves."""
        before = dump_json(tokenizer.state()), tokenizer.fingerprint(), tokenizer.n_vocab
        for used in (text, "\u2603\U0001f0a1", "", text[::-1]):
            with contextlib.suppress(ValueError):
                tokenizer.decode(tokenizer.encode(used))
        assert (dump_json(tokenizer.state()), tokenizer.fingerprint(), tokenizer.n_vocab) == before

    def test_threads_do_not_disturb_each_other(self, tokenizer: Tokenizer, text: str) -> None:
        """The workers of a data loader share one tokenizer."""
        parts = [text[at : at + 50] for at in range(0, len(text), 50)] * 4
        expected = [tokenizer.encode(part) for part in parts]
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(_THREADS) as threads:
                assert list(threads.map(tokenizer.encode, parts)) == expected
                assert list(threads.map(tokenizer.decode, expected)) == parts
        finally:
            sys.setswitchinterval(before)

    def test_another_process_makes_the_same_of_the_same_text(
        self, tokenizer: Tokenizer, tokenizer_class: type[Tokenizer], text: str
    ) -> None:
        """Neither the order of a set nor anything else that a process chooses is in a state."""
        told = {
            "path": sys.path,
            "module": tokenizer_class.__module__,
            "name": tokenizer_class.__qualname__,
            "kind": tokenizer.kind,
            "state": tokenizer.state(),
            "text": text,
        }
        seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _ELSEWHERE],
            input=json.dumps(told),
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        here = [
            [through_json(made), made.encode(text), made.fingerprint()]
            for made in (tokenizer_class.from_text(text), tokenizer)
        ]
        assert json.loads(done.stdout) == here

    # -- checkpoints --------------------------------------------------------------------

    def test_it_is_saved_and_loaded_with_a_checkpoint(
        self, tokenizer: Tokenizer, text: str, memory_location: str
    ) -> None:
        """A checkpoint brings its tokenizer: the same state, ids and fingerprint."""
        _save(memory_location, tokenizer)
        checkpoint = ckptstore.open(memory_location)
        assert checkpoint.tokenizer_state == tokenizer.state()
        assert checkpoint.fingerprint == tokenizer.fingerprint()
        loaded = checkpoint.load_tokenizer()
        assert type(loaded) is type(tokenizer)
        assert loaded.encode(text) == tokenizer.encode(text)

    def test_a_checkpoint_with_another_vocabulary_is_refused(
        self, tokenizer: Tokenizer, other_text: str, text: str, memory_location: str
    ) -> None:
        """A tokenizer.json that somebody replaced is noticed, where it has other ids."""
        other = type(tokenizer).from_text(other_text)
        if other.state() != tokenizer.state():
            _save(memory_location, tokenizer)
            _edit(memory_location, other.state())
            checkpoint = ckptstore.open(memory_location)
            assert checkpoint.edited == ("tokenizer.json",)
            with pytest.raises(CorruptionError):
                checkpoint.load_tokenizer()
        for state in _edited(through_json(tokenizer)):
            with contextlib.suppress(CkptstoreError):
                again = type(tokenizer).from_state(state)
                if again.fingerprint() == tokenizer.fingerprint():
                    assert again.n_vocab == tokenizer.n_vocab
                    assert again.encode(text) == tokenizer.encode(text)


def through_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return a tokenizer's state as it comes out of a tokenizer.json."""
    return parse_json(dump_json(tokenizer.state()), "tokenizer.json")


def _save(location: str, tokenizer: Tokenizer) -> None:
    import torch

    ckptstore.save(location, model={"weight": torch.zeros(1)}, tokenizer=tokenizer)


def _edit(location: str, state: Mapping[str, Any]) -> None:
    from ckptstore import storage

    storage.connect(location, None).replace("tokenizer.json", dump_json(state).encode())


def _edited(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield states that somebody may have made of one by hand."""
    yield {**state, "edited": True}
    for name, value in state.items():
        if isinstance(value, list):
            yield {**state, name: value[::-1]}
            yield {**state, name: value[1:]}
        elif isinstance(value, dict):
            yield {**state, name: dict(zip(value, reversed(value.values()), strict=True))}
            yield {**state, name: dict(list(value.items())[1:])}
        elif isinstance(value, str) and name != "token_kind":
            yield {**state, name: value[::-1]}
