"""The processes of a run, as ``torchrun`` starts them: who writes, and what all agree on.

Rules:

1. Without ``WORLD_SIZE`` above 1 in the environment there is one process, torch.distributed is not
   imported, and every method does what it does for one.
2. Rank 0 alone prints and writes. What all have to agree on is compared before it is used.
3. Whatever is exchanged is JSON, or states that a weights-only load takes: nothing runs.
4. Every wait ends: when a rank goes its connections close, when all is still there is a time limit,
   and when the launcher goes its ranks go as well.
5. The reason why a run ended is said once, by a rank that knows it. A rank that only lost another
   one is silent where somebody has said why.
"""

from __future__ import annotations

import gc
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gpt.exchange import RankError, RankStopped, gathered, reaching
from gpt.launcher import LOOKS_EVERY, Launched, end_with_launcher

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TIMEOUT", "Ranks"]

TIMEOUT = 600.0
"""Seconds that a rank waits for the others, by default: longer than a save takes."""

_STORE_TIMEOUT = timedelta(seconds=60)
_ONE_SECOND = timedelta(seconds=1)


class Ranks:
    """The processes of this run; a context manager in which they are connected.

    Args:
        launched: where this process stands among them; alone by default.
        timeout: seconds that one waits for the others.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are.

    Raises:
        RankLostError: on entering: not all of them came.
    """

    def __init__(self, launched: Launched | None = None, *, timeout: float = TIMEOUT) -> None:
        self._launched = launched or Launched()
        self.rank = self._launched.rank
        self.size = self._launched.size
        self._timeout = timedelta(seconds=timeout)
        self._store: Any = None

    @classmethod
    def of_environment(cls, timeout: float = TIMEOUT) -> Ranks:
        """Return those that torchrun, or who sets the same variables, tells of; else one process.

        Args:
            timeout: seconds that one waits for the others.

        Raises:
            ValueError: a variable is absent, or no number that it can be.
        """
        return cls(Launched.of(os.environ), timeout=timeout)

    def __repr__(self) -> str:
        return f"<Ranks {self.rank} of {self.size}>"

    def __enter__(self) -> Ranks:
        if not self.many:
            return self
        end_with_launcher(self._launched)
        # What torch says of a connection that closes is pages long; why it did, we say.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        import torch
        from torch import distributed

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if gpus:
            torch.cuda.set_device(self._launched.local_rank % gpus)
        # What is agreed on goes over gloo, so that it waits for no GPU. NCCL wants a GPU a rank.
        own = gpus >= self._launched.local_size and distributed.is_nccl_available()
        with reaching():
            waits = _STORE_TIMEOUT if self._launched.by_torchrun else self._timeout
            self._store = next(distributed.rendezvous("env://", timeout=waits))[0]
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if own else "gloo",
                store=self._store,
                rank=self.rank,
                world_size=self.size,
                timeout=self._timeout,
            )
            # Connections are made at the first exchange: that all came is known after it.
            self.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.many:
            return
        from torch import distributed

        try:
            if kind is None:
                self.wait()  # So that nobody leaves before rank 0 has saved.
        finally:
            # What still refers to the connections keeps them, and would end them too late.
            gc.collect()
            distributed.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which prints and writes."""
        return self.rank == 0

    @property
    def many(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    # -- randomness ---------------------------------------------------------------------

    def seed(self, seed: int | None) -> None:
        """Seed torch alike on all ranks, so that what is made next is equal everywhere.

        Args:
            seed: what to seed with. None leaves one process as it is, and takes rank 0's for many.
        """
        import torch

        if self.many:
            seed = self.broadcast(torch.initial_seed() if seed is None else seed)
        if seed is not None:
            torch.manual_seed(seed)

    def part(self) -> None:
        """Seed torch differently on each rank, for dropout and the order of data.

        The seeds follow from the one of `seed`; rank 0 goes on as it was.
        """
        import torch

        if self.first:
            return
        text = f"{torch.initial_seed()} of rank {self.rank}".encode()
        torch.manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1)

    # -- exchanging ---------------------------------------------------------------------

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.many:
            import torch
            from torch import distributed

            with reaching():
                distributed.all_reduce(torch.zeros(1))  # NCCL would take a barrier

    def broadcast(self, value: Any) -> Any:
        """Return what rank 0 passes, a JSON value, on every rank."""
        return self.gathered(value if self.first else None)[0]

    def gathered(self, value: Any) -> list[Any]:
        """Return what each rank passes, JSON values in the order of the ranks, on every rank."""
        if not self.many:
            return [value]
        return [json.loads(data) for data in gathered(json.dumps(value).encode())]

    def gathered_states(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        """Return each rank's state, in the order of the ranks, on every rank.

        Args:
            state: tensors and plain data; at most 4 MiB.
        """
        import torch

        if not self.many:
            return [state]
        packed = io.BytesIO()
        torch.save(state, packed)
        return [
            torch.load(io.BytesIO(data), weights_only=True) for data in gathered(packed.getvalue())
        ]

    def check_same(self, facts: Mapping[str, Any], advice: str) -> None:
        """Make sure that the ranks were told the same; returns when all have asked.

        Args:
            facts: JSON values by what they are of, a word for people.
            advice: what to do where they differ.

        Raises:
            RankError: they differ; on every rank, with the same words.
        """
        all_facts = self.gathered(dict(facts))
        for name, value in all_facts[0].items():
            for rank, theirs in enumerate(all_facts):
                if theirs.get(name) != value:
                    raise RankError(
                        f"{name}: rank 0 has {_shown(value)}, rank {rank} has "
                        f"{_shown(theirs.get(name))}; {advice}"
                    )

    def ask(self, asked: bool) -> Callable[[], bool]:
        """Ask all ranks at once whether any of them wants something; it costs no waiting.

        Args:
            asked: whether this one does.

        Returns:
            What waits for the answer, which is the same on every rank.
        """
        if not self.many:
            return lambda: asked
        import torch
        from torch import distributed

        wanted = torch.tensor([int(asked)], dtype=torch.int32)
        with reaching():
            work = distributed.all_reduce(wanted, async_op=True)

        def answer() -> bool:
            with reaching():
                work.wait()
            return bool(wanted.item())

        return answer

    # -- training -----------------------------------------------------------------------

    def wrapped(self, model: nn.Module) -> nn.Module:
        """Return what to call in training: the model, or one that averages gradients over ranks.

        Ranks other than 0 get the weights of rank 0.
        """
        if not self.many:
            return model
        import torch

        from gpt.parallel import data_parallel

        # Wrapping and its one step to warm up must not be seen in what is random afterwards.
        devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        with self.reaching(), torch.random.fork_rng(devices=devices):
            return data_parallel(model)

    def reaching(self) -> AbstractContextManager[None]:
        """Return a context in which the failure of an exchange with others is a `RankLostError`."""
        return reaching() if self.many else nullcontext()

    # -- saying why ---------------------------------------------------------------------

    def may_say(self, line: str, *, lost: bool = False) -> bool:
        """Return whether this rank is the one to print a line that others may have as well.

        Args:
            line: a warning, or the reason why the run ends.
            lost: whether the reason is no more than that another rank is gone.
        """
        if not self.many or self._store is None:
            return self.first
        from torch import distributed

        try:
            if lost:
                return self._is_new("lost", 1) and not self._store.check(["failed"])
            if self.first:
                self._store.set(_key(line), b"")
                return True
            # Rank 0 says what all have; a moment lets it come first.
            self._store.wait([_key(line)], _ONE_SECOND)
        except distributed.DistStoreError:
            return self._is_new(_key(line), 1)
        except (RuntimeError, OSError):
            # The store is gone, and with it who could have said more. Where it went with this
            # rank's own launcher, that is the reason, and said elsewhere.
            if lost and self._launched.by_torchrun:
                time.sleep(4 * LOOKS_EVERY)
            return lost or self.first
        return False

    def failed(self) -> None:
        """Let the others know that this rank ends for a reason of its own, which it says."""
        if self._store is None:
            return
        try:
            self._store.set("failed", str(self.rank))
        except (RuntimeError, OSError):
            return  # The store went with its launcher, and who would ask it.

    def stop(self) -> None:
        """End this rank before its time and in order, and the others, who lose it, as well.

        Raises:
            RankStopped: where there are others.
        """
        if self._store is not None:
            self._store.set("stopped", str(self.rank))
            raise RankStopped

    @property
    def stopped(self) -> bool:
        """Whether a rank has ended in order, before its time."""
        try:
            return self._store is not None and self._store.check(["stopped"])
        except (RuntimeError, OSError):
            return False  # The store went with its launcher.

    # -- inside -------------------------------------------------------------------------

    def _is_new(self, key: str, count: int) -> bool:
        return self._store.add(f"{key} counted", count) == count


def _key(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)
