"""nanoGPT without nanoGPT: a model of its shape, its optimizer, and the files that it writes."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from ckptstore.testing.servers import NO_CONFIGURATION, S3Server, start_server

TEXT = "nel mezzo del cammin di nostra vita\nmi ritrovai per una selva oscura\n" * 4
CHARS = sorted(set(TEXT))
ARGS = {
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 16,
    "block_size": 8,
    "bias": False,
    "vocab_size": len(CHARS),
    "dropout": 0.0,
}
# The settings of train.py, in its order; all of them are bool, int, float or str.
SETTINGS = {
    **{"out_dir": "out", "eval_interval": 2000, "log_interval": 1, "eval_iters": 200},
    **{"eval_only": False, "always_save_checkpoint": True, "init_from": "scratch"},
    **{"wandb_log": False, "wandb_project": "owt", "wandb_run_name": "gpt2"},
    **{"dataset": "dante_char", "gradient_accumulation_steps": 1, "batch_size": 4},
    **{"block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 16, "dropout": 0.0, "bias": False},
    **{"learning_rate": 1e-2, "max_iters": 600000, "weight_decay": 1e-1, "beta1": 0.9},
    **{"beta2": 0.95, "grad_clip": 1.0, "decay_lr": True, "warmup_iters": 2000},
    **{"lr_decay_iters": 600000, "min_lr": 6e-5, "backend": "nccl", "device": "cpu"},
    **{"dtype": "float32", "compile": True},
}


def pytest_configure(config: pytest.Config) -> None:
    """Let torch.compile be imported, which still uses what torch itself deprecates."""
    config.addinivalue_line(
        "filterwarnings", "ignore:`torch.jit.script_method` is:DeprecationWarning"
    )


class Norm(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class Attention(nn.Module):
    def __init__(self, args: dict[str, Any], mask: bool) -> None:
        super().__init__()
        width, self.heads = args["n_embd"], args["n_head"]
        self.c_attn = nn.Linear(width, 3 * width, bias=args["bias"])
        self.c_proj = nn.Linear(width, width, bias=args["bias"])
        if mask:  # Before torch had an attention of its own.
            size = args["block_size"]
            self.register_buffer("bias", torch.tril(torch.ones(size, size))[None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.c_attn(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        late = torch.ones(length, length).tril() == 0
        mixed = scores.masked_fill(late, -math.inf).softmax(-1) @ value
        return self.c_proj(mixed.transpose(1, 2).reshape(batch, length, width))


class Feed(nn.Module):
    def __init__(self, args: dict[str, Any]) -> None:
        super().__init__()
        width = args["n_embd"]
        self.c_fc = nn.Linear(width, 4 * width, bias=args["bias"])
        self.c_proj = nn.Linear(4 * width, width, bias=args["bias"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(functional.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, args: dict[str, Any], mask: bool) -> None:
        super().__init__()
        self.ln_1 = Norm(args["n_embd"], args["bias"])
        self.attn = Attention(args, mask)
        self.ln_2 = Norm(args["n_embd"], args["bias"])
        self.mlp = Feed(args)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Shaped(nn.Module):
    """The names and shapes of nanoGPT's GPT, with its head tied to its embedding."""

    def __init__(self, args: dict[str, Any], *, mask: bool = False) -> None:
        super().__init__()
        width = args["n_embd"]
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(args["vocab_size"], width),
                "wpe": nn.Embedding(args["block_size"], width),
                "h": nn.ModuleList(Block(args, mask) for _ in range(args["n_layer"])),
                "ln_f": Norm(width, args["bias"]),
            }
        )
        self.lm_head = nn.Linear(width, args["vocab_size"], bias=False)
        self.transformer.wte.weight = self.lm_head.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.transformer.wte(ids) + self.transformer.wpe(torch.arange(ids.shape[1]))
        for block in self.transformer.h:
            x = block(x)
        return self.lm_head(self.transformer.ln_f(x))

    def optimizer(self) -> torch.optim.AdamW:
        """Return AdamW with two groups: what decays, and what does not."""
        params = list(self.parameters())
        groups = [
            {"params": [p for p in params if p.dim() >= 2], "weight_decay": 0.1},
            {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))


