"""What is fuzzed: every reader of what strangers wrote."""

from __future__ import annotations

import contextlib
import io
import json
import posixpath
import random
import re
from collections.abc import Callable
from typing import Any

from benchmarks.fuzz import seeds
from benchmarks.fuzz.differential import read_with_torch
from benchmarks.fuzz.documents import mutated_json
from benchmarks.fuzz.folders import mutated_folder, mutated_manifest
from benchmarks.fuzz.hostile import must_print, must_show, read_folder
from benchmarks.fuzz.oracle import REFUSALS, Finding, Target
from benchmarks.fuzz.pickled import mutated_pickle
from benchmarks.fuzz.zipped import mutated_pt
from ckptstore import plugins, ptfile
from ckptstore.cli.screen import clean, table, value_text, when
from ckptstore.errors import ConflictError, StorageError, SupersededError, UnsupportedError
from ckptstore.manifest import Manifest, plain_name
from ckptstore.ptfile.pickles import unpickle
from ckptstore.storage import connect
from ckptstore.storage.location import _split
from ckptstore.storage.names import checked
from ckptstore.storage.shown import without_secrets
from ckptstore.structure import dump_structure, load_structure
from ckptstore.texts import dump_json, parse_json

__all__ = ["TARGETS"]

Bytes = Callable[[bytes], bytes]

_RECORDS = {"data.pkl": 100, "data/0": 16, "data/1": 8, "data/2": 0, "byteorder": 6}
_SECRET = "hunter2"


def _read_pt(data: bytes) -> None:
    content = ptfile.read(io.BytesIO(data), "x.pt")
    if content.tensors != ptfile.index(io.BytesIO(data), "x.pt"):
        raise Finding("two readings of one file differ")
    structure = content.structure()
    if load_structure(json.loads(json.dumps(dump_structure(structure)))) != structure:
        raise Finding("a structure that was written and read is another one")
    for group in structure.ties:
        if len({content.stubs[name].record for name in group}) != 1:
            raise Finding(f"{group} are tied, and are not")
    for name, info in content.tensors.items():
        if info.nbytes < 0 or any(size < 0 for size in info.shape):
            raise Finding(f"{name} has {info}")
    ptfile.check_records(io.BytesIO(data), "x.pt")


def _read_pickle(data: bytes) -> None:
    with contextlib.suppress(*REFUSALS):
        found = ptfile.read_pickle(data, "x.pkl", names=["torch.Size", "torch.device"])
        ptfile.as_json(found)
    unpickle(data, dict(_RECORDS), "x.pt")


def _read_manifest(data: bytes) -> None:
    manifest = Manifest.from_json(data, "manifest.json")
    if Manifest.from_json(manifest.to_json(), "again") != manifest:
        raise Finding("a manifest that was written and read is another one")
    for name in (*manifest.texts, *manifest.files, *manifest.paths()):
        _must_stay(name)


def _read_json(data: bytes) -> None:
    value = parse_json(data, "x.json")
    text = data.decode("utf-8").removeprefix("\ufeff")
    if not _equal(value, json.loads(text)):
        raise Finding("the value is not the one that json.loads gives")
    try:
        written = dump_json(value)
    except UnsupportedError as error:
        raise Finding(f"what parse_json reads dump_json refuses: {error}") from error
    if not _equal(parse_json(written, "again"), value):
        raise Finding("what was written and read is another value")


def _equal(one: Any, other: Any) -> bool:
    # 1 and 1.0 and True are equal, and not the same.
    return bool(one == other) and repr(one) == repr(other)


def _read_names(data: bytes) -> None:
    names = data.decode("utf-8", "surrogatepass").split("\n") if _is_text(data) else [""]
    clean_names = ptfile.repaired_names(names)
    if len(set(clean_names.values())) != len(set(names)):
        raise Finding("two names of tensors became one")
    text = names[0]
    inside = checked(text)
    whole = posixpath.normpath(posixpath.join("/a/b", inside))
    if whole != f"/a/b/{inside}" or "\0" in inside:
        raise Finding(f"{inside!r} leads to {whole!r}")
    _must_stay(plain_name(text, "the data"))


def _must_stay(name: str) -> None:
    if posixpath.basename(name) != name or name in ("", ".", "..") or re.search(r"[\\:\0]", name):
        raise Finding(f"{name!r} is no plain name")
    name.encode("utf-8")


def _read_tokenizer(data: bytes) -> None:
    state = parse_json(data, "tokenizer.json")
    for ask in (plugins.describe, plugins.fingerprint_of):
        with contextlib.suppress(*REFUSALS):
            must_show(clean(ask(state)))
    if {name for name, value in state.items() if value is not None} == {"token_kind"}:
        return  # gpt2 alone needs files that an input does not bring
    tokenizer = plugins.load_tokenizer(state)
    ids = list(range(min(tokenizer.n_vocab, 1000)))
    if tokenizer.encode(tokenizer.decode(ids)) != ids:
        raise Finding("ids that were decoded and encoded are others")
    again = plugins.load_tokenizer(tokenizer.state(), fingerprint=tokenizer.fingerprint())
    if again.state() != tokenizer.state():
        raise Finding("a tokenizer's state makes another tokenizer")


