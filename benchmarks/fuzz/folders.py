"""A whole folder as one input, and manifests made right again after a file was changed."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.fuzz.documents import mutated_json
from benchmarks.fuzz.zipped import mutated_pt
from ckptstore.digests import Chunks, sha256_of

__all__ = ["mended", "mutated_folder", "mutated_manifest", "packed", "unpacked"]

Bytes = Callable[[bytes], bytes]

_MOST_FILES = 40
_NAMES = (
    *("model.pt", "optimizer.pt", "config.json", "tokenizer.json", "training_state.json"),
    *(
        "manifest.json",
        "latest.pt",
        "final.pt",
        "scheduler.pt",
        "other.pt",
        ".ckptstore/00000001/x",
    ),
    *(".ckptstore/00000001/manifest.json", ".ckptstore/00000002/manifest.json", ".ckptstore/0/x"),
    *("step-00000001/manifest.json", "step-00000007/model.pt", "step-1/manifest.json", "a/b/c"),
)


def packed(files: Mapping[str, bytes]) -> bytes:
    """Return files as one input: of each its name's length, name, length, bytes."""
    parts = []
    for name, data in files.items():
        raw = name.encode("utf-8", "surrogatepass")[:255]
        parts += [bytes([len(raw)]), raw, struct.pack("<I", len(data)), data]
    return b"".join(parts)


def unpacked(data: bytes) -> dict[str, bytes]:
    """Return the files of an input; what is cut off is a shorter file."""
    files: dict[str, bytes] = {}
    at = 0
    while at < len(data) and len(files) < _MOST_FILES:
        named = data[at]
        name = data[at + 1 : at + 1 + named].decode("utf-8", "replace")
        at += 1 + named
        length = int.from_bytes(data[at : at + 4], "little")
        files[name] = data[at + 4 : at + 4 + length]
        at += 4 + length
    return files


def mutated_folder(
    data: bytes, rng: random.Random, plain: Bytes, donors: Sequence[bytes] = ()
) -> bytes:
    """Return another folder: a file changed, renamed, copied, removed; manifests mostly mended."""
    files = unpacked(data)
    if not files or rng.random() < 0.02:
        return plain(data)
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(sorted(files) or ["model.pt"])
        choice = rng.random()
        if choice < 0.8 and name in files:
            files[name] = _changed(name, files[name], rng, plain, donors)
        elif choice < 0.87:
            files.pop(name, None)
        elif choice < 0.94:
            files[rng.choice(_NAMES)] = files.get(name, b"")
        else:
            files[rng.choice(_NAMES)] = files.pop(name, b"")
    if rng.random() < 0.85:
        _mend_all(files)
    return packed(files)


def mutated_manifest(data: bytes, rng: random.Random, plain: Bytes) -> bytes:
    """Return another manifest, with digests of texts mostly right again."""
    changed = mutated_json(data, rng, plain)
    return mended(changed, {}) if rng.random() < 0.6 else changed


def mended(data: bytes, files: Mapping[str, bytes]) -> bytes:
    """Return a manifest that is true of its texts and of the files that are given.

    Args:
        data: the manifest; what is none is returned as it is.
        files: bytes by the name that the manifest has as ``path``.
    """
    try:
        document = json.loads(data)
        for entry in document["texts"].values():
            entry["sha256"] = sha256_of(entry["text"])
        for entry in document["files"].values():
            if entry["path"] in files:
                _mend_file(entry, files[entry["path"]])
        if "sha256" in document:
            del document["sha256"]
            compact = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
            own = hashlib.sha256(compact.encode("utf-8", "surrogatepass")).hexdigest()
            document["sha256"] = own
        return json.dumps(document, indent=2).encode()
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return data


def _mend_file(entry: dict[str, Any], data: bytes) -> None:
    chunks = Chunks()
    chunks.update(data)
    digest = chunks.digest(sha256_of(data))
    entry |= {"size": digest.size, "sha256": digest.sha256, "tensors": None}
    entry["chunks"] = {
        "algorithm": digest.algorithm,
        "size": digest.chunk_size,
        "checksums": list(digest.checksums),
    }


def _mend_all(files: dict[str, bytes]) -> None:
    for name in [name for name in files if name.rpartition("/")[2] == "manifest.json"]:
        folder = name[: -len("manifest.json")]
        beside = {
            other[len(folder) :]: data for other, data in files.items() if other.startswith(folder)
        }
        files[name] = mended(files[name], beside)


def _changed(
    name: str, data: bytes, rng: random.Random, plain: Bytes, donors: Sequence[bytes]
) -> bytes:
    if name.endswith(".pt"):
        return mutated_pt(data, rng, plain, donors)
    if name.endswith(".json"):
        return mutated_json(data, rng, plain)
    return plain(data)
