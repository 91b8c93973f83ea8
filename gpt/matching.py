"""Which vocabulary a model is trained with: one made of the text, or the one that it has."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptstore import plugins
from ckptstore.tokenizers.base import Tokenizer
from gpt.config import GPTConfig, usable_device

if TYPE_CHECKING:  # inspecting needs this module, and no torch
    from gpt.model import GPT

__all__ = ["Asked", "fitting_vocab_size", "fresh_model", "match_text", "match_tokenizer"]

_DEFAULT_KIND = "char"
_PADDING = 64
_SMALL_VOCABULARY = 1024


@dataclass(frozen=True)
class Asked:
    """The vocabulary that somebody asks for.

    Attributes:
        kind: of tokenizer; None for the model's, or ``char`` where it has none yet.
        options: training options of the kind.
        text: what the model is to be trained on.
    """

    kind: str | None
    options: Mapping[str, object]
    text: str

    def made(self) -> Tokenizer:
        """Return a new tokenizer, made of the text where the kind needs that."""
        return plugins.train_tokenizer(self.kind or _DEFAULT_KIND, self.text, self.options)


def fresh_model(config: GPTConfig, asked: Asked) -> GPT:
    """Return a new model on its device, its vocab_size adapted to a new tokenizer."""
    from gpt.model import GPT

    tokenizer = asked.made()
    fitting = config.with_values(vocab_size=fitting_vocab_size(config.vocab_size, tokenizer))
    return GPT(fitting, tokenizer).to(usable_device(fitting.device))


def fitting_vocab_size(wanted: int, tokenizer: Tokenizer) -> int:
    """Return the rows of the embedding for a fresh model with this vocabulary.

    What is wanted stays where it is the number of ids, or that number padded to a multiple of 64;
    else it is the number, padded where the vocabulary is large enough for that to make the
    product faster (gpt2: 50304 for 50257 ids).

    Args:
        wanted: what the config says.
        tokenizer: the vocabulary.
    """
    padded = -(-tokenizer.n_vocab // _PADDING) * _PADDING
    if tokenizer.n_vocab <= wanted <= padded:
        return wanted
    return tokenizer.n_vocab if tokenizer.n_vocab < _SMALL_VOCABULARY else padded


def match_tokenizer(model: GPT, asked: Asked, where: str) -> None:
    """Make sure that a model of a checkpoint has the vocabulary that is asked for.

    Args:
        model: of a checkpoint; one that records no tokenizer gets a new one.
        asked: what is asked for. Options change no vocabulary that is there.
        where: the checkpoint's location, for messages.

    Raises:
        ValueError: it is of another kind, or nobody says which kind it is of.
    """
    kind = model.token_kind
    if kind is None:
        if asked.kind is None:
            raise ValueError(f"{where} records no tokenizer; say which with --tokenization")
        warnings.warn(f"{where} records no tokenizer; using {asked.kind!r}", stacklevel=4)
        tokenizer = asked.made()
        if asked.kind == "char" and tokenizer.n_vocab != model.config.vocab_size:
            raise ValueError(
                f"the text has {tokenizer.n_vocab} characters, {where} was trained on "
                f"{model.config.vocab_size}, so it is another vocabulary; use the text of the "
                "training"
            )
        model.tokenizer = tokenizer
    elif asked.kind is not None and asked.kind != kind:
        raise ValueError(
            f"the tokenizers do not match: {where} was trained with {kind!r}, asked for is "
            f"{asked.kind!r}; use {kind!r}, or another model name"
        )
    elif asked.options:
        given = ", ".join(f"{name}={value}" for name, value in asked.options.items())
        warnings.warn(
            f"the tokenizer stays the one of {where}, {plugins.describe(model.tokenizer_state)}; "
            f"options are for a new model and change nothing here: {given}",
            stacklevel=4,
        )


def match_text(model: GPT, asked: Asked, where: str) -> None:
    """Make sure that the vocabulary of another model will do for the text of a new one.

    Args:
        model: that has a tokenizer.
        asked: whose text is to be covered.
        where: the other model's location, for messages.

    Raises:
        ValueError: the vocabulary lacks something that the text has.
    """
    from gpt.token_file import tokenise

    try:
        tokenise(asked.text, model)  # a long text's ids are kept, and found by the training
    except ValueError as error:
        wanted = plugins.train_tokenizer(model.tokenizer.kind, asked.text)
        raise ValueError(
            f"the tokenizers do not match: {where} was trained with {model.token_kind!r} of "
            f"{model.tokenizer.n_vocab} ids, this text needs {wanted.n_vocab}: {error}"
        ) from error
