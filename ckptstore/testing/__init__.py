"""Test kits for the authors of plugins; they need pytest.

Subclass `TokenizerTests` or `FormatTests`, say which class is to be tested, and pytest runs every
promise of the base class against it (see `docs/plugins.md`). With `inject` every storage fails
where it is told to: ``with inject(Crash(at=7)): ckptstore.save(...)``. `PowerLoss` shows what a
loss of power may leave of a local disk.
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "ckptstore.testing needs pytest, which is not installed; run: pip install pytest",
        name="pytest",
    ) from error

# Without this a failing assertion of the kits would not say what it compared. It has to come
# before the modules are imported.
pytest.register_assert_rewrite(
    *(
        f"ckptstore.testing.{name}"
        for name in (
            *("comparing", "formats", "hostile", "later", "reading"),
            *("storing", "tokenizers", "using"),
        )
    )
)

from ckptstore.testing.comparing import example_contents  # noqa: E402
from ckptstore.testing.faults import (  # noqa: E402
    ANSWERS,
    Crash,
    Lose,
    Nothing,
    Refuse,
    Short,
    Tear,
    asked,
    changes,
)
from ckptstore.testing.formats import FormatTests  # noqa: E402
from ckptstore.testing.injection import (  # noqa: E402
    Fault,
    FaultyStorage,
    Killed,
    Operation,
    Seen,
    inject,
)
from ckptstore.testing.memory import MemoryFiles, MemoryNewFiles  # noqa: E402
from ckptstore.testing.power import PowerLoss, Remains  # noqa: E402
from ckptstore.testing.proxy import S3Proxy  # noqa: E402
from ckptstore.testing.tokenizers import TokenizerTests  # noqa: E402

__all__ = [
    "ANSWERS",
    "Crash",
    "Fault",
    "FaultyStorage",
    "FormatTests",
    "Killed",
    "Lose",
    "MemoryFiles",
    "MemoryNewFiles",
    "Nothing",
    "Operation",
    "PowerLoss",
    "Refuse",
    "Remains",
    "S3Proxy",
    "Seen",
    "Short",
    "Tear",
    "TokenizerTests",
    "asked",
    "changes",
    "example_contents",
    "inject",
]
