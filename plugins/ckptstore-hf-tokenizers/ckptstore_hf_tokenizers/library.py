"""The library `tokenizers`: imported when it is needed, and its errors as ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ckptstore import UnsupportedError

__all__ = ["asked", "library", "one_thread"]

_T = TypeVar("_T")
_PARALLELISM = "TOKENIZERS_PARALLELISM"


def library() -> Any:
    """Return the module `tokenizers`.

    Raises:
        UnsupportedError: it does not load here.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise UnsupportedError(
            f"the tokenizer kind 'hf-tokenizers' needs tokenizers, which does not load here "
            f"({error}); install it with: pip install tokenizers"
        ) from error
    return tokenizers


def asked(call: Callable[[], _T], refuse: Callable[[str], Exception]) -> _T:
    """Call into the library; what it raises is raised as the error that `refuse` makes of it."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        # The library raises a bare Exception, and where its Rust code panics something that is
        # no Exception at all.
        raise refuse(" ".join(str(error).split())) from error


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep the library to one thread, unless TOKENIZERS_PARALLELISM says what is wanted.

    Once it has used several it warns in every process that is forked later, such as the workers
    of a data loader.
    """
    if _PARALLELISM in os.environ:
        yield
        return
    os.environ[_PARALLELISM] = "false"
    try:
        yield
    finally:
        os.environ.pop(_PARALLELISM, None)
