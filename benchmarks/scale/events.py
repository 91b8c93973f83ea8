"""Many processes and one service: a simulation of events, where requests wait for each other.

1. A prefix has a bucket of tokens for writes and one for reads, filled at the documented rates. A
   request that finds none is answered 503 SlowDown at once, and sent again after the pause that
   ckptstore makes: 0.2 s doubled up to 4 s, half of it random, for 300 s, then the save fails.
2. A request takes the latency, and the time that its bytes need on their connection. Connections
   of a process share what the process can move.
3. Some processes are slower than others, by a factor drawn from a log-normal distribution; a
   checkpoint is there when the last of them is done.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.scale.engine import Engine, Plan
from benchmarks.scale.limits import S3

__all__ = ["Outcome", "computed", "simulate"]

_WRITES = frozenset({"PUT", "POST", "COPY", "DELETE"})


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        seconds: until the last process was done or had failed.
        median: seconds until half of them were.
        slow_downs: answers of 503.
        failed: processes that gave up.
    """

    seconds: float = 0.0
    median: float = 0.0
    slow_downs: int = 0
    failed: int = 0


class _Bucket:
    """Tokens of one prefix and kind."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._most = self._tokens = rate * burst
        self._since = 0.0

    def take(self, now: float) -> bool:
        self._tokens = min(self._most, self._tokens + (now - self._since) * self._rate)
        self._since = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def simulate(
    plan: Plan,
    ranks: int,
    *,
    s3: S3,
    engine: Engine,
    rate: float,
    prefixes: int = 1,
    spread: float = 0.1,
    random_pauses: bool = True,
    seed: int = 1,
) -> Outcome:
    """Let processes do the same at once.

    Args:
        plan: the requests of each.
        ranks: how many processes.
        s3: the service.
        engine: how they ask.
        rate: bytes a second that a process can move, all connections together.
        prefixes: partitioned prefixes that they are spread over.
        spread: sigma of the processes' slowness.
        random_pauses: whether half of each pause is random, as it is.
        seed: of all that is random.
    """
    chance = random.Random(seed)
    sending = plan.kind in _WRITES
    connections = engine.senders if sending else engine.readers
    first = engine.first_senders if sending else engine.first_readers
    fast = engine.fast_sender if sending else engine.fast_reader
    writes = [_Bucket(s3.writes, s3.slow_down) for _ in range(prefixes)]
    reads = [_Bucket(s3.reads, s3.slow_down) for _ in range(prefixes)]
    outcome = Outcome()
    ends: list[float] = []
    events: list[tuple[float, int, Callable[[float], None]]] = []
    order = iter(range(2**62))

    def at(when: float, what: Callable[[float], None]) -> None:
        heapq.heappush(events, (when, next(order), what))

    class Rank:
        def __init__(self, number: int) -> None:
            self.slowness = chance.lognormvariate(0, spread) if ranks > 1 else 1.0
            self.prefix = number % prefixes
            self.stage = 0
            self.queue = iter(plan.before)
            self.left = len(plan.parts)
            self.busy = 0
            self.most = min(first, connections)
            self.done = False

        def go(self, now: float) -> None:
            if self.stage == 1:
                self.more(now)
                return
            kind = next(self.queue, None)
            if kind is not None:
                self.ask(now, kind, 0, self.go)
            elif self.stage == 0 and plan.parts:
                self.stage = 1
                self.go(now)
            else:
                self.end(now)

        def more(self, now: float) -> None:
            while self.busy < self.most and self.left:
                self.busy += 1
                self.part(now)

        def sent(self, now: float) -> None:
            """Go on after a part; where a connection is slow, with more of them."""
            if self.most < connections and s3.connection < fast:
                self.most = min(self.most * 2, connections)
                self.more(now)
            self.part(now)

        def part(self, now: float) -> None:
            if self.left:
                self.left -= 1
                size = plan.parts[self.left]
                self.ask(now, plan.kind, size, self.sent)
                return
            self.busy -= 1
            if not self.busy and not self.done:
                self.stage, self.queue = 2, iter(plan.after)
                self.go(now)

        def end(self, now: float) -> None:
            if not self.done:
                self.done = True
                ends.append(now)

        def ask(self, began: float, kind: str, size: int, then: Callable[[float], None]) -> None:
            bucket = (writes if kind in _WRITES else reads)[self.prefix]
            carry = min(s3.connection, rate / max(self.busy, 1))
            attempt = 0

            def send(now: float) -> None:
                nonlocal attempt
                if self.done:
                    return
                if bucket.take(now):
                    at(now + (s3.latency + size / carry) * self.slowness, then)
                    return
                attempt += 1
                outcome.slow_downs += 1
                pause = min(engine.first_pause * 2 ** min(attempt - 1, 9), engine.longest_pause)
                pause *= chance.uniform(0.5, 1) if random_pauses else 1
                if attempt >= engine.attempts or now + pause > began + engine.patience:
                    outcome.failed += 1
                    self.end(now)
                else:
                    at(now + pause, send)

            send(began)

    for number in range(ranks):
        at(0.0, Rank(number).go)
    while events:
        when, _, what = heapq.heappop(events)
        what(when)
    ends.sort()
    outcome.seconds, outcome.median = ends[-1], ends[len(ends) // 2]
    return outcome


def computed(
    plan: Plan,
    ranks: int,
    *,
    s3: S3,
    engine: Engine,
    rate: float,
    spread: float = 0.1,
    seed: int = 1,
) -> Outcome | None:
    """Return what `simulate` would, by a formula, or None where requests wait for each other.

    Args: those of `simulate`, below one prefix.
    """
    sending = plan.kind in _WRITES
    at_once = min(engine.senders if sending else engine.readers, len(plan.parts))
    carry = min(s3.connection, rate / at_once)
    largest = max(plan.parts)
    asked = ranks * at_once / (s3.latency + largest / carry)
    limit = s3.writes if sending else s3.reads
    if asked > limit / 2 or ranks * 2 > limit * s3.slow_down:
        return None
    chance = random.Random(seed)
    slow = sorted(chance.lognormvariate(0, spread) for _ in range(ranks)) if ranks > 1 else [1.0]
    seconds = (len(plan.before) + len(plan.after)) * s3.latency
    seconds += max(
        -(-len(plan.parts) // at_once) * s3.latency + sum(plan.parts) / at_once / carry,
        s3.latency + largest / carry,
    )
    return Outcome(seconds * slow[-1], seconds * slow[len(slow) // 2])
