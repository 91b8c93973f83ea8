"""The real code's operations, under the model's names, and the model's, one after another."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ckptstore.errors import NotFoundError
from ckptstore.manifest import MANIFEST
from ckptstore.storage.base import (
    AlreadyThereError,
    Entry,
    Listing,
    Storage,
    UnknownOutcomeError,
)
from ckptstore.storage.names import TEMPORARY, held_by_looking

from .effects import outcomes
from .looking import Program
from .world import PIN, WORD, Manifest, Op, World

__all__ = ["Recording", "files_of", "names_of", "play", "values_of"]

_PLAIN = {
    "manifest.json": "M",
    "config.json": "c",
    "model.pt": "m",
    "optimizer.pt": "o",
    "training_state.json": "t",
    "pinned.json": "P",
}
_OWN = re.compile(r"(\w+)\.([0-9a-f]{12})(\.\w+)")
_COUNTED = {
    *("holding", "held", "list", "folders", "read", "open", "entry", "flush", "create_only"),
    *("create", "replace", "copy", "delete", "swap"),
}

Step = tuple[str, ...]


class Recording:
    """A storage that writes down what is asked of it, and lets somebody in between.

    Args:
        storage: in memory.
        kind: ``s3`` gives versions that are ETags, ``local`` lists by looking into folders.
        labels: the write's own name by its random id; filled as writes are seen.
        at: before which operation, counted from 0, ``between`` is called.
        between: what somebody else does then.
        aged: whether all that is there was made long ago.
        lost: whether the reply to the manifest's creation is lost: ``done``, or ``never`` done.
    """

    def __init__(
        self,
        storage: Storage,
        kind: str,
        labels: dict[str, str],
        at: int = -1,
        between: Callable[[], object] = lambda: None,
        *,
        aged: bool = False,
        lost: str = "",
    ) -> None:
        self._steps: list[Step] = []
        self.location = storage.location
        self.content_versions = kind == "s3"
        self.lists_in_order = kind != "local"
        self._storage, self._kind, self._labels = storage, kind, labels
        self._at, self._between = at, between
        self._lost = lost
        self._made: set[str] = set()
        self._now = 1e9 if aged else 1.0

    @property
    def steps(self) -> list[Step]:
        """What was asked for, once it is known which id is whose."""
        return [tuple(self._labelled(part) for part in step) for step in self._steps]

    def list(self, folder: str = "") -> Listing:
        """Take a listing, with versions that are the content's."""
        if folder == ".ckptstore":
            self._step("folders", "g")
        else:
            self._step("list", self._folder(folder))
        listing = self._storage.list(folder)
        return Listing({n: self._entry(e) for n, e in listing.files.items()}, listing.folders)

    def holding(self, folder: str, prefix: str, name: str) -> tuple[str, ...]:
        """Look into folders, in one operation or, as on local disk, in several."""
        return tuple(self.held(folder, prefix, (name,)))

    def held(self, folder: str, prefix: str, names: Any) -> dict[str, dict[str, Entry]]:
        """Do the same, and see more files than one."""
        if self._kind == "local":
            return held_by_looking(self, folder, prefix, names)  # type: ignore[arg-type]
        self._step("holding", "s" if prefix else "g")
        return self._storage.held(folder, prefix, names)

    def entry(self, name: str) -> Entry | None:
        """Look at a file."""
        self._step("entry", self._name(name))
        found = self._storage.entry(name)
        return None if found is None else self._entry(found)

    def open(self, name: str) -> Any:
        """Open a file; what this writer reads of its own is no business of others."""
        if name not in self._made:
            self._step("open", self._name(name))
        return self._storage.open(name)

    @contextlib.contextmanager
    def writer(self, name: str, **options: Any) -> Iterator[Any]:
        """Create a large file: one operation, since nobody reads it before it is finished."""
        self._made.add(name)
        self._step("create", self._name(name))
        with self._storage.writer(name, **options) as sink:
            yield sink

    def create(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Create a small file."""
        own, text = _OWN.search(name), re.search(rb'"content": ?"(\w+)"', data)
        if name.endswith(f"/{MANIFEST}"):
            self._learn(data)
        elif own and text:
            self._labels[own[2]] = text[1].decode()
        self._made.add(name)
        self._step("create", self._name(name))
        if not (self._lost and name.endswith(f"/{MANIFEST}")):
            self._storage.create(name, data, durable=durable)
            return
        lost, self._lost = self._lost, ""
        if lost == "done":
            with contextlib.suppress(AlreadyThereError):
                self._storage.create(name, data, durable=durable)
        held = self._held(name)
        if held is not None and held != data:
            raise AlreadyThereError("another's is there")
        if held is None:
            raise UnknownOutcomeError("no reply", committed=None)

    def swap(self, name: str, expected: bytes, data: bytes, *, durable: bool = True) -> bool:
        """Replace a manifest."""
        self._learn(data)
        self._step("swap", self._name(name))
        if not self._lost:
            return self._storage.swap(name, expected, data, durable=durable)
        lost, self._lost = self._lost, ""
        if lost == "done":
            self._storage.swap(name, expected, data, durable=durable)
        if self._held(name) != data:
            raise UnknownOutcomeError("no reply", committed=None)
        return True

    def create_only(self, name: str, data: bytes) -> bool:
        """Say that creating is exclusive."""
        self._step("create_only", self._folder(name.rpartition("/")[0]))
        return self._storage.create_only(name, data)

    def flush(self, folder: str) -> None:
        """Do nothing."""
        self._step("flush", self._folder(folder))

    def copy(self, source: str, name: str, **options: Any) -> None:
        """Copy a file."""
        self._step("copy", self._name(name), self._name(source))
        self._storage.copy(source, name, **options)

    def __getattr__(self, kind: str) -> Any:
        operation = getattr(self._storage, kind)
        if kind not in _COUNTED:
            return operation

        def recorded(name: str, *args: Any, **options: Any) -> Any:
            self._step(kind, self._name(name))
            return operation(name, *args, **options)

        return recorded

    def _step(self, kind: str, *names: str) -> None:
        if TEMPORARY in names[0]:
            return  # How a storage is asked for its clock, and what it can do.
        if len(self._steps) == self._at:
            self._at = -1
            self._between()
        self._steps.append((kind, *names))

    def _held(self, name: str) -> bytes | None:
        """Read back, as S3 storage does by itself when a reply was lost."""
        try:
            return self._storage.read(name)
        except NotFoundError:
            return None

    def _learn(self, data: bytes) -> None:
        """Learn from a manifest whose write has which id."""
        manifest = json.loads(data)
        self._labels[manifest["write_id"]] = _content(manifest)

    def _entry(self, entry: Entry) -> Entry:
        with contextlib.suppress(NotFoundError):
            digest = hashlib.sha256(self._storage.read(entry.name)).hexdigest()
            made = self._now if TEMPORARY in entry.name else 1.0
            return replace(entry, version=digest, modified=made)
        return entry

    def _labelled(self, name: str) -> str:
        start, dot, wid = name.partition(".")
        return f"{start}{dot}{self._labels.get(wid, wid)}"

    def _folder(self, folder: str) -> str:
        if not folder:
            return "v"
        kind = "g" if folder.startswith(".ckptstore") else "s"
        return f"{kind}{int(folder[-8:])}"

    def _name(self, name: str) -> str:
        folder, _, file = name.rpartition("/")
        if file.startswith("removing."):
            return f"{self._folder(folder)}/R"
        own = _OWN.fullmatch(file)
        plain = _PLAIN.get(file) or (own and _PLAIN[own[1] + own[3]]) or file
        return f"{self._folder(folder)}/{plain}{'.' + own[2] if own else ''}"


def play(
    program: Program,
    world: World,
    at: int = -1,
    between: Callable[[World], World] = lambda w: w,
    lost: str = "",
) -> tuple[list[Step], World, str]:
    """Run a program of the model alone, with somebody in between; all as for `Recording`.

    Returns:
        Its operations as `Recording` has them, the world afterwards, and how it ended.
    """
    steps: list[Step] = []
    ended, answer = "", None
    try:
        op = program.send(None)
        while True:
            answer = None
            if op.kind == "end":
                ended = op.name
            elif op.kind == "bad":
                return steps, world, op.name
            elif op.kind != "claim":
                if op.kind in _COUNTED:
                    if len(steps) == at:
                        world = between(world)
                    steps.append(_recorded(op))
                once = op.kind in ("create", "swap") and op.name.endswith("/M")
                answer, world = _answer(world, op, lost if once else "")
                lost = "" if once else lost
            op = program.send(answer)
    except StopIteration:
        return steps, world, ended


def _answer(world: World, op: Op, lost: str) -> tuple[Any, World]:
    if lost:
        found = outcomes(world._replace(lost=1), op)
        answer, after = found[1 if lost == "done" else 2]
        return answer, after._replace(lost=0, flight=())
    return outcomes(world, op)[0]


def _recorded(op: Op) -> Step:
    if (op.kind, op.name) == ("folders", "s"):
        return ("list", "v")
    if op.kind == "held":
        return ("holding", op.name)
    if f"/{WORD}." in op.name:
        return (op.kind, op.name.partition(".")[0])
    return (op.kind, op.name, op.value) if op.kind == "copy" else (op.kind, op.name)


def files_of(storage: Storage, labels: dict[str, str]) -> dict[str, str]:
    """Return every file below a location by the model's name, and the write that made it."""
    found: dict[str, str] = {}
    for path, name in _names(storage, labels):
        data = storage.read(path)
        made = data.decode().rpartition(" ")[2].strip('"}')
        found[name] = _content(json.loads(data)) if path.endswith(MANIFEST) else made
        found[name] = PIN if path.endswith("pinned.json") else found[name]
    return found


def names_of(storage: Storage, labels: dict[str, str]) -> set[str]:
    """Return the model's names of every file below a location."""
    return {name for _, name in _names(storage, labels)}


def _names(storage: Storage, labels: dict[str, str]) -> Iterator[tuple[str, str]]:
    recording = Recording(storage, "memory", labels)
    generations = [f".ckptstore/{name}" for name in storage.list(".ckptstore").folders]
    steps = [name for name in storage.list("").folders if name.startswith("step-")]
    for folder in ("", *generations, *steps):
        for file in storage.list(folder).files:
            path = f"{folder}/{file}" if folder else file
            yield path, recording._labelled(recording._name(path))


def _content(manifest: dict[str, Any]) -> str:
    return str(json.loads(manifest["texts"]["config.json"]["text"])["content"])


def values_of(world: World) -> dict[str, str]:
    """Return the same of a world."""
    return {
        name: value.wid if isinstance(value, Manifest) else value for name, value in world.files
    }
