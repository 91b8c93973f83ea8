"""The library `sentencepiece`: imported when it is needed, and its errors as ours."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from ckptstore import CkptstoreError, UnsupportedError

__all__ = ["asked", "library"]

_T = TypeVar("_T")
_LONGEST = 300


def library() -> Any:
    """Return the module `sentencepiece`.

    Raises:
        UnsupportedError: it does not load here.
    """
    try:
        with warnings.catch_warnings():
            # Up to 0.2.1 Python warns of how its types were made; where warnings are errors the
            # process would end there.
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module("sentencepiece")
    except ImportError as error:
        raise UnsupportedError(
            "the tokenizer kind 'sentencepiece' needs sentencepiece, which does not load here "
            f"({error}); install it with: pip install sentencepiece"
        ) from error


def asked(call: Callable[[], _T], refuse: Callable[[str], Exception]) -> _T:
    """Call into the library; what it raises is raised as the error that `refuse` makes of it."""
    try:
        return call()
    except (CkptstoreError, MemoryError):
        raise
    except Exception as error:
        raise refuse(" ".join(str(error).split())[-_LONGEST:]) from error
