"""Encodings by name: OpenAI's, and those that plugins of tiktoken register.

Rules of this file:

1. Nothing waits for a network that does not answer, where we know which files an encoding needs.
2. tiktoken's own `get_encoding` is not asked: it imports every module of ``tiktoken_ext`` first,
   and one broken module among them would take all others away.
3. OpenAI's vocabularies are the ones whose fingerprints stand here, whatever a file holds.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import os
import pkgutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptstore import UnsupportedError
from ckptstore_tiktoken.library import library
from ckptstore_tiktoken.ranks import Vocabulary, dumped

__all__ = ["FINGERPRINTS", "file_here", "vocabulary_of"]

_SOURCE = "https://openaipublic.blob.core.windows.net/"
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class _File:
    """A file that tiktoken downloads: its address and its SHA-256."""

    path: str
    sha256: str

    @property
    def url(self) -> str:
        return _SOURCE + self.path

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def cached_as(self) -> str:
        """The name in tiktoken's cache, which is the SHA-1 of the address."""
        return hashlib.sha1(self.url.encode(), usedforsecurity=False).hexdigest()


_GPT2 = (
    _File(
        "gpt-2/encodings/main/vocab.bpe",
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    ),
    _File(
        "gpt-2/encodings/main/encoder.json",
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    ),
)
_R50K = _File(
    "encodings/r50k_base.tiktoken",
    "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
)
_P50K = _File(
    "encodings/p50k_base.tiktoken",
    "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069",
)
_CL100K = _File(
    "encodings/cl100k_base.tiktoken",
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
)
_O200K = _File(
    "encodings/o200k_base.tiktoken",
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
)
_FILES: dict[str, tuple[_File, ...]] = {
    "gpt2": _GPT2,
    "r50k_base": (_R50K,),
    "p50k_base": (_P50K,),
    "p50k_edit": (_P50K,),
    "cl100k_base": (_CL100K,),
    "o200k_base": (_O200K,),
    "o200k_harmony": (_O200K,),
}

# `ckptstore.tokenizers.gpt2.fingerprint_of_ranks` of the ranks in these files and of tiktoken's
# special tokens. A test computes those again whose files it has.
FINGERPRINTS = {
    "gpt2": "sha256:081b9d145e0c2443d38650502a92e07a486d907839a5565cf264bee1f11458e2",
    "r50k_base": "sha256:081b9d145e0c2443d38650502a92e07a486d907839a5565cf264bee1f11458e2",
    "p50k_base": "sha256:4772012b267e015c982eebb1bee5414dd19b5df2b1e7c5466ac74312cdfa6b7b",
    "p50k_edit": "sha256:3ec2c71a4c013c621dd32129046e29348d694c82a1a95b82e635949c267f24cc",
    "cl100k_base": "sha256:f0e0bd54a68486e15d84551ee94d22d7d524756154ed4d36b44d28e7a453a376",
    "o200k_base": "sha256:fc75da8527bf8c45d22744695cc328667650f1fecb78ef0aa568c179596ca067",
    "o200k_harmony": "sha256:423828f7cf8282dd6b94ea961ecc6c18c0be10aaaf675697420e03c30a9c1e56",
}


@functools.cache
def vocabulary_of(name: str) -> Vocabulary:
    """Return the vocabulary of an encoding; it is read once per process.

    Args:
        name: one of OpenAI's, or one that a module of ``tiktoken_ext`` registers.

    Raises:
        UnsupportedError: nobody knows the name, or what it needs is not on this machine and cannot
            be downloaded; the message says which files go where.
    """
    library()
    constructor = _constructor(name)
    files = _FILES.get(name, ())
    _check_answer(name, files)
    try:
        parts = constructor()
    except Exception as error:
        # It is tiktoken's function, or that of whoever registered the encoding.
        why = f"{type(error).__name__}: {error}"
        if files:
            raise _unavailable(name, files, f"the download failed ({why})") from error
        raise _unfit(name, why) from error
    try:
        return Vocabulary(
            pattern=parts["pat_str"],
            ranks=parts["mergeable_ranks"],
            special_tokens=parts["special_tokens"],
        ).checked()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unfit(name, f"{type(error).__name__}: {error}") from error


