"""The library `tiktoken`: imported when it is needed, and its errors as ours."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from ckptstore import CkptstoreError, UnsupportedError

__all__ = ["asked", "library"]

_T = TypeVar("_T")
_LONGEST = 200


def library() -> Any:
    """Return the module `tiktoken`.

    Raises:
        UnsupportedError: it does not load here.
    """
    try:
        return importlib.import_module("tiktoken")
    except ImportError as error:
        raise UnsupportedError(
            f"the tokenizer kind 'tiktoken' needs tiktoken, which does not load here ({error}); "
            "install it with: pip install tiktoken"
        ) from error


def asked(call: Callable[[], _T], refuse: Callable[[str], Exception]) -> _T:
    """Call into the library; what it raises is raised as the error that `refuse` makes of it."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, MemoryError, CkptstoreError):
        raise
    except BaseException as error:
        # Where tiktoken's Rust code panics it raises something that is no Exception.
        raise refuse(" ".join(str(error).split())[:_LONGEST]) from error
