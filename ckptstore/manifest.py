"""The manifest: what was committed, as plain data and as JSON.

`manifest.json` is the last file of a bundle to be written; a bundle is committed when it exists.
It holds the text of each JSON file, and for every other file the name that holds its bytes, its
size and digests, and the index of its tensors. `docs/format.md` describes each field.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ckptstore.digests import Digest, sha256_of
from ckptstore.errors import CorruptionError, UnsafeError, UnsupportedError
from ckptstore.structure import Structure, dump_structure, load_structure
from ckptstore.texts import dump_json, parse_json

__all__ = [
    "MANIFEST",
    "FileEntry",
    "Manifest",
    "TensorInfo",
    "TextEntry",
    "plain_name",
]

MANIFEST = "manifest.json"
VERSION = 1
_LARGEST_CHUNK = 2**30  # A chunk that is read in part is proved whole, so it has to fit in memory.
_LARGEST_NUMBER = 2**67  # The bytes of the largest tensor that torch could number the elements of.
_MOST_DIMENSIONS = 64
_MOST_REMEMBERED = 2**20  # Characters or bytes of a text that is kept parsed.
_HEX = re.compile(r"[0-9a-f]+")
_OWN = "sha256"


@dataclass(frozen=True)
class TensorInfo:
    """One tensor, as far as it is known without reading it.

    Attributes:
        dtype: torch's name without the prefix, such as ``float32``.
        shape: the size of each dimension.
        nbytes: bytes of its elements.
        crc32: the CRC-32 of the record that holds its storage, where the container has one.
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    crc32: int | None = None


@dataclass(frozen=True)
class TextEntry:
    """A JSON file: the name that holds it, and its whole text."""

    path: str
    text: str

    @property
    def sha256(self) -> str:
        """The hexadecimal SHA-256 of the text as UTF-8, what ``sha256sum`` prints of the file."""
        return sha256_of(self.text)


@dataclass(frozen=True)
class FileEntry:
    """A file of bytes: the name that holds it, what proves it, and what is in it.

    Attributes:
        tensors: of a `.pt`, by name; None for any other file.
        structure: of a `.pt`; None where an older release wrote the manifest, too.
    """

    path: str
    digest: Digest
    tensors: Mapping[str, TensorInfo] | None = None
    structure: Structure | None = None