def file_here(name: str) -> bytes | None:
    """Return the ``.tiktoken`` text of an encoding of OpenAI's, if that needs no network.

    Args:
        name: of the encoding; of other people's nobody knows what they would download.
    """
    files = _FILES.get(name)
    if not files or _absent(files):
        return None
    if files == _GPT2:
        return "".join(f"{line}\n" for line in dumped(vocabulary_of(name).ranks)).encode()
    folder = _folder()
    return None if folder is None else _read(folder, files[0])


def _constructor(name: str) -> Callable[[], dict[str, Any]]:
    known: dict[str, Callable[[], dict[str, Any]]] = {}
    broken = []
    for module in _modules(name):
        try:
            known.update(importlib.import_module(module).ENCODING_CONSTRUCTORS)
        except Exception as error:  # anybody's module; whether it matters is seen below
            broken.append(f"{module} does not load ({type(error).__name__}: {error})")
        if name in known:
            return known[name]
    if name in _FILES:
        raise UnsupportedError(
            f"the tiktoken here is older than the encoding {name!r}, or damaged; install a newer "
            "one with: pip install --upgrade tiktoken" + "".join(f"; {what}" for what in broken)
        )
    near = difflib.get_close_matches(name, known, n=1)
    raise UnsupportedError(
        f"tiktoken knows no encoding {name!r} here; it knows {', '.join(map(repr, sorted(known)))}"
        + "".join(f"; {what}" for what in broken)
        + (
            f"; did you mean {near[0]!r}?"
            if near
            else "; install the newest tiktoken, or the package that registers it in tiktoken_ext"
        )
    )


def _modules(name: str) -> list[str]:
    """Return the modules that register encodings, OpenAI's own first."""
    own = "tiktoken_ext.openai_public"
    if name in _FILES:
        return [own]
    package = importlib.import_module("tiktoken_ext")
    found = [m.name for m in pkgutil.iter_modules(package.__path__, "tiktoken_ext.")]
    return [own, *sorted(set(found) - {own})]


def _check_answer(name: str, files: Sequence[_File]) -> None:
    """Make sure that tiktoken has the files, or a server that answers, before it waits for one.

    tiktoken downloads without a time limit, and deletes a file whose bytes are wrong before it
    knows that it can have another. Asking first avoids both.
    """
    absent = _absent(files)
    if not absent:
        return
    try:
        # requests is how tiktoken itself downloads: the same proxies, the same certificates.
        requests = importlib.import_module("requests")
        requests.head(absent[0].url, timeout=_ANSWER_SECONDS)
    except (ImportError, OSError, ValueError) as error:
        raise _unavailable(name, absent, f"no download ({type(error).__name__})") from error


def _absent(files: Sequence[_File]) -> tuple[_File, ...]:
    folder = _folder()
    return tuple(file for file in files if folder is None or _read(folder, file) is None)


def _read(folder: Path, file: _File) -> bytes | None:
    """Return the bytes of a file in the cache, or None where they are not the right ones."""
    try:
        data = (folder / file.cached_as).read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == file.sha256 else None


def _folder() -> Path | None:
    """Return the folder where tiktoken looks for files, or None where it was told to keep none."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return Path(os.environ[variable]) if os.environ[variable] else None
    return Path(tempfile.gettempdir()) / "data-gym-cache"


def _unfit(name: str, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"the encoding {name!r} of tiktoken cannot be made here: {why}; ask whoever registered it "
        "in tiktoken_ext"
    )


def _unavailable(name: str, absent: Sequence[_File], why: str) -> UnsupportedError:
    folder = _folder()
    names = " and ".join(
        f"{file.name} (a damaged one is there)"
        if folder and (folder / file.cached_as).exists()
        else file.name
        for file in absent
    )
    where = f"the folder {str(folder)!r}" if folder else "its folder (TIKTOKEN_CACHE_DIR is empty)"
    targets = ", ".join(f"{file.url} as {file.cached_as}" for file in absent)
    return UnsupportedError(
        f"the encoding {name!r} of tiktoken is not on this machine: {where} lacks {names}, and "
        f"{why}; copy {targets} into a folder, and set TIKTOKEN_CACHE_DIR to that folder"
    )
