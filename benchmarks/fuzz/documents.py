"""Changes JSON: values, keys and nesting of the document, and its text where it is no document."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

__all__ = ["mutated_json", "mutated_value"]

Bytes = Callable[[bytes], bytes]

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308),
    *(
        "",
        "a",
        "model.pt",
        "optimizer.pt",
        "../model.pt",
        "/etc/passwd",
        "..",
        ".",
        "con",
        "a" * 300,
    ),
    *("s3://b/x", "a\0b", "\x1b[31m", "\ud800", "\u202e", "é" * 200, "gpt2", "char", "xxh3-128"),
    *(
        "2026-01-01T00:00:00+00:00",
        "0" * 64,
        "manifest.json",
        ".tmp-x",
        "model.pt/",
        "step-00000001",
    ),
    *([], {}, [[]], {"a": {}}, [1, "a"], ["a", "a"], {"token_kind": "char", "chars": ["a"]}),
)
_KEYS = (
    *("", "a", "path", "size", "sha256", "chunks", "checksums", "algorithm", "tensors", "dtype"),
    *(
        "shape",
        "nbytes",
        "crc32",
        "text",
        "texts",
        "files",
        "step",
        "generation",
        "format",
        "shown",
    ),
    *("earlier", "metrics", "fingerprint", "write_id", "ckptstore", "created", "writer"),
    *("optimizer_file", "scheduler_file", "x_file", "_file", "model.pt", "optimizer.pt", "../x"),
    *("token_kind", "chars", "\ud800", "a\0", "\x1b", "config.json", "training_state.json"),
)
# What a document cannot hold, and text can.
_TEXTS = (
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        "1" * 5000,
        "0.1e-400",
        "\ufeff",
        "[" * 200,
    ),
    *('{"a":' * 150, '"\\ud800"', '"\\udc00\\ud800"', '{"a":1,"a":2}', "01", "1.", "'a'", "//"),
    *("\x00", "\x7f", "\u2028", "]" * 30, "}" * 30, "[]," * 500, "true", '"\\x"', "\\"),
)


def mutated_json(data: bytes, rng: random.Random, plain: Bytes) -> bytes:
    """Return another JSON text, or one that is not JSON any more."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return plain(data)
    choice = rng.random()
    if choice < 0.8:
        try:
            text = _dumped(mutated_value(value, rng), rng)
        except RecursionError:  # It can be parsed deeper than it can be copied.
            text = None
        return text if text is not None else plain(data)
    if choice < 0.9:
        text = data.decode("utf-8", "replace")
        at = rng.randrange(len(text) + 1)
        put = rng.choice(_TEXTS)
        kept = text[at + rng.choice((0, 0, 1, len(put))) :]
        return (text[:at] + put + kept).encode("utf-8", "surrogatepass")
    return plain(data)


def mutated_value(value: Any, rng: random.Random) -> Any:
    """Return a value of JSON with one to a few of its parts changed."""
    root = [copy.deepcopy(value)]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = _places(root)
        holder, key = rng.choice(places)
        choice = rng.random()
        if choice < 0.45:
            holder[key] = _new(holder[key], rng)
        elif choice < 0.6 and (isinstance(holder, dict) or len(holder) > 1):
            del holder[key]
            if not root:
                return {}
        elif choice < 0.75 and isinstance(holder, dict):
            holder[_key(rng, holder)] = holder.pop(key)
        elif choice < 0.85 and isinstance(holder[key], dict):
            holder[key][_key(rng, holder[key])] = copy.deepcopy(rng.choice(_VALUES))
        elif choice < 0.92 and isinstance(holder[key], list):
            holder[key] += copy.deepcopy(holder[key][: rng.choice((1, 2, 70))])
        else:
            other, name = rng.choice(places)
            if name in other if isinstance(other, dict) else name < len(other):
                holder[key] = copy.deepcopy(other[name])
        if rng.random() < 0.02:
            for _ in range(rng.choice((3, 60, 99, 120))):
                root[0] = {"a": root[0]}
    return root[0]


def _places(root: list[Any]) -> list[tuple[Any, Any]]:
    """Return all places of values: what holds it, and under which key."""
    found: list[tuple[Any, Any]] = []
    waiting: list[Any] = [root]
    while waiting and len(found) < 3000:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                waiting.append(holder[key])
    return found


def _new(value: Any, rng: random.Random) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 2, 8, 2**23, -value))
    if isinstance(value, str) and value and rng.random() < 0.4:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(("", "0", "f", "/", "\\", "\0", "é", "\n")) + value[at + 1 :]
    return copy.deepcopy(rng.choice(_VALUES))


def _key(rng: random.Random, holder: dict[str, Any]) -> str:
    return rng.choice(list(holder) or [""]) if rng.random() < 0.3 else rng.choice(_KEYS)


def _dumped(value: Any, rng: random.Random) -> bytes | None:
    try:
        text = json.dumps(value, indent=rng.choice((None, 2)), ensure_ascii=rng.random() < 0.5)
    except (ValueError, RecursionError):
        return None
    return text.encode("utf-8", "surrogatepass")
