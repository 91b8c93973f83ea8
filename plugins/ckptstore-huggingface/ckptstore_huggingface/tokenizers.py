"""From the tokenizer's files of a folder to a state that ckptstore knows, and back.

GPT-2's vocabulary is what its ranks are: it goes by them, wherever they come from, and a folder
that has it gives ``{"token_kind": "gpt2"}``. Any other ``tokenizer.json`` is a state of the kind
``hf-tokenizers``, whole.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ckptstore import CorruptionError, UnsupportedError, plugins
from ckptstore.formats.base import Files
from ckptstore.texts import dump_json
from ckptstore.tokenizers.gpt2 import FINGERPRINT, fingerprint_of_ranks
from ckptstore_huggingface.names import MERGES, TOKENIZER, TOKENIZER_CONFIG, VOCABULARY
from ckptstore_huggingface.texts import read_json

__all__ = ["files_of", "state_in", "stored"]

_GPT2 = {"token_kind": "gpt2"}
_KIND = "hf-tokenizers"
_END = "<|endoftext|>"
_MOST_TOKENIZER = 16 * 2**20
"""Bytes of a tokenizer.json that becomes a state, which stands in every manifest."""

_MOST_MERGES = 64 * 2**20
_VERSION = "#version: 0.2\n"
# Of the 50,000 lines of OpenAI's vocab.bpe below its first, without a line break at the end. A
# test computes it again from that file.
_MERGES_SHA256 = "04e3597d7996f292ca9b8b7285ca4d58a6ae171ac47d73fc7140ceb0c7a6bbc0"


def state_in(files: Files) -> dict[str, Any] | None:
    """Return the state of the tokenizer of a folder; None where it is of no kind that is known.

    Raises:
        CorruptionError: a file of it is malformed.
    """
    names = files.names()
    if TOKENIZER in names:
        if files.size(TOKENIZER) > _MOST_TOKENIZER:
            return None
        return _state_of(read_json(files.text(TOKENIZER), f"{TOKENIZER} in {files.location}"))
    if VOCABULARY not in names or MERGES not in names:
        return None
    vocabulary = read_json(files.text(VOCABULARY), f"{VOCABULARY} in {files.location}")
    with files.open(MERGES) as file:
        data = file.read(_MOST_MERGES + 1)
    where = f"{MERGES} in {files.location}"
    if len(data) > _MOST_MERGES:
        raise CorruptionError(f"{where} is larger than {_MOST_MERGES // 2**20} MiB; not read")
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise CorruptionError(
            f"{where} is not UTF-8: {error.reason} at byte {error.start}; restore it from a good "
            "copy"
        ) from error
    merges = [line for line in lines if line and not line.startswith("#version")]
    plain = "added_tokens.json" not in names
    return dict(_GPT2) if plain and _is_gpt2s(vocabulary, merges) else None


def stored(state: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what reading back gives of a state, once its files were written.

    Returns:
        None where there are no files for it: another kind, or GPT-2's ranks are not here.
    """
    if state is None:
        return None
    if _is_gpt2_state(state):
        return dict(_GPT2) if _ranks_here() is not None else None
    tokenizer = state.get("tokenizer")
    whole = {*state} == {"token_kind", "tokenizer"} and state["token_kind"] == _KIND
    if not whole or not isinstance(tokenizer, Mapping):
        return None
    return _state_of(dict(tokenizer)) if len(_dumped(tokenizer)) <= _MOST_TOKENIZER else None


def files_of(state: Mapping[str, Any] | None, positions: int | None) -> dict[str, str]:
    """Return the tokenizer's files by name, and their text; none where `stored` is None.

    Args:
        state: of any kind.
        positions: how many tokens the model looks at, where that is known.
    """
    if state is None or stored(state) is None:
        return {}
    if not _is_gpt2_state(state):
        return {TOKENIZER: dump_json(dict(state["tokenizer"]))}
    ranks = _ranks_here() or {}
    letters = _letters()
    vocabulary = {
        "".join(letters[byte] for byte in token): rank
        for token, rank in sorted(ranks.items(), key=lambda item: item[1])
    }
    vocabulary[_END] = len(vocabulary)
    config = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}
    merges = "\n".join(_merges_of(ranks))
    return {
        VOCABULARY: json.dumps(vocabulary, ensure_ascii=False),
        MERGES: f"{_VERSION}{merges}\n",
        TOKENIZER_CONFIG: dump_json(
            config if positions is None else {**config, "model_max_length": positions}
        ),
    }


