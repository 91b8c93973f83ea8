"""Every command and every public function, as calls that take a hostile location.

Each says which parts of a checkpoint it looks at: where a part is hostile, the call has to refuse.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import ckptstore
from ckptstore.cli import main as cli_main
from ckptstore.errors import CkptstoreError
from gpt.__main__ import main as gpt_main
from gpt.checkpoint import CheckpointManager
from gpt.config import GPTConfig
from gpt.model import GPT

__all__ = ["ACTIONS", "Action", "Outcome", "Place"]


@dataclass(frozen=True)
class Place:
    """Where an action finds a hostile checkpoint.

    Attributes:
        folder: its folder.
        target: what is opened: the folder, or one file in it.
        free: a folder that is empty, for what is written.
    """

    folder: Path
    target: str
    free: Path


@dataclass(frozen=True)
class Outcome:
    """How an action ended.

    Attributes:
        code: the exit code, 0 for success; None for an error that is none of ours.
        said: the error, or what stderr held.
    """

    code: int | None
    said: str = ""


@dataclass(frozen=True)
class Action:
    """One call.

    Attributes:
        name: of the call.
        call: the call itself.
        reads: the parts that it cannot leave unread: ``open``, ``index``, ``model``,
            ``optimizer``, ``state``, ``tokenizer``.
        writes: whether it may change the location, which is then put back.
    """

    name: str
    call: Callable[[Place], Outcome]
    reads: frozenset[str]
    writes: bool = False


def _api(call: Callable[[Place], Any]) -> Callable[[Place], Outcome]:
    def run(place: Place) -> Outcome:
        try:
            call(place)
        except CkptstoreError as error:
            return Outcome(error.exit_code, f"{type(error).__name__}: {error}")
        return Outcome(0)

    return run


def _gpt(call: Callable[[Place], Any]) -> Callable[[Place], Outcome]:
    def run(place: Place) -> Outcome:
        try:
            call(place)
        except CkptstoreError as error:
            return Outcome(error.exit_code, f"{type(error).__name__}: {error}")
        except ValueError as error:  # what the command prints with exit code 2
            return Outcome(2, f"ValueError: {error}")
        return Outcome(0)

    return run


def _command(main: Any, words: Callable[[Place], list[str]]) -> Callable[[Place], Outcome]:
    def run(place: Place) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main.main(args=words(place), prog_name="x")
                code: Any = 0
            except SystemExit as end:
                code = end.code
        text = "".join(char for char in out.getvalue() if char != "\n")
        if not text.isprintable():
            return Outcome(None, f"stdout commands the terminal: {ascii(text)[:300]}")
        return Outcome(int(code or 0), err.getvalue())

    return run


def _ckptstore(*words: str) -> Callable[[Place], Outcome]:
    def full(place: Place) -> list[str]:
        names = {"TARGET": place.target, "FOLDER": str(place.folder), "FREE": str(place.free)}
        names["FILE"] = str(place.free / "new.pt")
        return [names.get(word, word) for word in words]

    return _command(cli_main, full)


def _gpt_command(*words: str) -> Callable[[Place], Outcome]:
    def full(place: Place) -> list[str]:
        file = [] if place.target == str(place.folder) else [Path(place.target).name]
        legacy = ["--legacy_checkpoint", *file] if file and words[0] != "train" else []
        where = ["--model_name", place.folder.name, "--base_dir", str(place.folder.parent)]
        return [words[0], *where, *legacy, *words[1:]]

    return _command(gpt_main, full)


def _tiny() -> dict[str, Any]:
    return {"w": torch.ones(2)}


def _in_memory(place: Place) -> Any:
    """Read the same files through ``memory://``, by every function that reads."""
    from fsspec.implementations.memory import MemoryFileSystem

    files = MemoryFileSystem()
    for path in place.folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 2**24:
            files.pipe_file(f"/attack/{path.relative_to(place.folder)}", path.read_bytes())
    part = Path(place.target).relative_to(place.folder)
    url = "memory://attack" + ("" if str(part) == "." else f"/{part}")
    try:
        checkpoint = ckptstore.open(url)
        checkpoint.tensors()
        checkpoint.verify()
        checkpoint.load_model()
    finally:
        with contextlib.suppress(FileNotFoundError):  # All that is there are links.
            files.rm("/attack", recursive=True)


def _states(place: Place) -> Any:
    checkpoint = ckptstore.open(place.target)
    return [checkpoint.load_state(name) for name in checkpoint.states()]


def _restore(place: Place) -> Any:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint = ckptstore.open(place.target)
    checkpoint.restore(model=model, optimizer=optimizer if checkpoint.has_optimizer else None)


def _verify(place: Place) -> Any:
    report = ckptstore.open(place.target).verify()
    if not report.sound:
        raise ckptstore.CorruptionError("; ".join(file.detail for file in report.files))


def _store(place: Place) -> Any:
    with ckptstore.Store(place.folder) as store:
        store.steps()
        store.generations()
        store.open()


