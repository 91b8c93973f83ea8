"""JSON that is deep, huge, ambiguous or no JSON, and tokenizer states that are no vocabulary."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from building import NO_BUNDLE, Gadgets, Item, base, plain, put, saved, text, value, zipped
from corpus_tensors import tensor_of

__all__ = ["texts", "tokenizers"]

_OPEN = frozenset({"open"})


def _malformed() -> Mapping[str, bytes]:
    return {
        "100,000 lists deep": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "100,000 objects deep": b'{"a": ' * 100_000 + b"1" + b"}" * 100_000,
        "101 deep": b'{"a": ' * 101 + b"1" + b"}" * 101,
        "never closed": b"[" * 1_000_000,
        "a key twice": b'{"n_layer": 1, "n_layer": 2}',
        "a key twice, deep inside": b'{"a": [{"b": 1, "b": 2}]}',
        "a key twice, written in two ways": b'{"a": 1, "\\u0061": 2}',
        "NaN": b'{"a": NaN}',
        "Infinity": b'{"a": -Infinity}',
        "not UTF-8": b'{"a": "\xff\xfe"}',
        "UTF-16": '{"a": 1}'.encode("utf-16"),
        "UTF-32": '{"a": 1}'.encode("utf-32"),
        "a surrogate in UTF-8": b'{"a": "\xed\xa0\x80"}',
        "a million digits": b'{"a": ' + b"1" * 10**6 + b"}",
        "a list": b"[1, 2]",
        "a number": b"1",
        "null": b"null",
        "a text": b'"x"',
        "nothing": b"",
        "two objects": b"{}{}",
        "a comment": b"/* */ {}",
        "control characters": b'{"a": "\x01"}',
        "NUL": b"\0" * 50,
        "a pickle": b"\x80\x04N.",
    }


def _strange() -> Mapping[str, bytes]:
    """Return JSON that is JSON: read it, or refuse it, at the price of its size."""
    return {
        "a byte-order mark": b"\xef\xbb\xbf" + b'{"a": 1}',
        "a lone surrogate": b'{"a": "\\ud800", "\\udfff": 1}',
        "codes for a terminal": b'{"\\u001b[2J": "\\u001b]0;x\\u0007\\r\\u009b31m"}',
        "letters that turn around": '{"a": "\u202e\u2066x"}'.encode(),
        "a number of 4000 digits": b'{"n_layer": ' + b"9" * 4000 + b"}",
        "a float beyond all": b'{"dropout": 1e999, "b": -1e999}',
        "a tiny float": b'{"a": 1e-999999999}',
        "a text of 4 MB": b'{"a": "' + b"x" * 4_000_000 + b'"}',
        "a key of 4 MB": b'{"' + b"x" * 4_000_000 + b'": 1}',
        "100,000 keys": json.dumps({f"key {i}": i for i in range(100_000)}).encode(),
        "30,000 long keys": json.dumps(
            {f"{'key' * 30} {i}": "v" * 9 for i in range(30_000)}
        ).encode(),
        "200,000 lists": b'{"a": [' + b"[]," * 200_000 + b"1]}",
        "keys like methods": b'{"__class__": "os", "__proto__": {}, "__init__": 1, "items": 2}',
        "wrong types": b'{"n_layer": "1", "n_embd": [], "vocab_size": true, "bias": "no"}',
        "a device that is none": b'{"device": "\\u001b[31m; rm -rf /"}',
        "an architecture without an end": b'{"n_layer": 1000000000, "n_embd": 1000000000}',
    }


def _edited(name: str, data: bytes) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        put(folder, base())
        (folder / name).write_bytes(data)

    return build


def texts(gadgets: Gadgets) -> Iterator[Item]:
    """Yield each text as every JSON file of a plain folder, and as a hand edit."""
    for title, data in _malformed().items():
        for name in ("config.json", "training_state.json", "tokenizer.json"):
            yield Item(f"{title} as {name}", plain({name: data}), _OPEN)
        yield Item(f"{title}, by hand", _edited("config.json", data), _OPEN)
    for title, data in _strange().items():
        for name in ("config.json", "training_state.json"):
            yield Item(
                f"{title} as {name}", plain({name: data}), frozenset(), large=len(data) > 2**20
            )
        yield Item(
            f"{title}, by hand", _edited("config.json", data), frozenset(), large=len(data) > 2**20
        )


def _states() -> Mapping[str, Any]:
    return {
        "no kind": {"chars": ["a"]},
        "a kind that is a list": {"token_kind": ["char"]},
        "a kind that is empty": {"token_kind": ""},
        "a kind that is null": {"token_kind": None},
        "a module": {"token_kind": "attack_payload"},
        "a function": {"token_kind": "os:system"},
        "a path": {"token_kind": "../../outside/secret"},
        "a URL": {"token_kind": "http://127.0.0.1:9/x"},
        "a kind without an end": {"token_kind": "char" * 100_000},
        "a kind that commands the terminal": {"token_kind": "\x1b[2J\ud800"},
        "characters that are a text": {"token_kind": "char", "chars": "abc"},
        "characters that are words": {"token_kind": "char", "chars": ["ab"]},
        "characters that are numbers": {"token_kind": "char", "chars": [1, 2]},
        "characters that are an object": {"token_kind": "char", "chars": {"a": 1}},
        "a character twice": {"token_kind": "char", "chars": ["a", "a"]},
        "no characters": {"token_kind": "char", "chars": []},
        "10^9 characters on paper": {"token_kind": "char", "chars": 10**9},
        "more characters than there are": {"token_kind": "char", "chars": ["a"] * 1_200_000},
        "one of a million letters": {"token_kind": "char", "chars": ["a" * 1_000_000, "b"]},
        "gpt2 with a vocabulary": {"token_kind": "gpt2", "chars": ["a"]},
        "gpt2 with a pattern": {"token_kind": "gpt2", "pattern": "(a+)+$", "ranks": "/etc/passwd"},
        "gpt2 with an end of its own": {"token_kind": "gpt2", "special": {"<|x|>": 10**9}},
    }


def tokenizers(gadgets: Gadgets) -> Iterator[Item]:
    """Yield states that are no vocabulary, in a bundle and in an old file."""
    for title, state in _states().items():
        large = len(json.dumps(state)) > 2**20
        codes = frozenset({1, 4, 5})
        raw = json.dumps(state).encode()
        yield Item(
            title, plain({"tokenizer.json": raw}), frozenset({"tokenizer"}), codes, large=large
        )
        yield Item(
            f"{title}, by hand",
            _edited("tokenizer.json", raw),
            frozenset({"tokenizer"}),
            codes,
            large=large,
        )
        if large:
            continue
        body = b"}" + text("model_state_dict") + b"}" + text("w") + tensor_of() + b"ss"
        body += text("tokenizer") + value(state) + b"s"
        old = zipped(body, {"data/0": bytes(16)})
        yield Item(
            f"{title}, in an old file",
            plain({**NO_BUNDLE, "latest.pt": old}),
            frozenset({"tokenizer"}),
            codes,
        )
    old = saved({"model_state_dict": {}, "tokenizer": ["char"]})
    yield Item("a list, in an old file", plain({**NO_BUNDLE, "latest.pt": old}), _OPEN)
