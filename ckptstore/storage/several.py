"""Several files of a storage: what is done for each, at once or one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ckptstore.errors import CkptstoreError
from ckptstore.storage.base import Storage

__all__ = ["delete_or_leave", "each"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_R = TypeVar("_R")


def each(call: Callable[[_T], _R], items: Sequence[_T], at_once: int) -> Generator[_R, None, None]:
    """Call something for each item; yield what it returns, in the items' order.

    Close it when it is left early: what has not begun by then does not begin any more.

    Args:
        call: is called by threads, where several are done at once.
        items: any number.
        at_once: how many, at most; see `Storage.at_once`.
    """
    at_once = min(at_once, len(items))
    if at_once < 2:
        yield from map(call, items)
        return
    pool = ThreadPoolExecutor(at_once, "ckptstore-each")
    try:
        yield from pool.map(call, items)
    finally:
        pool.shutdown(cancel_futures=True)


def delete_or_leave(storage: Storage, paths: Iterable[str]) -> None:
    """Delete files that nothing refers to; one that cannot be is left behind, and logged."""
    for path in paths:
        try:
            storage.delete(path)
        except CkptstoreError as error:
            log.warning("left behind: %s in %s (%s)", path, storage.location, error)