@dataclass(frozen=True)
class Manifest:
    """One committed state.

    Attributes:
        write_id: a random name of the write that made it.
        format: the name of the layout, such as ``bundle``.
        generation: its number in a single checkpoint, from 1; None for a step of a history.
        step: the training step; None where none was given.
        created: when, ISO 8601 in UTC.
        writer: the program and version that wrote it.
        texts: plain name to JSON file.
        files: plain name to file of bytes.
        earlier: plain name to the SHA-256 of forerunners' files, oldest first, at most 64.
        metrics: what was measured of the model, for retention.
        fingerprint: of the tokenizer's vocabulary; None where there is none.
        shown: in a view's manifest, plain name to the version (inode and size, or ETag) of the
            file that the view was given; empty elsewhere.
    """

    write_id: str
    format: str
    generation: int | None
    step: int | None
    created: str
    writer: str
    texts: Mapping[str, TextEntry] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    earlier: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    fingerprint: str | None = None
    shown: Mapping[str, str] = field(default_factory=dict)

    @property
    def called(self) -> str:
        """What to call it in messages: ``generation 12`` or ``step 500``."""
        if self.generation is not None:
            return f"generation {self.generation}"
        return f"step {self.step}"

    def paths(self) -> tuple[str, ...]:
        """Return the names of all files that hold this state, the manifest's own left out."""
        texts = (entry.path for entry in self.texts.values())
        return (*texts, *(entry.path for entry in self.files.values()))

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each of these files, by its name."""
        texts = {entry.path: len(entry.text.encode()) for entry in self.texts.values()}
        return texts | {entry.path: entry.digest.size for entry in self.files.values()}

    def same_content(self, other: Manifest) -> bool:
        """Whether both hold the same state: the same JSON texts and the same digests."""
        return (
            self.format == other.format
            and self.step == other.step
            and {name: entry.text for name, entry in self.texts.items()}
            == {name: entry.text for name, entry in other.texts.items()}
            and {name: entry.digest.sha256 for name, entry in self.files.items()}
            == {name: entry.digest.sha256 for name, entry in other.files.items()}
        )

    def to_json(self) -> str:
        """Return the text of ``manifest.json``; its last field proves all the others."""
        fields = {
            "ckptstore": VERSION,
            "format": self.format,
            "write_id": self.write_id,
            "generation": self.generation,
            "step": self.step,
            "created": self.created,
            "writer": self.writer,
            "metrics": dict(self.metrics),
            "fingerprint": self.fingerprint,
            "texts": {
                name: {"path": entry.path, "sha256": entry.sha256, "text": entry.text}
                for name, entry in self.texts.items()
            },
            "files": {name: _dump_file(entry) for name, entry in self.files.items()},
            "earlier": {name: list(digests) for name, digests in self.earlier.items()},
            "shown": dict(self.shown),
        }
        return dump_json({**fields, _OWN: _own_digest(fields)})

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Manifest:
        """Read a manifest, and check every name and number in it.

        Args:
            text: the file's content.
            where: what to call the file in errors.

        Raises:
            CorruptionError: it is not JSON, is not what its own digest says, or fields are missing
                or of the wrong type.
            UnsafeError: a name in it leads outside its folder.
            UnsupportedError: a newer ckptstore wrote it.
        """
        if len(text) > _MOST_REMEMBERED:
            return cls._from_json(text, where)
        return _parsed(text, where)

    @classmethod
    def _from_json(cls, text: str | bytes, where: str) -> Manifest:
        raw = parse_json(text, where)
        _check_own(raw, where)
        version = raw.get("ckptstore")
        if isinstance(version, int) and version > VERSION:
            raise UnsupportedError(
                f"{where} has format version {version}, this ckptstore reads up to {VERSION}; "
                "install a newer ckptstore"
            )
        try:
            if type(version) is not int or version != VERSION:
                raise ValueError(f"its version is {version!r}")
            return cls(
                write_id=plain_name(_text(raw["write_id"]), where),
                format=_text(raw["format"]),
                generation=_count(raw["generation"]),
                step=_count(raw["step"]),
                created=_instant(raw["created"]),
                writer=_text(raw["writer"]),
                texts={plain_name(n, where): _load_text(e, where) for n, e in raw["texts"].items()},
                files={plain_name(n, where): _load_file(e, where) for n, e in raw["files"].items()},
                earlier={n: tuple(map(_digest, d)) for n, d in raw["earlier"].items()},
                metrics={n: _measure(v) for n, v in raw["metrics"].items()},
                fingerprint=None if raw["fingerprint"] is None else _text(raw["fingerprint"]),
                shown={n: _text(v) for n, v in raw["shown"].items()},
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise CorruptionError(
                f"{where} is damaged: {type(error).__name__} {error}; "
                "restore the checkpoint from a good copy"
            ) from error


@functools.lru_cache(maxsize=4)
def _parsed(text: str | bytes, where: str) -> Manifest:
    """Return what a text says; a save looks at the same few several times."""
    return Manifest._from_json(text, where)


def plain_name(name: object, where: str) -> str:
    """Return a name that was read from data, once it is sure to stay in its folder.

    Args:
        name: what the data says.
        where: what to call the data in errors.

    Raises:
        UnsafeError: it is not text, is empty, holds a separator, a colon or a control
            character, or is made of dots.
    """
    if (
        not isinstance(name, str)
        or not 0 < len(name.encode("utf-8", "replace")) <= 255
        or any(0xD800 <= ord(char) < 0xE000 for char in name)
        or any(char in '/\\:"' or ord(char) < 32 for char in name)
        or not name.strip(". ")
    ):
        shown = name[:300] if isinstance(name, str) else name
        raise UnsafeError(f"{where} names {shown!r}, which is not a plain file name; not followed")
    return name


def _own_digest(fields: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest's other fields, as JSON in their order without spaces."""
    compact = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate comes only from damage, and has to end as a digest that differs.
    return hashlib.sha256(compact.encode("utf-8", "surrogatepass")).hexdigest()