def _read_location(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    user, _, rest = text.partition("\n")
    if not re.search(r"[/?#@:]", user):
        shown = without_secrets(f"s3://{user}:{_SECRET}@{rest}")
        if _SECRET in shown and _SECRET not in user + rest:
            raise Finding(f"a password is shown: {shown!r}")
    protocol, _ = _split(text)
    if protocol not in ("file", "memory", "s3", "s3a"):
        return  # fsspec's own file systems, which import what their protocol needs
    storage = connect(text)
    if "\0" in storage.location:
        raise Finding(f"a location with a NUL: {storage.location!r}")


def _read_screen(data: bytes) -> None:
    text = data.decode("utf-8", "surrogatepass") if _is_text(data) else data.decode("latin-1")
    for line in (clean(text), value_text(text), value_text({text: [text]}), when(text)):
        must_show(line)
    for line in table([(clean(text), clean(text[::-1])), ("a", "b")]):
        must_show(line)
    must_print({text: [text, float("nan"), 1]})


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _mutate_pickle(data: bytes, rng: random.Random, plain_bytes: Bytes) -> bytes:
    return mutated_pickle(data, rng, plain_bytes, seeds.pickles())


def _mutate_pt(data: bytes, rng: random.Random, plain_bytes: Bytes) -> bytes:
    return mutated_pt(data, rng, plain_bytes, seeds.pickles())


def _mutate_folder(data: bytes, rng: random.Random, plain_bytes: Bytes) -> bytes:
    return mutated_folder(data, rng, plain_bytes, seeds.pickles())


def _mutate_bytes(data: bytes, rng: random.Random, plain_bytes: Bytes) -> bytes:
    return plain_bytes(data)


def _texts(*texts: str) -> Callable[[], list[bytes]]:
    return lambda: [text.encode("utf-8", "surrogatepass") for text in texts]


_JSONS = _texts(
    '{"a": [1, 2.5, null, true], "b": {"c": "d"}}',
    '\ufeff{"a": "\\ud83d\\ude00\\u0000", "b": -0.0, "c": 1e300, "d": 12345678901234567890}',
    '{"a": 1, "a": 2}',
    '{"a": NaN, "b": Infinity}',
    '{"a": 1e999, "b": "\\ud800"}',
    "[" * 120 + "]" * 120,
    "[]",
)
_TOKENIZERS = _texts(
    '{"token_kind": "char", "chars": ["a", "b", "\\u00e4", "\\n"]}',
    '{"token_kind": "gpt2", "chars": null}',
    '{"token_kind": "gpt2", "chars": ["a"]}',
    '{"token_kind": "char", "chars": ["a", "a", "bc", 1, null]}',
    '{"token_kind": "other", "chars": "abc"}',
)
_LOCATIONS = _texts(
    *("checkpoints/dante", "/a/b/../c", "~/x", "s3://bucket/a b/[1]", "memory://a/b", "s3:/a/b"),
    *("user\nhost/path?key=value#part", "simplecache::s3://a/b", "zip://a::s3://b/c", "C:\\x"),
    *("file:///a", "local://a", "S3A://b/c", "user\nho@st:1/a@b", "memory://", "s3://", "a\0b"),
)
_NAMES = _texts(
    *("model.pt", "a/b/c", "../x", "/x", "a//b", ".", "..", "a\\b", "c:x", "a\0", "\ud800", ". ."),
    *("module.a\nmodule.b\n_orig_mod.a", "module._orig_mod.a\nmodule.a", "a" * 300, ".tmp-x"),
)
_SCREENS = _texts(
    "plain", "\x1b[2J\x9b\u202e", "2026-01-01T00:00:00+00:00", "日本語é\u0301\u200b", "a\nb\t"
)

_PLACES = (*REFUSALS, ConflictError, StorageError, SupersededError)

TARGETS = {
    target.name: target
    for target in (
        Target("pt", _read_pt, seeds.pt_files, _mutate_pt),
        Target("torch", read_with_torch, seeds.pt_files, _mutate_pt),
        Target("pickle", _read_pickle, seeds.pickles, _mutate_pickle),
        Target("folder", read_folder, seeds.folders, _mutate_folder, _PLACES, 2**16),
        Target("manifest", _read_manifest, seeds.manifests, mutated_manifest),
        Target("json", _read_json, _JSONS, mutated_json),
        Target("tokenizer", _read_tokenizer, _TOKENIZERS, mutated_json),
        Target("names", _read_names, _NAMES, _mutate_bytes, longest=2**11),
        Target("location", _read_location, _LOCATIONS, _mutate_bytes, longest=2**11),
        Target("screen", _read_screen, _SCREENS, _mutate_bytes, longest=2**11),
    )
}
