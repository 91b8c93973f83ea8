"""The peer of `python -m benchmarks.gpt` is of the same size, but for what its page says."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.nanogpt import NanoGPT
from gpt.model import GPT


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_peer_differs_by_tied_embeddings_and_biases(make_config: Any) -> None:
    config = make_config(n_layer=3)

    more = config.vocab_size * config.n_embd + config.vocab_size
    less = 3 * config.n_embd * config.n_layer
    assert _count(GPT(config)) - _count(NanoGPT(config)) == more - less


def test_the_peer_computes_what_gpt_does_with_the_same_weights(make_config: Any) -> None:
    config = make_config(dropout=0.0)
    model, peer = GPT(config), NanoGPT(config)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.token_embedding_table.weight)
        peer.tokens.weight.copy_(model.token_embedding_table.weight)
        peer.positions.load_state_dict(model.position_embedding_table.state_dict())
        for block, layer in zip(model.blocks, peer.layers, strict=True):
            layer.c_attn.weight.copy_(block.sa.joined()[0])
            layer.c_attn.bias.zero_()
            layer.c_proj.load_state_dict(block.sa.proj.state_dict())
            layer.c_fc.load_state_dict(block.fwd.net[0].state_dict())
            layer.mlp_proj.load_state_dict(block.fwd.net[2].state_dict())
    ids = torch.randint(41, (2, 16))

    logits, loss = model(ids, ids)
    theirs, their_loss = peer(ids, ids)

    assert torch.allclose(logits, theirs, atol=1e-5)
    assert torch.allclose(loss, their_loss, atol=1e-5)
