"""One history: who does what when at a location, each moment of it looked at and judged."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ckptstore import storage as storages
from ckptstore.commit import intact
from ckptstore.storage.base import Storage
from tests.stateful import promises
from tests.stateful.acts import Act, Numbered
from tests.stateful.ledger import Ledger, canonical, number_in
from tests.stateful.places import Place
from tests.stateful.processes import CHANGES, Late, Process, Stepped, current

__all__ = ["World", "new_world"]

_PUT = 1_000_000
_TICK = 0.012  # A disk dates files by a clock that ticks every few milliseconds.


class World:
    """A location, and all who are at work there.

    Attributes:
        place: the location.
        ledger: its dictionary.
        mirror: another location, into which it is copied, and its dictionary.
        history: whether it holds steps.
        live: who is at work, by name, with what.
        late: requests that may still land.
        fresh: the last edit, where nobody has saved since, and the write that it is an edit of.
        log: what happened, a line each.
        counts: how often what happened.
        moment: counts all that happens.
        spoiled: whether a writer that slept in its commit was killed in it.
    """

    def __init__(self, place: Place, mirror: Place, *, history: bool = False) -> None:
        self.place = place
        self.mirror = mirror
        self.history = history
        self.ledger = Ledger()
        self.copied = Ledger()
        self.acts = Numbered(place.url, self.ledger, (mirror.url, self.copied))
        self.live: dict[str, tuple[Process, Act]] = {}
        self.handles: dict[str, Any] = {}
        self.late: list[Late] = []
        self.fresh: tuple[str, str] | None = None
        self.makers: dict[str, Process | None] = {}
        self.log: list[str] = []
        self.counts: Counter[str] = Counter()
        self.moment = 0
        self.spoiled = False
        self._storages: list[Storage] = []  # What killed writers hold must outlive them.
        self._jumps: list[tuple[float, float]] = []
        self._ids = 0

    # -- what processes see ---------------------------------------------------------------

    def connect(self, location: Any, options: Any = None) -> Storage:
        """Return a location's storage, as the process that asks has it."""
        place = {self.place.url: self.place, self.mirror.url: self.mirror}[str(location)]
        process = current()
        if process is None:
            return place.storage
        found = Stepped(
            place.storage, process, looks_twice=place.looks_twice, aged=lambda at: at + self._at(at)
        )
        self._storages.append(found)
        return found

    def new_id(self, count: int = 32) -> str:
        """Return a new name, the same in every run of the same history."""
        self._ids += 1
        return f"{self._ids:0{2 * count}x}"

    def _at(self, moment: float) -> float:
        return sum(length for then, length in self._jumps if then <= moment)

    # -- what happens ---------------------------------------------------------------------

    def start(self, actor: str, act: Act) -> None:
        """Let an actor begin something."""
        self._says(f"{actor} {act.said}")
        self.counts[act.kind] += 1
        process = Process(actor, act.said, act.run, self.moment)
        process.alone = not self.live
        for other, _ in self.live.values():
            other.alone = False
        process.fresh = self.fresh
        if act.kind in ("save", "carry", "adopt", "restore"):
            self.fresh = None
        self.live[actor] = process, act
        process.start()
        self._ended(actor)

    def go(self, actor: str) -> None:
        """Let an actor do its next operation."""
        process, _ = self.live[actor]
        self._says(f"{actor}: {process.pending}")
        self._tell(actor, process.go)

    def finish(self, actor: str) -> None:
        """Let an actor end what it does."""
        while actor in self.live:
            self.go(actor)

    def kill(self, actor: str, *, after: bool) -> None:
        """Kill an actor before its next operation, or just after it."""
        process, _ = self.live[actor]
        self._says(f"{actor} is killed {'after' if after else 'before'} {process.pending}")
        self.counts["kills"] += 1
        self._tell(actor, lambda: process.kill(after=after))

    def lose(self, actor: str, how: str) -> None:
        """Lose the reply to an actor's next operation."""
        process, _ = self.live[actor]
        self._says(f"{actor}: {process.pending}, {how}, and the reply is lost")
        self.counts["lost replies"] += 1
        process.lost = process.lost or how != "repeated"

        def tell() -> None:
            late = process.lose(how)
            if late is not None:
                self.late.append(late)

        self._tell(actor, tell)

    def land(self, which: int) -> None:
        """Let a request land that was under way."""
        late = self.late.pop(which % len(self.late))
        self._says(f"what was under way lands: {late.said}")
        self.counts["late requests"] += 1
        self.fresh = None
        late.land()
        self._look(None, None)

    def sleep(self, hours: float) -> None:
        """Let time pass, for all."""
        self._says(f"{hours} hours pass")
        if self.place.kind == "local":
            time.sleep(_TICK)
        self._jumps.append((time.time(), hours * 3600))
        if self.place.kind == "local":
            time.sleep(_TICK)
        for process, _ in self.live.values():
            process.slept = True

    def edit(self) -> None:
        """Let a person change config.json in the view."""
        files = self.place.files()
        try:
            text = json.loads(files["config.json"])
        except (KeyError, ValueError):
            return
        number = len(self.ledger.edits) + 1
        text["edit"] = number
        said = canonical(text)
        quiet = not self.live and not self.late
        shown = self.shown()
        self.ledger.edits[said] = (shown or "nothing") if quiet else None
        self._says(f"a person edits config.json: {said}")
        self.counts["edits"] += 1
        self.place.put("config.json", json.dumps(text).encode())
        top = self.ledger.now.newest
        self.fresh = (said, shown) if quiet and top and shown == top.wid else None
        self._look(None, None)

    def put(self) -> None:
        """Let a person replace model.pt in the view."""
        if "model.pt" not in self.place.files():
            return
        value = float(_PUT + len(self.ledger.puts))
        data = io.BytesIO()
        torch.save({"w": torch.full((2,), value)}, data)
        self.ledger.puts.add(value)
        self._says(f"a person replaces model.pt by {value}")
        self.counts["puts"] += 1
        self.place.put("model.pt", data.getvalue())
        self._look(None, None)

    def shown(self) -> str | None:
        """Return the write whose manifest the view has."""
        return _write_of(self.place.files().get("manifest.json"))

    def is_put(self) -> bool:
        """Whether what a person put into the view is still there."""
        held = self.place.files().get("model.pt")
        return held is not None and number_in(held) in self.ledger.puts

    # -- looking --------------------------------------------------------------------------

    def _tell(self, actor: str, tell: Callable[[], None]) -> None:
        process, act = self.live[actor]
        operation = process.pending
        tell()
        if operation is not None and operation.name in CHANGES:
            self._look(process, act)
        self._ended(actor)

    def _look(self, process: Process | None, act: Act | None) -> None:
        self.moment += 1
        for ledger, place in ((self.ledger, self.place), (self.copied, self.mirror)):
            if ledger is self.copied and act is not None and act.kind != "sync":
                continue
            before = ledger.now
            if ledger.look(place.files(), self.moment):
                for state in ledger.now.states.values():
                    self.makers.setdefault(state.wid, process)
                promises.standing(self, ledger, before, act)

    def _ended(self, actor: str) -> None:
        process, act = self.live[actor]
        if not process.over:
            return
        self.moment += 1
        del self.live[actor]
        if process.killed:
            self.handles.pop(actor, None)
            return
        if process.error is None:
            self._says(f"{actor} is done: it {act.said}")
        else:
            self._says(f"{actor} is told: {type(process.error).__name__}: {process.error}")
        promises.judge(self, process, act)
        if act.kind == "open" and process.error is None:
            self.handles[actor] = process.result

    def _says(self, line: str) -> None:
        self.moment += 1
        self.counts["moments"] += 1
        self.log.append(line)

    def end(self) -> None:
        """Kill whoever is still at work, and remove everything."""
        for process, _ in [*self.live.values()]:
            with contextlib.suppress(TimeoutError):
                process.kill(after=False)
        self.live.clear()
        self._storages.clear()
        self.place.forget()
        self.mirror.forget()


def _write_of(manifest: bytes | None) -> str | None:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(manifest or b"")["write_id"])
    return None


@contextlib.contextmanager
def new_world(kind: str, root: str, *, history: bool = False) -> Iterator[World]:
    """Give a world in which nothing has happened yet; what connects meanwhile connects to it."""
    world = World(Place(kind, f"{root}/main"), Place(kind, f"{root}/mirror"), history=history)
    real = storages.connect, storages.locate, secrets.token_hex, intact._clocks

    def clocks() -> tuple[float, ...]:
        return tuple(clock + sum(length for _, length in world._jumps) for clock in real[3]())

    storages.connect = world.connect
    storages.locate = lambda *args: (world.connect(*args), None)
    secrets.token_hex = world.new_id
    intact._clocks = clocks
    try:
        yield world
    finally:
        world.end()
        storages.connect, storages.locate, secrets.token_hex, intact._clocks = real
