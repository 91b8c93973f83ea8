"""What one asks of a tier, and what one is told of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ckptstore.errors import CkptstoreError, UnsupportedError
from ckptstore.keep import Keep

__all__ = ["Tier", "Uploads"]

_UPLOADERS = ("auto", "thread", "none")


@dataclass(frozen=True)
class Tier:
    """Where a store's states are copied to, once they are committed on the local disk.

    Attributes:
        location: path or URL. Two runs never share one.
        keep: which steps of a history stay there; all by default. A single checkpoint has none.
        storage_options: what fsspec's filesystem takes there; never written anywhere.
        optimizer: False for copies for inference: model, config and tokenizer only.
        retry_after: seconds until what failed is tried again; doubled by every failure in a row.
        retry_at_most: seconds, the longest such pause.
        patience: seconds that `Store.close` waits for an upload that does not come forward; None:
            for ever. What is not done by then is done by the next start.
        uploader: ``auto``: a process of its own where there can be one, else a thread;
            ``thread``; ``none``: somebody runs ``ckptstore upload``.

    Raises:
        UnsupportedError: a time below 0, or an unknown uploader.
    """

    location: str | os.PathLike[str]
    keep: Keep | None = None
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    optimizer: bool = True
    retry_after: float = 1.0
    retry_at_most: float = 300.0
    patience: float | None = 600.0
    uploader: Literal["auto", "thread", "none"] = "auto"

    def __post_init__(self) -> None:
        for name in ("retry_after", "retry_at_most", "patience"):
            value = getattr(self, name)
            if value is None and name == "patience":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
                raise UnsupportedError(f"Tier({name}={value!r}) is not a time of 0 seconds or more")
        if self.keep is not None and not isinstance(self.keep, Keep):
            raise UnsupportedError(f"Tier(keep={self.keep!r}) is no ckptstore.Keep(...)")
        if self.uploader not in _UPLOADERS:
            raise UnsupportedError(
                f"Tier(uploader={self.uploader!r}) is none of {', '.join(map(repr, _UPLOADERS))}"
            )


@dataclass(frozen=True)
class Uploads:
    """How far the copies to a tier are.

    Attributes:
        location: of the tier, for people; None for a store without one.
        pending: how many saves wait to be copied, what is under way among them.
        under_way: what is being copied now, such as ``step 500``; None for nothing.
        done_bytes: how much of it.
        total_bytes: of how much.
        done: how many states were copied since the store was made.
        copied_bytes: how many bytes those took.
        last_error: what failed last; None once an upload has succeeded since.
        failed: whether that, or what became of a state before, needs somebody who mends it:
            other credentials, a bucket, a state that is not damaged.
    """

    location: str | None = None
    pending: int = 0
    under_way: str | None = None
    done_bytes: int = 0
    total_bytes: int = 0
    done: int = 0
    copied_bytes: int = 0
    last_error: CkptstoreError | None = None
    failed: bool = False