def _history(place: Place) -> Any:
    with ckptstore.Store(place.folder, keep=ckptstore.Keep(last=1)) as store:
        store.save(model=_tiny(), step=7)
        store.rewind(7)


def _again(place: Place) -> Any:
    """Save what was loaded: whoever goes on from a checkpoint does this."""
    ckptstore.save(place.folder, model=_tiny(), config={"a": 1}, optimizer={"s": 1}, step=2)
    ckptstore.open(place.folder).load_model()


def _manager(place: Place) -> Any:
    manager = CheckpointManager(place.folder.name, place.folder.parent)
    manager.exists()
    config = GPTConfig(batch_size=1, device="cpu")
    manager.initialize_for_training(config, None, "abc\n", fresh_optimizer=False)


def _inference(place: Place) -> Any:
    file = None if place.target == str(place.folder) else Path(place.target).name
    return CheckpointManager.load_for_inference(place.folder.name, place.folder.parent, file)


def _actions() -> list[Action]:
    def action(
        name: str, call: Callable[[Place], Outcome], reads: str = "", *, writes: bool = False
    ) -> Action:
        return Action(name, call, frozenset(reads.split()), writes)

    every = "open index model optimizer state"
    return [
        action("inspect", _ckptstore("inspect", "TARGET"), "open index"),
        action("inspect --json", _ckptstore("inspect", "TARGET", "--json", "--tensors"), "open"),
        action("inspect --stats", _ckptstore("inspect", "TARGET", "--stats"), "open index model"),
        action("diff", _ckptstore("diff", "TARGET", "TARGET"), "open index"),
        action(
            "report", _ckptstore("report", "TARGET", "TARGET", "--html", "-"), "open index model"
        ),
        action("verify", _ckptstore("verify", "TARGET"), "open index"),
        action("verify --json", _ckptstore("verify", "TARGET", "--json"), "open index"),
        action("convert", _ckptstore("convert", "TARGET", "FREE"), "open index"),
        action("convert beside", _ckptstore("convert", "TARGET"), "open index", writes=True),
        action(
            "convert --to legacy",
            _ckptstore("convert", "TARGET", "FILE", "--to", "legacy"),
            "open index",
        ),
        action("convert --all", _ckptstore("convert", "--all", "FOLDER"), writes=True),
        action("sync", _ckptstore("sync", "TARGET", "FREE"), "open index"),
        action("sync into", _ckptstore("sync", "FREE", "FOLDER"), writes=True),
        action("verify --all", _ckptstore("verify", "--all", "FOLDER")),
        action("ls", _ckptstore("ls", "FOLDER")),
        action("rm --step", _ckptstore("rm", "--step", "3", "FOLDER", "--yes"), writes=True),
        action("rm", _ckptstore("rm", "FOLDER", "--yes"), writes=True),
        action("rm unasked", _ckptstore("rm", "FOLDER")),
        action("doctor", _ckptstore("doctor", "FOLDER")),
        action("doctor --fix", _ckptstore("doctor", "FOLDER", "--fix"), writes=True),
        action("doctor --adopt", _ckptstore("doctor", "FOLDER", "--adopt"), writes=True),
        action("doctor --restore", _ckptstore("doctor", "FOLDER", "--restore"), writes=True),
        action("plugins", _ckptstore("plugins")),
        action("gpt inspect", _gpt_command("inspect"), "open index"),
        action("gpt generate", _gpt_command("generate", "--max_new_tokens", "1"), "open model"),
        action("gpt train", _gpt_command("train", "--max_iters", "0"), writes=True),
        action("open", _api(lambda p: ckptstore.open(p.target)), "open"),
        action("tensors", _api(lambda p: ckptstore.open(p.target).tensors()), "open index"),
        action("load_model", _api(lambda p: ckptstore.open(p.target).load_model()), "open model"),
        action(
            "load_optimizer",
            _api(lambda p: ckptstore.open(p.target).load_optimizer()),
            "open optimizer",
        ),
        action("load_state", _api(_states), "open state"),
        action(
            "load_tokenizer",
            _api(lambda p: ckptstore.open(p.target).load_tokenizer()),
            "open tokenizer",
        ),
        action("restore", _api(_restore), "open model optimizer"),
        action("verify()", _api(_verify), "open index"),
        action("Store", _api(_store)),
        action("Store.save", _api(_again), writes=True),
        action("Store.save step", _api(_history), writes=True),
        action("Store.repair", _api(lambda p: ckptstore.Store(p.folder).repair()), writes=True),
        action("sync()", _api(lambda p: ckptstore.sync(p.target, p.free)), "open index"),
        action("convert()", _api(lambda p: ckptstore.convert(p.target, p.free)), every),
        action("GPT.load", _gpt(lambda p: GPT.load(p.target)), "open model"),
        action("GPT.load_legacy", _gpt(lambda p: GPT.load_legacy(p.target)), "open"),
        action("load_for_inference", _gpt(_inference), "open model"),
        action("initialize_for_training", _gpt(_manager)),
        action("memory://", _api(_in_memory), "open index model"),
    ]


ACTIONS = _actions()
