"""The layers of the model.

Each head has key, query and value modules of its own, since that is how the weights of this
family are named and ordered. The computation does not follow the modules: all projections of all
heads are one product, and attention is one call over all heads.

Between the layers a batch is one matrix with a row for each token. With more dimensions a linear
layer returns a view of its product, and what changes a view in place costs the backward pass
several copies; a matrix may be changed in place, which saves going through memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpt.config import GPTConfig

__all__ = ["Block", "BlockCache"]


@dataclass
class BlockCache:
    """What generation keeps of one block: its joined weights, and the keys and values so far.

    It lives as long as one generation, during which the weights stay as they are.

    Attributes:
        joined: weight and bias of the one product for all heads.
        block_size: tokens that there is room for.
        length: tokens taken so far.
    """

    joined: tuple[Tensor, Tensor | None]
    block_size: int
    length: int = 0
    _keys: Tensor | None = None
    _values: Tensor | None = None

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values of further tokens, and return those of all tokens so far.

        Shapes (batch, heads, tokens, head_size).
        """
        if self._keys is None or self._values is None:
            batch, heads, _, size = key.shape
            self._keys = key.new_empty((batch, heads, self.block_size, size))
            self._values = torch.empty_like(self._keys)
        end = self.length + key.shape[2]
        self._keys[:, :, self.length : end] = key
        self._values[:, :, self.length : end] = value
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]


class Head(nn.Module):
    """The projections of one head; `SelfAttention` computes with them."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        size = config.n_embd // config.n_head
        self.key = nn.Linear(config.n_embd, size, bias=config.bias)
        self.query = nn.Linear(config.n_embd, size, bias=config.bias)
        self.value = nn.Linear(config.n_embd, size, bias=config.bias)


class SelfAttention(nn.Module):
    """Causal attention of all heads at once, then the projection back."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Head(config) for _ in range(config.n_head))
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def joined(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias of one product that gives query, key and value of all heads.

        Joining copies the weights, which is small beside the product over a batch; nothing is
        kept here, so that training, loading and moving the module need not be noticed.
        """
        parts = [getattr(head, name) for name in ("query", "key", "value") for head in self.heads]
        weight = torch.cat([part.weight for part in parts])
        bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
        return weight, bias

    def forward(self, x: Tensor, batch: int, cache: BlockCache | None = None) -> Tensor:
        """Attend; shapes (batch * tokens, n_embd) in and out.

        With a cache, the tokens follow those that it has seen: either the first ones, or one.
        """
        rows, width = x.shape
        tokens = rows // batch
        weight, bias = self.joined() if cache is None else cache.joined
        # Split along the last dimension, so that the backward pass joins the three gradients where
        # the product needs them, without one more copy.
        query, key, value = (
            part.view(batch, tokens, len(self.heads), -1).transpose(1, 2)
            for part in functional.linear(x, weight, bias).split(width, dim=1)
        )
        if cache is not None:
            key, value = cache.extend(key, value)
        # The scale is the function's default, head_size ** -0.5.
        out = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=tokens > 1,
        )
        return self.dropout(self.proj(out.transpose(1, 2).reshape(rows, width)))


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(config.n_embd, 4 * config.n_embd),
            nn.ReLU(inplace=True),
            nn.Linear(4 * config.n_embd, config.n_embd),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply; shapes (batch * tokens, n_embd) in and out."""
        return self.net(x)


class Block(nn.Module):
    """Attention and feed-forward, each after its norm and added to what came in."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.sa = SelfAttention(config)
        self.fwd = FeedForward(config)
        self.ln1 = nn.LayerNorm(config.n_embd)
        self.ln2 = nn.LayerNorm(config.n_embd)

    def forward(self, x: Tensor, batch: int, cache: BlockCache | None = None) -> Tensor:
        """Apply; shapes (batch * tokens, n_embd) in and out."""
        # Into what a layer has just made, and not into x, which the norms still need.
        x = self.sa(self.ln1(x), batch, cache).add_(x)
        return self.fwd(self.ln2(x)).add_(x)

    def new_cache(self, block_size: int) -> BlockCache:
        """Return an empty cache for up to ``block_size`` tokens."""
        return BlockCache(self.sa.joined(), block_size)
