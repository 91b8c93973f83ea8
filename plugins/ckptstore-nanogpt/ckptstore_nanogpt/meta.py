"""The vocabulary of a nanoGPT data set: ``meta.pkl``, a pickle of plain dicts.

``data/shakespeare_char/prepare.py`` writes ``{"vocab_size", "itos": {id: character}, "stoi":
{character: id}}``; ``sample.py`` encodes with the one and decodes with the other. A data set
without it is in GPT-2's tokens (nanoGPT, commit 3adf61e, ``sample.py`` and ``train.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

from ckptstore import UnsupportedError, ptfile

__all__ = ["META", "meta_of", "read_meta", "tokenizer_of"]

META = "meta.pkl"
# GPT-2's own number of tokens, and what train.py makes of it where there is no meta.pkl.
GPT2_SIZES = (50257, 50304)


def read_meta(file: BinaryIO, where: str) -> Any:
    """Return what a ``meta.pkl`` holds, without running any of it (G5).

    Args:
        file: at its start; left open.
        where: what to call it in errors.

    Raises:
        CorruptionError: it is no pickle, or a damaged one.
        UnsafeError: it holds more than plain data.
        UnsupportedError: it is larger than 64 MiB.
    """
    return ptfile.read_pickle(file.read(ptfile.MOST_PICKLE + 1), where)


def tokenizer_of(meta: Any) -> dict[str, Any] | None:
    """Return the tokenizer that a ``meta.pkl`` describes, as ckptstore keeps it.

    Args:
        meta: what the file holds.

    Returns:
        ``{"token_kind": "char", "chars": [...]}`` where the ids run from 0 without a gap, each is
        one character, and ``stoi`` says the same as ``itos``; None for any other vocabulary.
    """
    itos = meta.get("itos") if isinstance(meta, Mapping) else None
    if isinstance(itos, (list, tuple)):
        itos = dict(enumerate(itos))
    if not isinstance(itos, Mapping) or not itos:
        return None
    chars = [itos.get(number) for number in range(len(itos))]
    if not all(isinstance(char, str) and len(char) == 1 for char in chars):
        return None
    back = {char: number for number, char in enumerate(chars)}
    if len(back) != len(chars) or meta.get("stoi", back) != back:
        return None
    return {"token_kind": "char", "chars": chars}


def meta_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what nanoGPT wants to find in ``data/<dataset>/meta.pkl``, to be pickled there.

    Args:
        state: a tokenizer's state of the kind ``char``, such as `Checkpoint.tokenizer_state`.

    Raises:
        UnsupportedError: it is of another kind; GPT-2's tokens need no ``meta.pkl``.
    """
    chars = state.get("chars")
    if state.get("token_kind") != "char" or not isinstance(chars, (list, tuple)):
        raise UnsupportedError(
            f"a {META} is made of a tokenizer of the kind 'char', and this is "
            f"{state.get('token_kind')!r}; for 'gpt2' nanoGPT needs none"
        )
    return {
        "vocab_size": len(chars),
        "itos": dict(enumerate(chars)),
        "stoi": {char: number for number, char in enumerate(chars)},
    }
