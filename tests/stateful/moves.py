"""The choices of a history as data, so that hypothesis can make it shorter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.stateful import rest
from tests.stateful.acts import Act
from tests.stateful.processes import LOSABLE
from tests.stateful.promises import broken
from tests.stateful.world import World

__all__ = ["QUICK", "History", "histories", "play", "single_checkpoints"]

# The same histories every time; `python -m tests.stateful` looks for others.
QUICK = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[*HealthCheck],
)
WRITERS = ("A", "B")
_STOPS = (
    *(("create", end) for end in ("", "manifest.json")),
    *(("replace", end) for end in ("", "manifest.json")),
    *(("delete", end) for end in ("", "manifest.json")),
    *(("read", end) for end in ("", "manifest.json")),
    *((name, "") for name in ("copy", "holding", "list", "entry", "open", "swap", "finish")),
)


@dataclass(frozen=True)
class Go:
    """An actor begins something, if it is idle, and does some operations.

    Attributes:
        actor: who.
        act: what it begins.
        count: how many operations; 0 for as many as it takes.
        stop: an operation's name and the end of its path, before which it stops earlier.
        past: whether it does that operation too.
    """

    actor: str
    act: tuple[Any, ...]
    count: int = 0
    stop: tuple[str, str] | None = None
    past: bool = False


@dataclass(frozen=True)
class Kill:
    """One of those at work is killed."""

    number: int
    after: bool


@dataclass(frozen=True)
class Lose:
    """The reply to the next request of one at work that changes something is lost."""

    number: int
    how: str


@dataclass(frozen=True)
class Happens:
    """Something that concerns nobody alone: ``land``, ``sleep``, ``edit`` or ``put``."""

    what: str
    number: int = 0


@dataclass(frozen=True)
class History:
    """A whole history.

    Attributes:
        moves: what happens.
        begins: whether something is saved before.
        landing: whether what is under way at the end lands, or is lost for good.
        ends_with: ``save`` or ``doctor``, undisturbed.
        keep: in a history of steps, how many stay; None for all.
    """

    moves: tuple[Any, ...]
    begins: bool = True
    landing: bool = False
    ends_with: str = "save"
    keep: int | None = None


def _goes(actors: tuple[str, ...], acts: Any) -> Any:
    stops = st.sampled_from(_STOPS)
    return st.one_of(
        st.builds(Go, st.sampled_from(actors), acts, st.integers(1, 12)),
        st.builds(Go, st.sampled_from(actors), acts, st.just(0), stops, st.booleans()),
        st.builds(Go, st.sampled_from(actors), acts, st.just(0), stops, st.booleans()),
        st.builds(Go, st.sampled_from(actors), acts),
    )


def _acts(*weighted: tuple[int, tuple[Any, ...]]) -> Any:
    return st.sampled_from([act for weight, act in weighted for _ in range(weight)])


def _moves(writers: tuple[str, ...], writes: Any, reads: Any, mends: Any, others: Any) -> Any:
    number = st.integers(0, 3)
    writing = _goes(writers, writes)
    return st.one_of(
        writing,
        writing,
        writing,
        _goes(("R",), reads),
        _goes(("R",), reads),
        _goes(("D",), mends),
        st.builds(Kill, number, st.booleans()),
        st.builds(Kill, number, st.booleans()),
        st.builds(Lose, number, others[0]),
        st.builds(Happens, others[1], number),
    )


def _several(moves: Any) -> Any:
    """Return strategies of many moves; hypothesis's own lists are short, and these shrink too."""
    some = st.lists(moves, max_size=12)
    return st.tuples(some, some, some).map(lambda parts: tuple(m for part in parts for m in part))


def single_checkpoints(writers: int = 2) -> st.SearchStrategy[History]:
    """Return histories of a single checkpoint."""
    writes = _acts((4, ("save", False)), (2, ("save", True)), (2, ("carry",)))
    reads = _acts((4, ("open",)), (2, ("again",)), (1, ("sync",)))
    mends = _acts((3, ("doctor",)), (2, ("sweep",)), (2, ("adopt",)), (1, ("restore",)))
    lost = st.sampled_from(("done", "not done", "late", "repeated"))
    happens = _acts((3, "land"), (3, "edit"), (1, "put"), (1, "sleep"))  # type: ignore[arg-type]
    moves = _moves(WRITERS[:writers], writes, reads, mends, (lost, happens))
    return st.builds(
        History,
        _several(moves),
        st.sampled_from((True, True, True, False)),
        st.booleans(),
        st.sampled_from(("save", "doctor")),
    )


def histories(writers: int = 2) -> st.SearchStrategy[History]:
    """Return histories of steps."""
    writes = _acts(
        (4, ("step", 1, False)),
        (1, ("step", 2, False)),
        (2, ("step", 0, False)),
        (2, ("step", 0, True)),
        (1, ("step", -1, True)),
        (1, ("equal",)),
        (1, ("rewind",)),
    )
    reads = _acts((4, ("open",)), (2, ("open", 0)), (1, ("open", 1)), (2, ("again",)))
    lost = st.sampled_from(("done", "not done", "late"))
    happens = _acts((3, "land"), (1, "sleep"))  # type: ignore[arg-type]
    moves = _moves(WRITERS[:writers], writes, reads, _acts((1, ("doctor",))), (lost, happens))
    return st.builds(
        History,
        _several(moves),
        st.sampled_from((True, True, True, False)),
        st.booleans(),
        st.just("doctor"),
        st.sampled_from((None, None, 1, 2)),
    )


# -- playing them -----------------------------------------------------------------------


