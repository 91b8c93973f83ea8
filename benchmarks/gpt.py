"""``python -m benchmarks.gpt``: training beside nanoGPT's model, generation with and without cache.

Both models have the same vocabulary, width, layers, heads, block size and batch, no dropout, and
AdamW over all parameters with the same settings, fused. What differs is in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measuring import Measured, measure
from benchmarks.nanogpt import NanoGPT
from gpt.config import GPTConfig
from gpt.model import GPT
from gpt.sampling import Sampler

_UNCACHED, _CACHED = "gpt, use_cache=False", "gpt"
_ROOM = 64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpt", description=__doc__)
    parser.add_argument("what", nargs="*", help="training, generation; default: both")
    parser.add_argument("--rounds", type=int, default=9, help="of training steps")
    parser.add_argument("--generations", type=int, default=3, help="rounds of generation")
    parser.add_argument("--new_tokens", type=int, default=256, help="in each generation")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--block_size", type=int, default=256)
    parser.add_argument("--vocab_size", type=int, default=65)
    parser.add_argument("--n_embd", type=int, default=384)
    parser.add_argument("--n_head", type=int, default=6)
    parser.add_argument("--n_layer", type=int, default=6)
    parser.add_argument("--nanogpt", type=Path, metavar="PATH", help="a checkout of nanoGPT")
    options = parser.parse_args()
    if not set(options.what) <= {"training", "generation"}:
        parser.error(f"{' '.join(options.what)!r} is not training or generation")

    torch.manual_seed(1)
    config = GPTConfig(
        **{name: getattr(options, name) for name in GPTConfig.known() if hasattr(options, name)},
        dropout=0.0,
        device="cpu",
    )
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {_size(config)}\n")
    if "generation" not in options.what or "training" in options.what:
        _measure_training(config, options.nanogpt, options.rounds)
    if "training" not in options.what or "generation" in options.what:
        _measure_generation(config, options.new_tokens, options.generations)


def _measure_training(config: GPTConfig, checkout: Path | None, rounds: int) -> None:
    peer, peer_name = _peer(config, checkout)
    steps = _training(config, {peer_name: peer, "gpt": GPT(config)})
    found = measure(steps, baseline=peer_name, rounds=rounds)
    _print_table("training", found, config.batch_size * config.block_size, peer_name)


def _measure_generation(config: GPTConfig, new_tokens: int, rounds: int) -> None:
    # As many positions as all tokens need, so that the window never slides.
    model = GPT(config.with_values(block_size=new_tokens + _ROOM))
    found = measure(_generating(model, new_tokens), baseline=_UNCACHED, rounds=rounds)
    _print_table("generation", found, new_tokens, _UNCACHED)


def _size(config: GPTConfig) -> str:
    names = ("batch_size", "block_size", "vocab_size", "n_embd", "n_head", "n_layer")
    return ", ".join(f"{name} {getattr(config, name)}" for name in names)


def _peer(config: GPTConfig, checkout: Path | None) -> tuple[nn.Module, str]:
    """Return a model of the same size as nanoGPT makes it, and its name."""
    if checkout is None:
        return NanoGPT(config), "nanoGPT's architecture"
    path = checkout / "model.py"
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"there is no model.py in {checkout}; name a checkout of nanoGPT")
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sizes = ("block_size", "vocab_size", "n_layer", "n_head", "n_embd", "dropout")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints how large it is
        theirs = module.GPTConfig(**{name: getattr(config, name) for name in sizes}, bias=True)
        return module.GPT(theirs), "nanoGPT's model.py"


def _training(
    config: GPTConfig, models: Mapping[str, nn.Module]
) -> dict[str, Callable[[], object]]:
    """Return one step of each model on the same batch: forward, backward, AdamW."""
    ids = torch.randint(config.vocab_size, (config.batch_size, config.block_size + 1))
    batch = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    return {name: _step(model, *batch) for name, model in models.items()}


def _step(model: nn.Module, ids: Tensor, targets: Tensor) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(ids, targets)[1].backward()
        optimizer.step()

    return step


def _generating(model: GPT, new_tokens: int) -> dict[str, Callable[[], object]]:
    """Return calls that draw tokens after one, always the same: anything else would be no peer."""
    first: list[int] = []

    def generate(use_cache: bool) -> None:
        drawn = model.continue_ids([0], new_tokens, Sampler(seed=1), use_cache=use_cache)
        first[:] = first or drawn
        if drawn != first:
            raise SystemExit("with the cache the model writes other tokens than without")

    return {_UNCACHED: lambda: generate(use_cache=False), _CACHED: lambda: generate(use_cache=True)}


def _print_table(what: str, found: list[Measured], tokens: int, baseline: str) -> None:
    print(f"| {what} | ms | tokens/s | times as fast as {baseline} | lowest to highest |")
    print("|---|---|---|---|---|")
    for one in found:
        speed = f"{tokens / one.seconds:,.0f}"
        spread = f"{one.low:.2f} to {one.high:.2f}"
        print(f"| {one.name} | {one.seconds * 1e3:.1f} | {speed} | {one.ratio:.2f} | {spread} |")
    print(flush=True)


if __name__ == "__main__":
    main()