def _is_gpt2_state(state: Mapping[str, Any]) -> bool:
    return {name: value for name, value in state.items() if value is not None} == _GPT2


def _dumped(tokenizer: Mapping[str, Any]) -> bytes:
    return dump_json(dict(tokenizer)).encode()


def _state_of(tokenizer: dict[str, Any]) -> dict[str, Any]:
    if _is_gpt2s_own(tokenizer):
        return dict(_GPT2)
    return {"token_kind": _KIND, "tokenizer": tokenizer}


def _is_gpt2s_own(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json does exactly what GPT-2 does, no token added."""
    model, split = tokenizer.get("model"), tokenizer.get("pre_tokenizer")
    added = tokenizer.get("added_tokens")
    if not isinstance(model, dict) or not isinstance(split, dict) or not isinstance(added, list):
        return False
    tokens = [(t.get("id"), t.get("content")) if isinstance(t, dict) else None for t in added]
    merges = model.get("merges")
    return (
        model.get("type", "BPE") == "BPE"
        and not model.get("dropout")
        and not model.get("byte_fallback")
        and tokenizer.get("normalizer") is None
        and split.get("type") == "ByteLevel"
        and split.get("add_prefix_space") is False
        and split.get("use_regex", True) is True
        and tokens in ([], [(50256, _END)])
        and isinstance(merges, list)
        and isinstance(model.get("vocab"), dict)
        and _is_gpt2s(model["vocab"], [_line_of(merge) for merge in merges])
    )


def _line_of(merge: Any) -> str:
    """Return a merge as merges.txt has it; newer files of tokenizers have pairs."""
    pair = isinstance(merge, list) and all(isinstance(part, str) for part in merge)
    return " ".join(merge) if pair else str(merge)


def _is_gpt2s(vocabulary: Mapping[str, Any], merges: Iterable[str]) -> bool:
    """Whether ids and merges are OpenAI's, all of them."""
    digest = hashlib.sha256("\n".join(merges).encode("utf-8", "surrogatepass")).hexdigest()
    if digest != _MERGES_SHA256:
        return False
    numbers = {letter: byte for byte, letter in enumerate(_letters())}
    ranks: dict[bytes, int] = {}
    for text, rank in vocabulary.items():
        if type(rank) is not int or rank < 0:
            return False
        if text != _END:
            if not numbers.keys() >= set(text):
                return False
            ranks[bytes(numbers[letter] for letter in text)] = rank
    special = {_END: vocabulary[_END]} if _END in vocabulary else {}
    return fingerprint_of_ranks(ranks, special) == FINGERPRINT


@functools.cache
def _letters() -> tuple[str, ...]:
    """Return the letter that stands for each byte in GPT-2's files.

    Those that are printable stand for themselves, the others, in their order, for what comes from
    256 on: so no token has a blank or a line break in it.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    free = iter(range(256, 512))
    return tuple(chr(byte if byte in printable else next(free)) for byte in range(256))


def _ranks_here() -> Mapping[bytes, int] | None:
    """Return GPT-2's ranks where this machine has them, or can have them."""
    return _ranks(os.environ.get("TIKTOKEN_CACHE_DIR"))


@functools.lru_cache(maxsize=2)
def _ranks(folder: str | None) -> Mapping[bytes, int] | None:
    """Return the ranks; asked once, since a network that does not answer takes seconds.

    Args:
        folder: where tiktoken has them, so that another one is another question.
    """
    try:
        tokenizer: Any = plugins.load_tokenizer(_GPT2, fingerprint=FINGERPRINT)
    except (UnsupportedError, CorruptionError):
        return None
    ranks: Mapping[bytes, int] = tokenizer.ranks()
    return ranks


def _merges_of(ranks: Mapping[bytes, int]) -> Iterable[str]:
    """Yield the merge that made each token, in the order of the ids.

    A token is what the last merge of its own bytes made; which pair that was is found by merging
    them with all ranks before it.
    """
    letters = _letters()
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = [token[at : at + 1] for at in range(len(token))]
        while len(parts) > 2:
            pairs = [ranks.get(one + two, rank) for one, two in itertools.pairwise(parts)]
            best = min(range(len(pairs)), key=pairs.__getitem__)
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        yield " ".join("".join(letters[byte] for byte in part) for part in parts)
