"""The kind ``gpt2``: the byte-pair encoding of GPT-2 as tiktoken has it.

Rules of this file:

1. The state is two words, and needs neither tiktoken nor a network to be written, described or
   fingerprinted; only `Gpt2Tokenizer.from_state` needs the vocabulary itself.
2. A checkpoint may carry the ranks in a file of their own. Whoever wrote it, they are used only
   where they have the fingerprint of OpenAI's: nobody else's ids go by this name.
3. The vocabulary is what fixes the meaning of ids: the ranks and the special tokens. tiktoken's
   splitting pattern is no part of the fingerprint, because tiktoken has once put an equivalent,
   faster one in its place.
4. Nothing waits for a network that does not answer.
"""

from __future__ import annotations

import functools
import importlib
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptstore.errors import CorruptionError, UnsupportedError
from ckptstore.progress import OnProgress
from ckptstore.texts import encode_utf8
from ckptstore.tokenizers import gpt2_files
from ckptstore.tokenizers.base import Tokenizer
from ckptstore.tokenizers.files import Fetched
from ckptstore.tokenizers.gpt2_files import CARRIED, FINGERPRINT, fingerprint_of_ranks

__all__ = ["FINGERPRINT", "Gpt2Tokenizer", "fingerprint_of_ranks"]

# As OpenAI published it; newer releases of tiktoken have an equivalent one that is faster.
_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class _Vocabulary:
    encoding: Any  # a tiktoken.Encoding
    fingerprint: str
    ranks: Mapping[bytes, int]


