"""nanoGPT's model in plain torch: its names, its shapes, and what it computes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional


class Args(NamedTuple):
    """nanoGPT's model_args."""

    n_layer: int = 2
    n_head: int = 3
    n_embd: int = 24
    block_size: int = 16
    bias: bool = True
    vocab_size: int = 65
    dropout: float = 0.0


class _Norm(nn.Module):
    def __init__(self, args: Args) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(args.n_embd))
        self.bias = nn.Parameter(torch.zeros(args.n_embd)) if args.bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class _Attention(nn.Module):
    def __init__(self, args: Args) -> None:
        super().__init__()
        self.n_head = args.n_head
        self.c_attn = nn.Linear(args.n_embd, 3 * args.n_embd, bias=args.bias)
        self.c_proj = nn.Linear(args.n_embd, args.n_embd, bias=args.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        q, k, v = (
            part.view(batch, tokens, self.n_head, -1).transpose(1, 2)
            for part in self.c_attn(x).split(width, dim=2)
        )
        scores = q @ k.transpose(-2, -1) / (width // self.n_head) ** 0.5
        mask = torch.ones(tokens, tokens).tril() == 0
        mixed = scores.masked_fill(mask, float("-inf")).softmax(-1) @ v
        return self.c_proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class _Mlp(nn.Module):
    def __init__(self, args: Args, activation: nn.Module) -> None:
        super().__init__()
        self.c_fc = nn.Linear(args.n_embd, 4 * args.n_embd, bias=args.bias)
        self.act = activation
        self.c_proj = nn.Linear(4 * args.n_embd, args.n_embd, bias=args.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(self.act(self.c_fc(x)))


class _Block(nn.Module):
    def __init__(self, args: Args, activation: nn.Module) -> None:
        super().__init__()
        self.ln_1, self.attn = _Norm(args), _Attention(args)
        self.ln_2, self.mlp = _Norm(args), _Mlp(args, activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class NanoGPT(nn.Module):
    """The model of nanoGPT: its names, its shapes, and what it computes."""

    def __init__(self, args: Args, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.args = args
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(args.vocab_size, args.n_embd),
                "wpe": nn.Embedding(args.block_size, args.n_embd),
                "h": nn.ModuleList(
                    _Block(args, activation or nn.GELU()) for _ in range(args.n_layer)
                ),
                "ln_f": _Norm(args),
            }
        )
        self.lm_head = nn.Linear(args.n_embd, args.vocab_size, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight
        # Large enough that what is turned, swapped or left out shows in the logits.
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0, 0.3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.transformer["wte"](ids) + self.transformer["wpe"](torch.arange(ids.shape[1]))
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))
