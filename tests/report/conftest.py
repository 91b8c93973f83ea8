"""What the tests of reports share: findings made of nothing, pages taken apart, and a browser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from ckptstore.manifest import TensorInfo

from .chromium import Chromium, chromium

VOID = {"meta", "br", "hr", "img", "path", "line"}


class Parsed(HTMLParser):
    """A page taken apart; an element that is not closed where it should be is an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.style = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID or tag == "path":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.words.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def index(**shapes: tuple[int, ...]) -> dict[str, TensorInfo]:
    """Return an index of tensors: two underscores of a name stand for a dot."""
    return {
        name.replace("__", "."): TensorInfo("float32", shape, 4 * math.prod(shape), 7)
        for name, shape in shapes.items()
    }


def transformer(seed: int = 0, layers: int = 3) -> dict[str, torch.Tensor]:
    """Return the weights of something like a small GPT."""
    torch.manual_seed(seed)
    state = {"wte.weight": torch.randn(64, 16), "wpe.weight": torch.randn(32, 16)}
    for layer in range(layers):
        for head in range(2):
            state[f"h.{layer}.attn.heads.{head}.key.weight"] = torch.randn(8, 16)
        state[f"h.{layer}.mlp.0.weight"] = torch.randn(64, 16) * 0.02
        state[f"h.{layer}.mlp.2.weight"] = torch.randn(16, 64)
        state[f"h.{layer}.ln.bias"] = torch.zeros(16)
    return {**state, "head.weight": torch.randn(64, 16)}


def measured(steps: int) -> list[dict[str, Any]]:
    """Return the rows of a run of so many evaluations."""
    return [
        {
            "step": 50 * n,
            "train_loss": 4 / n,
            "val_loss": 4.5 / n,
            "learning_rate": 1e-3 / n,
            "time": "2026-01-01T00:00:00+00:00",
        }
        for n in range(1, steps + 1)
    ]


def save_dante(where: Path) -> Path:
    """Save a checkpoint with all that a report shows."""
    optimizer = torch.optim.AdamW(torch.nn.Linear(4, 2).parameters())
    ckptstore.save(
        where,
        model=transformer(),
        config={"n_layer": 3, "bias": False, "nested": {"deep": list(range(40))}},
        tokenizer={"token_kind": "char", "chars": ["\n", " ", "a", "<", "é"]},
        optimizer=optimizer,
        step=1000,
        metrics={"val_loss": 1.25},
        metrics_log=measured(300),
    )
    return where


def save_later(where: Path) -> Path:
    """Save another one, which differs in some tensors."""
    model = transformer()
    model["h.1.mlp.0.weight"] = model["h.1.mlp.0.weight"] * 1.5
    model["head.weight"] = model["head.weight"] * 1.1
    ckptstore.save(where, model=model, config={"n_layer": 3}, step=1100)
    return where


@pytest.fixture
def dante(tmp_path: Path) -> Path:
    """Give a checkpoint with all that a report shows."""
    return save_dante(tmp_path / "dante")


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """Give another one, which differs in some tensors."""
    return save_later(tmp_path / "later")


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    """Give a browser; skips where there is none."""
    program = chromium()
    if program is None:
        pytest.skip("there is no chromium on PATH; apt-get install chromium")
    with Chromium(program) as running:
        yield running


Report = Callable[..., Parsed]


@pytest.fixture
def report() -> Report:
    """Give a function that returns the page of a checkpoint, taken apart."""

    def report(*locations: object, **options: Any) -> Parsed:
        from ckptstore.report import gather, html_of

        return Parsed(html_of(gather(*map(str, locations), **options)))

    return report