class Gpt2Tokenizer(Tokenizer):
    """GPT-2's byte-pair encoding: 50,257 ids, any text.

    The vocabulary is read once per process: from the two files that tiktoken keeps, or from the
    one that a checkpoint carries.
    """

    kind = "gpt2"
    folder_variable = gpt2_files.VARIABLE

    def __init__(self, vocabulary: _Vocabulary | None = None) -> None:
        self._own = vocabulary

    @property
    def _vocabulary(self) -> _Vocabulary:
        return self._own or _vocabulary()

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Gpt2Tokenizer:
        """Return the tokenizer of ``{"token_kind": "gpt2"}``.

        Raises:
            CorruptionError: the state says more than that; null fields, which old files have,
                say nothing.
            UnsupportedError: the vocabulary is not on this machine and cannot be downloaded;
                the message says which two files go where.
        """
        _check(state)
        _vocabulary()
        return cls()

    @classmethod
    def from_files(cls, state: Mapping[str, Any], files: Mapping[str, bytes]) -> Gpt2Tokenizer:
        """Return the tokenizer, of the ranks in tokenizer.tiktoken where that is carried.

        Neither a network nor tiktoken's cache is asked for then.

        Raises:
            CorruptionError: as for `from_state`; or the ranks that are carried are not gpt2's.
            UnsupportedError: tiktoken is not installed; or as for `from_state`.
        """
        if CARRIED not in files:
            return cls.from_state(state)
        _check(state)
        return cls(_carried_vocabulary(files[CARRIED]))

    @classmethod
    def from_text(cls, text: str) -> Gpt2Tokenizer:
        """Return the tokenizer; the vocabulary is the same whatever the text.

        Raises:
            UnsupportedError: as for `from_state`.
        """
        return cls.from_state({"token_kind": cls.kind})

    @property
    def n_vocab(self) -> int:
        """50257."""
        return int(self._vocabulary.encoding.n_vocab)

    def encode(self, text: str) -> list[int]:
        """Return the ids of any text; ``<|endoftext|>`` in it is ordinary text.

        Raises:
            ValueError: the text holds half of a surrogate pair, which tiktoken would replace.
        """
        if not text.isascii():
            encode_utf8(text)
        ids: list[int] = self._vocabulary.encoding.encode_ordinary(text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8 become U+FFFD.

        Raises:
            ValueError: an id is outside the vocabulary.
        """
        try:
            text: str = self._vocabulary.encoding.decode(ids)
        except (KeyError, OverflowError):
            bad = next((i for i in ids if not 0 <= i < self.n_vocab), None)
            raise ValueError(
                f"id {bad!r} is not in the gpt2 vocabulary; ids run from 0 to {self.n_vocab - 1}"
            ) from None
        return text

    def state(self) -> dict[str, Any]:
        """Return ``{"token_kind": "gpt2"}``."""
        return {"token_kind": self.kind}

    def ranks(self) -> dict[bytes, int]:
        """Return the id of each token by its bytes, special tokens left out."""
        return dict(self._vocabulary.ranks)

    def fingerprint(self) -> str:
        """Return the fingerprint of the ranks that are really in use."""
        return self._vocabulary.fingerprint

    @classmethod
    def file_names_of(cls, state: Mapping[str, Any]) -> tuple[str, ...]:
        """Return ``tokenizer.tiktoken``: the ranks, as OpenAI's r50k_base.tiktoken has them.

        Raises:
            CorruptionError: the state is not of this kind.
        """
        _check(state)
        return (CARRIED,)

    @classmethod
    def files_of(cls, state: Mapping[str, Any]) -> Mapping[str, bytes]:
        """Return the ranks, if both files of tiktoken's cache are there and right.

        Raises:
            CorruptionError: the state is not of this kind.
        """
        _check(state)
        ranks = gpt2_files.cached_ranks()
        return {} if ranks is None else {CARRIED: ranks}

    def files(self) -> Mapping[str, bytes]:
        """Return the ranks that are in use, wherever they came from."""
        return {CARRIED: gpt2_files.carried_of(self._vocabulary.ranks)}

    @classmethod
    def files_elsewhere(cls, files: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Return OpenAI's two files, byte for byte, under the names that tiktoken looks for.

        Raises:
            CorruptionError: the ranks that are carried are not gpt2's.
        """
        made = gpt2_files.openai_files(gpt2_files.ranks_of(files[CARRIED]))
        return {file.cached_as: made[file.name] for file in gpt2_files.FILES}

    @classmethod
    def fetch_files(
        cls, folder: str | None = None, *, progress: OnProgress | None = None
    ) -> Fetched:
        """Download OpenAI's two files, as far as they are not there, and prove them.

        Raises:
            UnsupportedError: no folder is given, and tiktoken was told to keep none.
            StorageError: no download, or the folder cannot be written to.
            CorruptionError: the server answered with something else; nothing was kept of it.
        """
        return gpt2_files.fetch(folder, progress=progress)

    @classmethod
    def fingerprint_of(cls, state: Mapping[str, Any]) -> str:
        """Return the fingerprint of OpenAI's ranks, without reading them.

        Raises:
            CorruptionError: the state is not of this kind.
        """
        _check(state)
        return FINGERPRINT

    @classmethod
    def describe(cls, state: Mapping[str, Any]) -> str:
        """Return ``GPT-2 BPE (fixed ~50k tokens)``."""
        _check(state)
        return "GPT-2 BPE (fixed ~50k tokens)"


@functools.cache
def _vocabulary() -> _Vocabulary:
    """Return the vocabulary that tiktoken has on this machine, or downloads."""
    tiktoken, public = _tiktoken()
    _check_files()
    try:
        parts = public.gpt2()
        encoding = tiktoken.Encoding(**parts)
    except (OSError, ValueError, AssertionError) as error:
        why = f"the download failed ({type(error).__name__})"
        raise _unavailable(gpt2_files.FILES, why) from error
    ranks = parts["mergeable_ranks"]
    return _Vocabulary(encoding, fingerprint_of_ranks(ranks, parts["special_tokens"]), ranks)


@functools.lru_cache(maxsize=1)
def _carried_vocabulary(carried: bytes) -> _Vocabulary:
    """Return the vocabulary that a checkpoint carries, once it is proved to be gpt2's."""
    ranks = gpt2_files.ranks_of(carried)
    tiktoken, public = _tiktoken()
    encoding = tiktoken.Encoding(
        name="gpt2",
        explicit_n_vocab=len(ranks) + len(gpt2_files.SPECIAL_TOKENS),
        pat_str=getattr(public, "r50k_pat_str", _PATTERN),
        mergeable_ranks=ranks,
        special_tokens=gpt2_files.SPECIAL_TOKENS,
    )
    return _Vocabulary(encoding, FINGERPRINT, ranks)


def _tiktoken() -> tuple[Any, Any]:
    """Return tiktoken, and its module of OpenAI's encodings."""
    try:
        # tiktoken.get_encoding imports every module of tiktoken_ext first, and one broken module
        # among them would take this vocabulary away; its own module is asked directly.
        public = importlib.import_module("tiktoken_ext.openai_public")
        public.gpt2  # noqa: B018  (a release without it is no tiktoken for us)
        return importlib.import_module("tiktoken"), public
    except (ImportError, AttributeError) as error:
        raise UnsupportedError(
            f"the tokenizer kind 'gpt2' needs tiktoken, which does not load here ({error}); "
            "install it with: pip install tiktoken"
        ) from error


def _check_files() -> None:
    """Make sure that tiktoken has the files, or a server that answers, before it waits for one.

    tiktoken downloads without a time limit, and deletes a file whose bytes are wrong before it
    knows that it can have another. Asking first avoids both.
    """
    absent = gpt2_files.absent_files(gpt2_files.folder_of_cache())
    if not absent:
        return
    try:
        # requests is how tiktoken itself downloads: the same proxies, the same certificates.
        requests = importlib.import_module("requests")
        requests.head(gpt2_files.SOURCE + absent[0].name, timeout=gpt2_files.ANSWER_SECONDS)
    except (ImportError, OSError, ValueError) as error:
        raise _unavailable(absent, f"no download ({type(error).__name__})") from error


def _unavailable(absent: Sequence[gpt2_files.File], why: str) -> UnsupportedError:
    folder = gpt2_files.folder_of_cache()
    names = " and ".join(
        f"{file.name} (a damaged one is there)"
        if folder and (folder / file.cached_as).exists()
        else file.name
        for file in absent
    )
    where = f"the folder {str(folder)!r}" if folder else "its folder (TIKTOKEN_CACHE_DIR is empty)"
    targets = ", ".join(f"{file.name} as {file.cached_as}" for file in gpt2_files.FILES)
    return UnsupportedError(
        f"the gpt2 vocabulary is not on this machine: {where} lacks {names}, and {why}; "
        "get them with ckptstore tokenizer fetch, or "
        f"copy the two files from {gpt2_files.SOURCE} into a folder ({targets}), "
        "and set TIKTOKEN_CACHE_DIR to that folder; a checkpoint that carries the ranks "
        "(ckptstore sync --vocabulary) needs neither"
    )


def _check(state: Mapping[str, Any]) -> None:
    said = {name: value for name, value in state.items() if value is not None}
    if said != {"token_kind": Gpt2Tokenizer.kind}:
        raise CorruptionError(
            f"the tokenizer state is {reprlib.repr(dict(said))}, not {{'token_kind': 'gpt2'}}, "
            "so its ids are not certain; restore it from a good copy"
        )