def play(world: World, history: History) -> None:
    """Let a history happen, and check all that has to hold.

    Raises:
        BrokenPromiseError: something does not.
    """
    if history.begins:
        first = world.acts.save(optimizer=True)
        if world.history:
            first = world.acts.save_step(1, again=None, overwrite=False, keep=history.keep)
        _alone(world, first)
    for move in history.moves:
        _play(world, move, history)
        if world.spoiled:
            return
    for actor in [*world.live]:
        world.finish(actor)
    while world.late and history.landing and not world.spoiled:
        world.land(0)
    if not world.spoiled:
        _come_to_rest(world, history)


def _play(world: World, move: Any, history: History) -> None:
    if isinstance(move, Happens):
        _happen(world, move)
    elif isinstance(move, Go):
        _go(world, move, history)
    elif world.live:
        actor = sorted(world.live)[move.number % len(world.live)]
        if isinstance(move, Kill):
            world.kill(actor, after=move.after)
        else:
            _lose(world, actor, move.how)


def _lose(world: World, actor: str, how: str) -> None:
    """Lose the next reply that can be lost."""
    while actor in world.live:
        pending = world.live[actor][0].pending
        # A step is known by its number, and what lands late under it is another's by then.
        risky = world.history and how == "late" and pending.name not in ("create", "swap")
        if pending.name in LOSABLE and not risky:
            world.lose(actor, how)
            return
        world.go(actor)


def _happen(world: World, move: Happens) -> None:
    if move.what == "land" and world.late:
        world.land(move.number)
    elif move.what == "sleep":
        world.sleep((1, 13, 25, 26)[move.number])
    elif move.what == "edit":
        world.edit()
    elif move.what == "put":
        world.put()


def _go(world: World, move: Go, history: History) -> None:
    if move.actor not in world.live:
        act = _act(world, move.actor, move.act, history)
        if act is None:
            return
        world.start(move.actor, act)
    done = 0
    while move.actor in world.live:
        pending = world.live[move.actor][0].pending
        if move.stop and pending.name == move.stop[0] and pending.path.endswith(move.stop[1]):
            if move.past:
                world.go(move.actor)
            return
        world.go(move.actor)
        done += 1
        if done == move.count:
            return


def _act(world: World, actor: str, act: tuple[Any, ...], history: History) -> Act | None:
    kind, *rest = act
    if kind == "save":
        return world.acts.save(optimizer=rest[0])
    if kind == "again":
        handle = world.handles.get(actor)
        return world.acts.again(*handle) if handle else world.acts.open()
    if kind == "open":
        return world.acts.open(*(_known_step(world, back) for back in rest))
    if kind in ("step", "equal", "rewind"):
        return _step(world, act, history)
    if kind == "adopt":
        return world.acts.repair(adopt=True)
    if kind == "restore" or (kind == "sweep" and world.is_put()):
        return world.acts.repair(restore=True)
    if kind == "doctor":
        return world.acts.repair()
    plain = {"carry": world.acts.carry, "sweep": world.acts.sweep, "sync": world.acts.sync}
    return plain[kind]()


def _known_step(world: World, back: int) -> int:
    steps = sorted(state.number for state in world.ledger.now.states.values())
    return steps[max(-len(steps), -1 - back)] if steps else 1


def _step(world: World, act: tuple[Any, ...], history: History) -> Act | None:
    """Return a writer's act in a history.

    One that goes back to lower numbers while others remove them is a known limit of numbers.
    """
    tried = [content.step for content in world.ledger.tried if content.step is not None]
    top = max([state.number for state in world.ledger.now.states.values()] or [0])
    removing = any(a.kind == "rewind" for _, a in world.live.values())
    lowers = any(a.kind in ("save", "rewind") for _, a in world.live.values())
    if act[0] == "rewind":
        alone = top and not lowers and not history.keep
        return world.acts.rewind(_known_step(world, 1)) if alone else None
    fresh = max([top, *tried], default=0) + 1
    if act[0] == "equal":
        known = [s for s in world.ledger.now.states.values() if s.content is not None]
        if removing or not known:
            return None
        last = max(known, key=lambda state: state.number)
        again = last.content.model if last.content else None
        return world.acts.save_step(last.number, again=again, overwrite=False, keep=history.keep)
    step = fresh + act[1] - 1 if act[1] > 0 else top + act[1]
    if step < 1 or (act[1] <= 0 and removing) or (act[1] < 0 and history.keep):
        step = fresh
    return world.acts.save_step(step, again=None, overwrite=act[2], keep=history.keep)


def _come_to_rest(world: World, history: History) -> None:
    world.late.clear()
    if world.is_put():
        _alone(world, world.acts.repair(restore=True))
    if world.ledger.now.newest is None and (world.history or history.ends_with == "doctor"):
        return
    if world.history:
        _alone(world, world.acts.repair())
    elif history.ends_with == "save":
        _alone(world, world.acts.save(optimizer=False))
    else:
        _alone(world, world.acts.repair())
    rest.at_rest(world, saved=history.ends_with == "save")
    world.sleep(26)
    _alone(world, world.acts.repair())
    rest.at_rest(world, saved=False)
    rest.tidy(world)
    left = _alone(world, world.acts.repair())
    if left:
        raise broken(world, f"doctor is not done when it is done: {left}")
    _alone(world, world.acts.open())


def _alone(world: World, act: Act) -> Any:
    """Let somebody do something undisturbed; it has to succeed."""
    world.start("last", act)
    process = world.live["last"][0] if "last" in world.live else None
    world.finish("last")
    if process is None or process.error is not None:
        raise broken(world, f"all is at rest, and one who {act.said} fails")
    return process.result
