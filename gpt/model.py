"""The model: what it computes, and how it goes into a checkpoint and comes out of one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ckptstore import Store
from ckptstore.tokenizers.base import Tokenizer
from gpt import bundle, fit
from gpt.config import GPTConfig
from gpt.layers import Block, BlockCache
from gpt.optimizer import new_optimizer
from gpt.sampling import Sampler
from gpt.vocabulary import Vocabulary
from gpt.weights import without_masks

if TYPE_CHECKING:
    from ckptstore import Preemption
    from gpt.data import GPTDataLoader
    from gpt.leaving import Outcome
    from gpt.pending import Pending
    from gpt.ranks import Ranks
    from gpt.saves import Saves

__all__ = ["GPT", "GPTConfig"]

Location = str | os.PathLike[str]


class GPT(nn.Module):
    """A decoder-only transformer with pre-norm blocks and learned absolute positions.

    Parameter names and order are those of the checkpoints of this family, so that their weights
    and optimizer states load unchanged.

    Args:
        config: the architecture.
        tokenizer: an object, or the state that describes one; a state is made into an object
            when it is needed.
        token_kind: the kind of tokenizer, where the kind alone says all (``gpt2``).

    Attributes:
        vocabulary: the tokenizer, made or still to be made.
        training_state: fields of training_state.json that belong to others; written back.
        states: further states that belong to others, by name; written back.
        metrics_log: what was measured since its training began, a row for each evaluation.
        pending: random and data states that `fit` continues from; None but after loading.

    Raises:
        ValueError: the config cannot be used, the vocabulary is larger than ``vocab_size``, or
            tokenizer and kind contradict each other.
    """

    def __init__(
        self,
        config: GPTConfig,
        tokenizer: Tokenizer | Mapping[str, Any] | None = None,
        token_kind: str | None = None,
    ) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.training_state: dict[str, Any] = {}
        self.states: dict[str, Any] = {}
        self.metrics_log: list[dict[str, Any]] = []
        self.pending: Pending | None = None
        self.vocabulary = Vocabulary.of(config.vocab_size, tokenizer, token_kind)

        self.token_embedding_table = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding_table = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.n_layer)))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size)
        self.apply(_initialise)
        self.register_load_state_dict_pre_hook(_drop_masks)

    # -- vocabulary ---------------------------------------------------------------------

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, made at its first use; raises what `Vocabulary.tokenizer` raises."""
        return self.vocabulary.tokenizer()

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer | Mapping[str, Any]) -> None:
        self.vocabulary = Vocabulary.of(self.config.vocab_size, tokenizer)

    @property
    def tokenizer_state(self) -> dict[str, Any] | None:
        """The tokenizer as a JSON object, or None; needs nothing installed."""
        return self.vocabulary.state

    @property
    def token_kind(self) -> str | None:
        """The kind of tokenizer, or None."""
        return self.vocabulary.kind

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; raises what the tokenizer raises."""
        return self.tokenizer.encode(text)

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """Return the text of ids."""
        return self.tokenizer.decode(ids.tolist() if isinstance(ids, Tensor) else list(ids))

    # -- computing ----------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.lm_head.weight.device

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return logits (batch, tokens, vocab_size) and the mean cross-entropy.

        Args:
            idx: ids, (batch, tokens), at most block_size tokens.
            targets: the ids that follow, (batch, tokens); without them the loss is None.

        Raises:
            ValueError: there are more tokens than block_size.
        """
        logits = self.lm_head(self._features(idx))
        if targets is None:
            return logits, None
        return logits, functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 200,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        use_cache: bool = True,
    ) -> str:
        """Return the prompt and what the model writes after it.

        Args:
            prompt: at least one token.
            max_new_tokens: how many tokens to add.
            temperature: below 1 is more certain, above 1 less; 0 takes the likeliest token.
            top_k: draw from this many likeliest tokens only.
            top_p: draw from the fewest likeliest tokens whose probabilities reach this sum.
            seed: of the draws; without one they come from torch's global generator.
            use_cache: keep keys and values between tokens; the tokens are the same without.

        Raises:
            ValueError: the prompt is empty or holds what the vocabulary lacks, or an argument is
                out of range; the message says which.
        """
        if not prompt:
            raise ValueError("the prompt is empty; give it at least one character to go on from")
        sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        return self.decode(
            self.continue_ids(self.encode(prompt), max_new_tokens, sampler, use_cache=use_cache)
        )

    @torch.no_grad()
    def continue_ids(
        self, ids: Sequence[int], max_new_tokens: int, sampler: Sampler, *, use_cache: bool = True
    ) -> list[int]:
        """Return ids and those that the model adds; ids that nothing decodes are never drawn.

        Args:
            ids: at least one.
            max_new_tokens: how many to add.
            sampler: chooses each.
            use_cache: as for `generate`.

        Raises:
            ValueError: there are no ids, or ``max_new_tokens`` is negative.
        """
        if not ids:
            raise ValueError("the prompt has no tokens; give it at least one to go on from")
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens is {max_new_tokens}, not a number from 0 on")
        out = list(ids)
        # The embedding may have more rows than the vocabulary has ids. Whoever continues a text
        # has the tokenizer by now; ids alone can be continued where it is not installed.
        n_ids = self.vocabulary.n_ids
        was_training = self.training
        self.eval()
        try:
            caches = self._new_caches() if use_cache else None
            for _ in range(max_new_tokens):
                out.append(sampler.choose(self._next_logits(out, caches)[:n_ids]))
        finally:
            self.train(was_training)
        return out

    def _new_caches(self) -> list[BlockCache]:
        return [block.new_cache(self.config.block_size) for block in self.blocks]

    def _next_logits(self, ids: list[int], caches: list[BlockCache] | None) -> Tensor:
        """Return the logits of the token after the last block_size of these, (vocab_size,)."""
        block_size = self.config.block_size
        seen = 0
        if caches is not None:
            # Positions are absolute: as soon as the window slides every token has a new one, and
            # nothing that was computed for the old ones holds.
            seen = caches[0].length if len(ids) <= block_size else 0
            for cache in caches:
                cache.length = seen
        new = torch.tensor([ids[-block_size:][seen:]], device=self.device)
        return self.lm_head(self._features(new, caches)[0, -1])

    def _features(self, idx: Tensor, caches: list[BlockCache] | None = None) -> Tensor:
        """Return what goes into the output layer, (batch, tokens, n_embd)."""
        batch, tokens = idx.shape
        if tokens > self.config.block_size:
            raise ValueError(f"{tokens} tokens are more than block_size {self.config.block_size}")
        start = 0 if caches is None else caches[0].length
        positions = torch.arange(start, start + tokens, device=idx.device)
        x = self.token_embedding_table(idx) + self.position_embedding_table(positions)
        x = x.flatten(0, 1)
        for number, block in enumerate(self.blocks):
            x = block(x, batch, None if caches is None else caches[number])
        return self.ln_f(x).view(batch, tokens, -1)

    # -- training -----------------------------------------------------------------------

    def configure_optimizer(
        self,
        learning_rate: float = 3e-4,
        optimizer_state: Mapping[str, Any] | None = None,
    ) -> torch.optim.AdamW:
        """Return AdamW over all parameters in their order.

        Args:
            learning_rate: of a fresh optimizer.
            optimizer_state: a state to go on from, its learning rate included.

        Raises:
            ValueError: the state is not one of AdamW over these parameters; the message names
                what differs.
        """
        return new_optimizer(self, learning_rate, optimizer_state)

    def fit(
        self,
        data_loader: GPTDataLoader,
        optimizer: torch.optim.Optimizer,
        max_iters: int,
        eval_interval: int = 50,
        eval_iters: int = 200,
        checkpoint_dir: Location | None = None,
        start_step: int = 0,
        saves: Saves | None = None,
        preemption: Preemption | None = None,
        outcome: Outcome | None = None,
        ranks: Ranks | None = None,
    ) -> dict[str, float]:
        """Train until ``max_iters`` optimizer steps are finished; see `gpt.fit.fit`."""
        return fit.fit(
            self,
            data_loader,
            optimizer,
            max_iters=max_iters,
            eval_interval=eval_interval,
            eval_iters=eval_iters,
            checkpoint_dir=checkpoint_dir,
            start_step=start_step,
            saves=saves,
            preemption=preemption,
            outcome=outcome,
            ranks=ranks,
        )

    # -- checkpoints --------------------------------------------------------------------

    def save(self, checkpoint_dir: Location) -> None:
        """Save the weights; whatever else is at the location is carried over.

        Config, tokenizer with its files, training state, optimizer and further states stay as
        they are there, edits by hand included, also where they come out of a legacy file. Nothing
        is added.
        """
        bundle.save_weights(self, checkpoint_dir)

    def save_checkpoint_bundle(
        self,
        checkpoint_dir: Location,
        step: int | None = None,
        optimizer_state: Mapping[str, Any] | None = None,
    ) -> None:
        """Save the whole checkpoint: weights, config, tokenizer, and the training where given.

        Further states and fields that the model was loaded with are written back, its random
        states where the step is still theirs.

        Args:
            checkpoint_dir: any location.
            step: finished optimizer steps.
            optimizer_state: what the optimizer's ``state_dict`` returned.
        """
        bundle.save_bundle(
            self,
            Store(checkpoint_dir),
            step=step,
            optimizer=optimizer_state,
            states=self.pending.states_at(step) if self.pending else None,
        )

    @classmethod
    def load(
        cls, location: Location, map_location: Any = None
    ) -> tuple[GPT, dict[str, Any] | None, int | None, dict[str, Any] | None]:
        """Load a checkpoint of any format, found by itself.

        Args:
            location: a folder, a file, or any URL.
            map_location: where to put the model; None is the config's device, or the CPU with a
                warning where that is not there.

        Returns:
            The model, the tokenizer's state, the step and the optimizer's state; None for what is
            not there. An optimizer that is named but absent is None with a warning.
        """
        return bundle.load(cls, location, map_location)

    @classmethod
    def load_legacy(
        cls, path: Location, map_location: Any = None
    ) -> tuple[GPT, dict[str, Any] | None, int | None, dict[str, Any] | None]:
        """Load a legacy file, such as ``latest.pt``; like `load` in all else.

        Raises:
            NotFoundError: there is no such file.
            UnsupportedError: it is no legacy file.
        """
        return bundle.load_legacy(cls, path, map_location)


def _initialise(module: nn.Module) -> None:
    """Start small: normal with deviation 0.02, biases 0 (GPT-2's choice)."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _drop_masks(module: nn.Module, state: dict[str, Any], *_: Any) -> None:
    """Let a state dict of the old code load as it is, masks and all."""
    kept = without_masks(state)
    for name in [name for name in state if name not in kept]:
        del state[name]
