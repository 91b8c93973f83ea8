"""The dictionary: what was tried and acknowledged at one location, and what was ever there.

Nothing here asks ckptstore. Manifests are read as JSON, weights as the zip files that they are.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Content", "Ledger", "Snapshot", "State", "canonical", "number_in"]

_MANIFEST = re.compile(r"(\.ckptstore/(\d+)|step-(\d+))/manifest\.json")


@dataclass(frozen=True)
class Content:
    """What one checkpoint holds: a number for each of its parts, and the text of its config."""

    config: str
    step: int | None
    model: float
    optimizer: float | None

    def __str__(self) -> str:
        return f"({self.config}, step {self.step}, model {self.model}, optimizer {self.optimizer})"


@dataclass(frozen=True)
class State:
    """A committed state as it lies there; `wrong` says what is not as its manifest says."""

    folder: str
    number: int
    wid: str
    content: Content | None
    wrong: str | None
    paths: tuple[str, ...]
    shown: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Snapshot:
    """What was committed from one moment on."""

    moment: int
    states: dict[str, State]

    @property
    def newest(self) -> State | None:
        """The newest generation, or where there is none the highest step."""
        if not self.states:
            return None
        generations = [state for state in self.states.values() if state.folder[0] == "."]
        return max(generations or self.states.values(), key=lambda state: state.number)


class Ledger:
    """What happened at one location.

    Attributes:
        files: what the storage holds, as of the last look.
        snapshots: what was committed, in order.
        tried: every content that somebody set out to save.
        refused: numbers of saves that were told to have failed: none may become the newest.
        acked: folder and write id of what was returned to somebody, in order.
        edits: the texts that a person wrote into config.json, and of which write they were an
            edit; None where somebody was at work at the same time.
        puts: the values that a person wrote into model.pt.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.snapshots = [Snapshot(0, {})]
        self.tried: set[Content] = set()
        self.refused: set[float] = set()
        self.acked: list[tuple[str, str]] = []
        self.edits: dict[str, str | None] = {}
        self.puts: set[float] = set()

    @property
    def now(self) -> Snapshot:
        """What is committed now."""
        return self.snapshots[-1]

    def since(self, moment: int) -> Iterator[Snapshot]:
        """Yield what was committed at any time from a moment until now, newest first."""
        for snapshot in reversed(self.snapshots):
            yield snapshot
            if snapshot.moment <= moment:
                return

    def look(self, files: dict[str, bytes], moment: int) -> bool:
        """Take what the storage holds now; return whether what is committed has changed."""
        self.files = files
        states = {}
        for name, data in files.items():
            found = _MANIFEST.fullmatch(name)
            if found:
                state = _state(found[1], int(found[2] or found[3]), data, files)
                states[found[1]] = state
        if states == self.now.states:
            return False
        self.snapshots.append(Snapshot(moment, states))
        return True

    def ever(self) -> Iterator[State]:
        """Yield every state that was ever committed."""
        for snapshot in self.snapshots:
            yield from snapshot.states.values()

    def possible(self, content: Content) -> bool:
        """Whether somebody tried to save this, or could have made it of what a person put there.

        What adopting makes is a state, with the edits and the weights that a person put into it.
        """
        if content in self.tried:
            return True
        return bool(self.puts or self.edits) and any(
            state.content is not None
            and self.edited(state, content.config)
            and content.model in {state.content.model, *self.puts}
            and replace(content, config=state.content.config, model=state.content.model)
            == state.content
            for state in self.ever()
        )

    def edited(self, state: State, config: str) -> bool:
        """Whether a config is a state's, or one that a person made of it."""
        if state.content is not None and config == state.content.config:
            return True
        return config in self.edits and self.edits[config] in (state.wid, None)


def canonical(value: Any) -> str:
    """Return a JSON value as text, always the same for equal ones."""
    return json.dumps(value, sort_keys=True)


@functools.lru_cache(maxsize=4096)
def number_in(data: bytes) -> float:
    """Return the number that the first tensor of a .pt file holds."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/data/0"))
        return float(struct.unpack("<f", archive.read(name)[:4])[0])


@functools.lru_cache(maxsize=4096)
def _parsed(data: bytes) -> Any:
    return json.loads(data)


def _state(folder: str, number: int, data: bytes, files: dict[str, bytes]) -> State:
    manifest = _parsed(data)
    texts, weights = manifest["texts"], manifest["files"]
    said = {plain: entry["path"] for plain, entry in (texts | weights).items()}
    wrong = None
    for entry in (*texts.values(), *weights.values()):
        held = files.get(f"{folder}/{entry['path']}")
        if held is None:
            wrong = f"{entry['path']} is not there"
        elif hashlib.sha256(held).hexdigest() != entry["sha256"]:
            wrong = f"{entry['path']} holds something else than was committed"
    if number not in (manifest["generation"], manifest["step"]):
        wrong = f"its manifest is that of {manifest['generation']}, step {manifest['step']}"
    content = None
    if wrong is None:
        values = {n: number_in(files[f"{folder}/{e['path']}"]) for n, e in weights.items()}
        config = json.loads(texts["config.json"]["text"]) if "config.json" in texts else None
        training = json.loads(texts["training_state.json"]["text"])
        content = Content(
            canonical(config), training["step"], values["model.pt"], values.get("optimizer.pt")
        )
        if training["step"] != manifest["step"] or ("optimizer_file" in training) != (
            "optimizer.pt" in values
        ):
            wrong = f"training_state.json says {training}, of {sorted(values)}, {manifest['step']}"
    return State(folder, number, manifest["write_id"], content, wrong, tuple(said.values()), said)
