"""A model laid out as nanoGPT's is, written for this comparison: the peer of `benchmarks.gpt`.

As there: one linear layer for query, key and value of all heads, one fused attention call, a bias
in every linear layer and norm, and an embedding that is the output layer's weight too. Not as
there: ReLU in the place of GELU, which is what gpt's checkpoints have, so that neither has less to
compute.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpt.config import GPTConfig

__all__ = ["NanoGPT"]


class NanoGPT(nn.Module):
    """The whole model; a size is all that it takes of gpt.

    Args:
        config: the size; no dropout is computed, whatever it says.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.n_embd)
        self.positions = nn.Embedding(config.block_size, config.n_embd)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd)
        self.output = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
        self.tokens.weight = self.output.weight

    def forward(self, ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (batch, tokens, vocab_size) and the mean cross-entropy."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.tokens(ids) + self.positions(positions)
        for layer in self.layers:
            x = layer(x)
        logits = self.output(self.norm(x))
        return logits, functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


class _Layer(nn.Module):
    """Attention and feed-forward, each after its norm."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width = config.n_embd
        self._heads = config.n_head
        self.norm_1 = nn.LayerNorm(width)
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.c_fc = nn.Linear(width, 4 * width)
        self.mlp_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply; shapes (batch, tokens, n_embd) in and out."""
        x = x + self.c_proj(self._attend(self.c_attn(self.norm_1(x))))
        return x + self.mlp_proj(functional.relu(self.c_fc(self.norm_2(x))))

    def _attend(self, projected: Tensor) -> Tensor:
        batch, tokens, triple = projected.shape
        parts = projected.chunk(3, dim=-1)
        query, key, value = (
            part.view(batch, tokens, self._heads, -1).transpose(1, 2) for part in parts
        )
        out = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return out.transpose(1, 2).reshape(batch, tokens, triple // 3)
