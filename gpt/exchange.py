"""What goes from rank to rank, and what is said when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ckptstore.errors import CkptstoreError

__all__ = ["RankError", "RankLostError", "RankStopped", "gathered", "reaching"]

_MOST_BYTES = 4 * 2**20  # of what one rank gives to the others at once


class RankError(CkptstoreError):
    """The ranks of a run do not go together: they see other files, or were told other things."""


class RankLostError(RankError):
    """Another rank has ended, or cannot be reached."""


class RankStopped(Exception):  # noqa: N818, for it is no error
    """A rank ends, in order and before its time; what it said of that is all there is to say."""


def gathered(data: bytes) -> list[bytes]:
    """Return the bytes of every rank, in the order of the ranks.

    Args:
        data: of this rank; at most 4 MiB.

    Raises:
        RankError: it is more.
        RankLostError: another rank has ended.
    """
    import torch
    from torch import distributed

    if len(data) > _MOST_BYTES:
        raise RankError(
            f"rank {distributed.get_rank()} has {len(data):,} bytes to tell the other ranks, and "
            f"{_MOST_BYTES:,} are the most"
        )
    size = distributed.get_world_size()
    with reaching():
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(size)]
        distributed.all_gather(sizes, torch.tensor([len(data)]))
        most = max(int(each) for each in sizes)
        own = torch.frombuffer(bytearray(data.ljust(most, b"\0")), dtype=torch.uint8)
        found = [bytearray(most) for _ in range(size)]
        tensors = [torch.frombuffer(memory, dtype=torch.uint8) for memory in found]
        distributed.all_gather(tensors, own)
    return [bytes(memory[: int(each)]) for memory, each in zip(found, sizes, strict=True)]


@contextmanager
def reaching() -> Iterator[None]:
    """Make the failure of an exchange with other ranks a `RankLostError`."""
    from torch import distributed

    try:
        yield
    except (RuntimeError, distributed.DistError) as error:
        if not _is_of_exchange(error):
            raise
        raise RankLostError(
            "another rank of this run has ended, or cannot be reached "
            f"({_first_line(error)}); what was saved is whole: "
            "give the same command again to go on from there"
        ) from error


def _is_of_exchange(error: Exception) -> bool:
    """Return whether an error came out of an exchange between ranks."""
    from torch import distributed

    # gloo has no error of its own, and names itself in each.
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def _first_line(error: Exception) -> str:
    """Return what gloo says, without the places in its sources and its advice."""
    text = str(error).splitlines()[0] if str(error) else repr(error)
    text = text.partition("] ")[2] if text.startswith("[") else text
    return text.partition(". This is")[0]