def _check_own(raw: Mapping[str, Any], where: str) -> None:
    """Hold a manifest against its own digest: the first release wrote none, and no other fields.

    This rule holds in every format version, so that damage is told from a version that is newer.
    """
    if _OWN not in raw and raw.keys() <= {"ckptstore", *Manifest.__dataclass_fields__}:
        return
    found = _own_digest({name: value for name, value in raw.items() if name != _OWN})
    if found != raw.get(_OWN):
        raise CorruptionError(
            f"{where} is damaged: its fields have the sha256 {found}, it says {raw.get(_OWN)!r}; "
            "restore the checkpoint from a good copy"
        )


def _dump_file(entry: FileEntry) -> dict[str, Any]:
    digest = entry.digest
    tensors = entry.tensors
    return {
        "path": entry.path,
        "size": digest.size,
        "sha256": digest.sha256,
        "chunks": {
            "algorithm": digest.algorithm,
            "size": digest.chunk_size,
            "checksums": list(digest.checksums),
        },
        "tensors": None
        if tensors is None
        else {
            name: {
                "dtype": info.dtype,
                "shape": list(info.shape),
                "nbytes": info.nbytes,
                "crc32": info.crc32,
            }
            for name, info in tensors.items()
        },
        **({} if entry.structure is None else {"structure": dump_structure(entry.structure)}),
    }


def _load_text(raw: Mapping[str, Any], where: str) -> TextEntry:
    entry = TextEntry(path=plain_name(raw["path"], where), text=_text(raw["text"]))
    if raw["sha256"] != entry.sha256:
        raise ValueError(f"the text of {entry.path} and its sha256 disagree")
    return entry


def _load_file(raw: Mapping[str, Any], where: str) -> FileEntry:
    chunks = raw["chunks"]
    digest = Digest(
        size=_number(raw["size"]),
        sha256=_digest(raw["sha256"]),
        chunk_size=_number(chunks["size"]),
        checksums=tuple(map(_digest, chunks["checksums"])),
        algorithm=_text(chunks["algorithm"]),
    )
    if not 0 < digest.chunk_size <= _LARGEST_CHUNK:
        raise ValueError(f"chunks of {digest.chunk_size} bytes")
    if len(digest.checksums) != -(-digest.size // digest.chunk_size):
        raise ValueError(f"{len(digest.checksums)} chunk checksums for {digest.size} bytes")
    tensors = raw["tensors"]
    return FileEntry(
        path=plain_name(raw["path"], where),
        digest=digest,
        tensors=None if tensors is None else {n: _load_info(t) for n, t in tensors.items()},
        structure=load_structure(raw["structure"]) if "structure" in raw else None,
    )


def _load_info(raw: Mapping[str, Any]) -> TensorInfo:
    shape = tuple(map(_number, raw["shape"]))
    if len(shape) > _MOST_DIMENSIONS or math.prod(shape) > _LARGEST_NUMBER:
        raise ValueError("a tensor of a shape that none can have")
    return TensorInfo(
        dtype=_text(raw["dtype"]),
        shape=shape,
        nbytes=_number(raw["nbytes"]),
        crc32=_count(raw["crc32"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _instant(value: object) -> str:
    if datetime.fromisoformat(_text(value)).tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return str(value)


def _measure(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is not a count")
    if value > _LARGEST_NUMBER:
        raise ValueError(f"{value} is more than there can be of anything")
    return value


def _count(value: object) -> int | None:
    return None if value is None else _number(value)


def _digest(value: object) -> str:
    if not _HEX.fullmatch(_text(value)):
        raise ValueError(f"{value!r} is not a digest")
    return str(value)
