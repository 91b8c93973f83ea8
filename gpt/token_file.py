"""The ids of a text, in a file of their own: a text is tokenised once, and mapped from then on.

Rules:

1. The file is a cache. Whatever is wrong with it or with its folder, the text is tokenised again;
   it may be deleted at any time, and nothing fails for its sake.
2. Its name is a digest of the text and of the tokenizer's fingerprint, so that no other text and
   no other vocabulary ever finds it.
3. It is written under another name and moved, and no id is believed before the digest over all of
   them was compared. So nothing needs to be flushed to the disk, and two writers need no lock.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import tempfile
import warnings
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ckptstore.tokenizers.base import Tokenizer

__all__ = ["Encoder", "Tokens", "tokenise"]

# A shorter text stays in memory: it is tokenised in less than a second, which is not worth a file
# in the user's folder.
_KEPT_FROM = 2**20
_FORMAT = "gpt tokens 1"
_HEADER = 512
_PIECE = 2**20
_TYPES = {"uint16": (torch.uint16, "H"), "int32": (torch.int32, "i")}


class Encoder(Protocol):
    """What makes ids of a text: a tokenizer, or a model that has one."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""


@dataclass(frozen=True)
class Tokens:
    """A tokenised text.

    Attributes:
        ids: one-dimensional, ``uint16`` or ``int32``; perhaps the memory of a mapped file.
        sha256: digest of the ids as 32-bit integers, whatever type they are kept in.
    """

    ids: Tensor
    sha256: str


def tokenise(text: str, encoder: Encoder, *, folder: Path | None = None) -> Tokens:
    """Return the ids of a text, from the file that keeps them where there is one.

    What cannot be kept is a warning, and stays in memory.

    Args:
        text: what to encode; a short one is not kept.
        encoder: a tokenizer, or a model. Of anything else nobody knows what its ids depend on, so
            it is asked each time.
        folder: where ids are kept; by default ``gpt`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        ValueError: the text holds what the vocabulary lacks.
    """
    path = _path(text, encoder, folder)
    kept = None if path is None else _read(path)
    if kept is not None:
        return kept
    ids = encoder.encode(text)
    tokens = _in_memory(ids)
    if path is not None and _write(path, ids, tokens.sha256):
        # The mapped ones from here on, so that the memory can go back.
        return _read(path) or tokens
    return tokens


def _path(text: str, encoder: Encoder, folder: Path | None) -> Path | None:
    """Return the file that keeps these ids, or None where none should."""
    if len(text) < _KEPT_FROM:
        return None
    tokenizer = encoder if isinstance(encoder, Tokenizer) else getattr(encoder, "tokenizer", None)
    folder = folder or _users_folder()
    if folder is None or not isinstance(tokenizer, Tokenizer):
        return None
    digest = hashlib.sha256(f"{tokenizer.kind}\n{tokenizer.fingerprint()}\n".encode())
    for start in range(0, len(text), _PIECE):
        digest.update(text[start : start + _PIECE].encode("utf-8", "surrogatepass"))
    return folder / f"{digest.hexdigest()}.tokens"


def _users_folder() -> Path | None:
    # The XDG specification says that a relative path does not count.
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "gpt"
    except RuntimeError:  # a user without a home, as in some containers
        return None


def _in_memory(ids: list[int]) -> Tokens:
    memory = array("i", ids)
    # The same memory, without numpy. torch refuses to look at nothing.
    tensor = torch.frombuffer(memory, dtype=torch.int32) if memory else torch.empty(0).int()
    return Tokens(tensor, hashlib.sha256(memory).hexdigest())


def _read(path: Path) -> Tokens | None:
    """Return what a file keeps, or None where it is absent, damaged or of another program."""
    try:
        with path.open("rb") as file:
            # Private pages, because torch takes no memory that it may not write.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        header = json.loads(mapped[:_HEADER])
        if header["format"] != _FORMAT:
            return None
        ids = torch.frombuffer(mapped, dtype=_TYPES[header["dtype"]][0], offset=_HEADER)
        sound = _sha256(ids) == header["sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return Tokens(ids, header["sha256"]) if sound else None


def _sha256(ids: Tensor) -> str:
    """Return the digest of ids as 32-bit integers, with memory for one piece at a time."""
    digest = hashlib.sha256()
    memory = bytearray(4 * _PIECE)
    wide = torch.frombuffer(memory, dtype=torch.int32)
    for piece in ids.split(_PIECE):
        wide[: len(piece)] = piece
        digest.update(memoryview(memory)[: 4 * len(piece)])
    return digest.hexdigest()


def _write(path: Path, ids: list[int], sha256: str) -> bool:
    """Keep ids in a file, and return whether that went well."""
    name = "uint16" if max(ids, default=0) < 2**16 else "int32"
    header = json.dumps({"format": _FORMAT, "dtype": name, "sha256": sha256})
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Readable for the user alone, as the text may be.
        number, temporary = tempfile.mkstemp(prefix=f"{path.stem[:16]}-", dir=path.parent)
        try:
            with open(number, "wb") as file:
                file.write(header.ljust(_HEADER - 1).encode() + b"\n")
                array(_TYPES[name][1], ids).tofile(file)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(
            f"the tokens of the text cannot be kept in {path.parent}: {error.strerror or error}; "
            "it will be tokenised again next time, unless XDG_CACHE_HOME names another folder",
            stacklevel=4,
        )
        return False
    return True