class Run:
    """A training, as train.py goes on with it; each step's batch follows from its number."""

    def __init__(self, **changes: Any) -> None:
        mask = changes.pop("mask", False)
        self.args = {**ARGS, **changes}
        torch.manual_seed(1337)
        self.model = Shaped(self.args, mask=mask)
        self.optimizer = self.model.optimizer()
        self.iter_num = 0

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.tensor([CHARS.index(char) for char in TEXT]) % self.args["vocab_size"]
        starts = torch.randint(
            len(ids) - 9, (4,), generator=torch.Generator().manual_seed(self.iter_num)
        )
        rows = torch.stack([ids[start : start + 9] for start in starts])
        return rows[:, :-1], rows[:, 1:]

    def loss(self) -> torch.Tensor:
        inputs, targets = self.batch()
        return functional.cross_entropy(self.model(inputs).flatten(0, 1), targets.flatten())

    def steps(self, count: int) -> list[float]:
        losses = []
        for _ in range(count):
            loss = self.loss()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.iter_num += 1
            losses.append(loss.item())
        return losses

    @torch.no_grad()
    def logits(self) -> torch.Tensor:
        return self.model(torch.arange(8)[None] % self.args["vocab_size"])

    def checkpoint(self, *, compiled: bool = False, **changes: Any) -> dict[str, Any]:
        """Return what train.py saves; best_val_loss is what estimate_loss gives, a tensor."""
        named = torch.compile(self.model) if compiled else self.model  # Not called, only named.
        with torch.no_grad():
            losses = torch.stack([self.loss() for _ in range(3)])
        return {
            "model": named.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "model_args": self.args,
            "iter_num": self.iter_num,
            "best_val_loss": losses.mean(),
            "config": SETTINGS,
            **changes,
        }

    def save(self, path: Path, *, compiled: bool = False, **changes: Any) -> dict[str, Any]:
        """Write a ckpt.pt, and return what is in it."""
        path.parent.mkdir(exist_ok=True)
        checkpoint = self.checkpoint(compiled=compiled, **changes)
        torch.save(checkpoint, path)
        return checkpoint

    @classmethod
    def resumed(cls, path: Path) -> Run:
        """Do what ``init_from='resume'`` does with a file."""
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        run = cls(**{name: checkpoint["model_args"][name] for name in ARGS})
        state = checkpoint["model"]
        for name in list(state):
            if name.startswith("_orig_mod."):
                state[name.removeprefix("_orig_mod.")] = state.pop(name)
        run.model.load_state_dict(state)
        run.optimizer.load_state_dict(checkpoint["optimizer"])
        run.iter_num = checkpoint["iter_num"]
        assert torch.tensor(0.0) < checkpoint["best_val_loss"]
        return run


def write_meta(folder: Path, **changes: Any) -> None:
    """Write the meta.pkl of a data set of characters, as its prepare.py does."""
    meta = {
        "vocab_size": len(CHARS),
        "itos": dict(enumerate(CHARS)),
        "stoi": {char: number for number, char in enumerate(CHARS)},
        **changes,
    }
    with open(folder / "meta.pkl", "wb") as file:
        pickle.dump(meta, file)


@pytest.fixture
def chars() -> list[str]:
    """Give the characters of the data set, in the order of their ids."""
    return CHARS


@pytest.fixture
def settings() -> dict[str, Any]:
    """Give train.py's settings."""
    return SETTINGS


@pytest.fixture
def meta() -> Any:
    """Give the function that writes a meta.pkl."""
    return write_meta


@pytest.fixture
def new_run() -> type[Run]:
    """Give the class of a training."""
    return Run


@pytest.fixture
def run() -> Run:
    """Give a training after three steps."""
    training = Run()
    training.steps(3)
    return training


@pytest.fixture
def out(tmp_path: Path, run: Run) -> Path:
    """Give nanoGPT's folder ``out`` with the ckpt.pt of that training."""
    run.save(tmp_path / "out" / "ckpt.pt")
    return tmp_path / "out"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give an S3 server on loopback."""
    started = start_server("moto", tmp_path_factory.mktemp("moto"))
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_CONFIGURATION.items():
        monkeypatch.setenv(name, value)
