"""The ranks of gpt2 as files: OpenAI's two, tiktoken's cache of them, and the one of a checkpoint.

``vocab.bpe`` lists the merges, ``encoder.json`` the ids, and either says what the other says; the
one file ``tokenizer.tiktoken`` says the same, token by token, as OpenAI's ``r50k_base.tiktoken``
does. So from each of them the others are made, byte for byte.

Rule 1: what is read here is proved by its SHA-256 or its fingerprint, whoever wrote it. Rule 2:
nothing needs tiktoken. Rule 3: nothing waits for a network that does not answer.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib
import itertools
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ckptstore import storage
from ckptstore.errors import CorruptionError, StorageError, UnsupportedError
from ckptstore.progress import OnProgress, Progress
from ckptstore.tokenizers.files import Fetched

__all__ = [
    "CARRIED",
    "FILES",
    "FINGERPRINT",
    "SOURCE",
    "SPECIAL_TOKENS",
    "VARIABLE",
    "absent_files",
    "cached_ranks",
    "carried_of",
    "fetch",
    "fingerprint_of_ranks",
    "folder_of_cache",
    "openai_files",
    "ranks_of",
]

# `fingerprint_of_ranks` of the 50,256 ranks in the vocab.bpe and encoder.json that OpenAI
# published, and of <|endoftext|> as 50256. The lines of the ranks alone are, byte for byte, the
# file r50k_base.tiktoken that OpenAI published later (SHA-256 306cd27f03c1...d930), as tiktoken
# pins it. A test computes both again from the two files.
FINGERPRINT = "sha256:081b9d145e0c2443d38650502a92e07a486d907839a5565cf264bee1f11458e2"

CARRIED = "tokenizer.tiktoken"
"""What the ranks are called in a checkpoint."""

SOURCE = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
SPECIAL_TOKENS = {"<|endoftext|>": 50256}
VARIABLE = "TIKTOKEN_CACHE_DIR"
_VARIABLES = (VARIABLE, "DATA_GYM_CACHE_DIR")
_TEMPORARY = "tiktoken's own folder is a temporary one; with --to FOLDER the files stay"
ANSWER_SECONDS = 5.0
_READ_SECONDS = 30.0
_RANKS = 50256
_MOST_CARRIED = 4 * 2**20  # The list has 835,554 bytes; each line costs more than it has.
_PIECE = 2**16


@dataclass(frozen=True)
class File:
    """One of the two files: OpenAI's name, tiktoken's name in its cache, SHA-256, and bytes."""

    name: str
    cached_as: str
    sha256: str
    size: int


FILES = (
    File(
        "vocab.bpe",
        "6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        456_318,
    ),
    File(
        "encoder.json",
        "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        1_042_301,
    ),
)


# -- the ranks ------------------------------------------------------------------------------


def fingerprint_of_ranks(ranks: Mapping[bytes, int], special_tokens: Mapping[str, int]) -> str:
    """Return the fingerprint of a byte-pair vocabulary.

    It is the SHA-256 of one line per token in the order of the ids: the token's bytes in base64,
    a space, its id (the format of OpenAI's ``.tiktoken`` files); then one line per special
    token, which begins with ``special`` and a space.

    Args:
        ranks: the id of each token.
        special_tokens: the id of each special token.
    """
    digest = hashlib.sha256(carried_of(ranks))
    for name, rank in sorted(special_tokens.items(), key=lambda item: item[1]):
        digest.update(b"special %b %d\n" % (base64.b64encode(name.encode()), rank))
    return "sha256:" + digest.hexdigest()


def carried_of(ranks: Mapping[bytes, int]) -> bytes:
    """Return ranks as ``.tiktoken`` files have them: a line for each, in the order of the ids."""
    lines = sorted(ranks.items(), key=lambda item: item[1])
    return b"".join(b"%b %d\n" % (base64.b64encode(token), rank) for token, rank in lines)


def ranks_of(carried: bytes) -> dict[bytes, int]:
    """Return the ranks in a file of a checkpoint, once it is sure that they are gpt2's.

    Raises:
        CorruptionError: they are others, or it holds something else.
    """
    ranks: dict[bytes, int] = {}
    if len(carried) > _MOST_CARRIED:
        raise _other_ranks(f"it has {len(carried):,} bytes, far more than they need")
    try:
        for line in carried.split(b"\n"):
            if line.strip():
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank[:8])
            if len(ranks) > _RANKS:
                raise ValueError(f"it has more than {_RANKS:,} lines")
        found = fingerprint_of_ranks(ranks, SPECIAL_TOKENS)
    except (ValueError, binascii.Error) as error:
        raise _other_ranks(f"it holds no list of ranks ({error})") from error
    if found != FINGERPRINT:
        raise _other_ranks(f"their fingerprint is {found}, gpt2's is {FINGERPRINT}")
    return ranks


def _other_ranks(found: str) -> CorruptionError:
    return CorruptionError(
        f"{CARRIED} is not the list of gpt2's ranks: {found}; restore it from a good copy, or copy "
        "the checkpoint without it (sync --no-vocabulary)"
    )


# -- OpenAI's two files ---------------------------------------------------------------------


def openai_files(ranks: Mapping[bytes, int]) -> dict[str, bytes]:
    """Return vocab.bpe and encoder.json by these names, byte for byte as OpenAI published them.

    Args:
        ranks: what `ranks_of` returned.
    """
    letters = _letters()
    by_rank = sorted(ranks, key=ranks.__getitem__)
    words = {token: "".join(letters[byte] for byte in token) for token in by_rank}
    merges = ["#version: 0.2"]
    for token in by_rank:
        if len(token) > 1:
            left, right = _halves(token, ranks)
            merges.append(f"{words[left]} {words[right]}")
    ids = {words[token]: ranks[token] for token in by_rank} | SPECIAL_TOKENS
    made = {"vocab.bpe": "\n".join(merges) + "\n", "encoder.json": json.dumps(ids)}
    return {name: text.encode() for name, text in made.items()}


def _halves(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two tokens that were merged into one: what the merges before it leave of it."""
    parts = [token[at : at + 1] for at in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(one + two, _RANKS) for one, two in itertools.pairwise(parts)]
        at = pairs.index(min(pairs))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def _letters() -> list[str]:
    """Return the letter by which OpenAI's files show each byte: itself, where it can be seen."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    unseen = iter(range(256, 512))
    return [chr(byte) if byte in seen else chr(next(unseen)) for byte in range(256)]


def _ranks_of_merges(text: str) -> dict[bytes, int]:
    """Return the ranks that vocab.bpe describes; its bytes were proved."""
    letters = _letters()
    bytes_of = {letter: byte for byte, letter in enumerate(letters)}
    # The bytes that can be seen come first, each sort in its order.
    ordered = sorted(range(256), key=lambda byte: (letters[byte] != chr(byte), byte))
    ranks = {bytes([byte]): rank for rank, byte in enumerate(ordered)}
    for line in text.splitlines()[1:]:
        ranks[bytes(bytes_of[letter] for letter in line if letter != " ")] = len(ranks)
    return ranks


# -- tiktoken's cache -----------------------------------------------------------------------


def folder_of_cache() -> Path | None:
    """Return the folder where tiktoken looks for files, or None where it was told to keep none."""
    for variable in _VARIABLES:
        if variable in os.environ:
            return Path(os.environ[variable]) if os.environ[variable] else None
    return Path(tempfile.gettempdir()) / "data-gym-cache"


def absent_files(folder: Path | None) -> tuple[File, ...]:
    """Return those of the two files that a folder lacks, or has with other bytes."""
    return tuple(file for file in FILES if folder is None or _read(folder, file) is None)


def cached_ranks() -> bytes | None:
    """Return the ranks as a checkpoint carries them; None unless both files are there and right."""
    folder = folder_of_cache()
    if folder is None:
        return None
    found = {file.name: _read(folder, file) for file in FILES}
    merges = found["vocab.bpe"]
    if merges is None or None in found.values():
        return None
    return carried_of(_ranks_of_merges(merges.decode()))


def _read(folder: Path, file: File) -> bytes | None:
    path = folder / file.cached_as
    try:
        if path.stat().st_size != file.size:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == file.sha256 else None


def fetch(folder: str | None, *, progress: OnProgress | None = None) -> Fetched:
    """Download what a folder lacks of the two files; see `Tokenizer.fetch_files`.

    Each is there whole and right, or not at all.
    """
    cache = folder_of_cache()
    place = cache if folder is None else Path(folder).absolute()
    if place is None:
        raise UnsupportedError(
            f"{VARIABLE} is empty, so tiktoken keeps no files; name a folder for them (--to), and "
            f"set {VARIABLE} to it"
        )
    if folder is not None and "://" in folder:
        raise UnsupportedError(f"{folder!r} is no folder on this machine, and tiktoken needs one")
    absent = absent_files(place)
    total, done = sum(file.size for file in absent), 0
    for file in absent:
        data = _download(file, progress, done, total, place)
        storage.connect(place).replace(file.cached_as, data)
        done += file.size
    told = any(os.environ.get(variable) for variable in _VARIABLES)
    found_anyhow = cache is not None and os.path.realpath(place) == os.path.realpath(cache)
    return Fetched(
        folder=str(place),
        files=tuple(file.cached_as for file in FILES),
        new=tuple(file.cached_as for file in absent),
        variables={} if found_anyhow else {VARIABLE: str(place)},
        hint=_TEMPORARY if found_anyhow and not told else "",
    )


def _download(
    file: File, progress: OnProgress | None, done: int, total: int, folder: Path
) -> bytes:
    url, data = SOURCE + file.name, bytearray()
    try:
        # tiktoken downloads with it as well: the same proxies, the same certificates.
        requests = importlib.import_module("requests")
        limits = (ANSWER_SECONDS, _READ_SECONDS)
        with requests.get(url, timeout=limits, stream=True) as answer:
            answer.raise_for_status()
            for piece in answer.iter_content(_PIECE):
                data += piece
                if len(data) > file.size:
                    break
                if progress is not None:
                    progress(Progress("fetch", file.name, done + len(data), total))
    except (ImportError, OSError, ValueError) as error:
        by_hand = " and ".join(f"{SOURCE}{each.name} as {each.cached_as}" for each in FILES)
        raise StorageError(
            f"{file.name} was not downloaded from {url} ({type(error).__name__}); try again, or "
            f"copy from a machine with a network: {by_hand} into {str(folder)!r}, or export them "
            "there with ckptstore tokenizer export gpt2 FOLDER"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise CorruptionError(
            f"{url} answered with {len(data)} bytes whose sha256 is {found}, and {file.name} has "
            f"{file.sha256}; nothing was kept of it, look whether a proxy answers in its place"
        )
    return bytes(data)
