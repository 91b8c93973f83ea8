"""What an examination of a location finds: what, where, what it means, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: what it is about: ``view``, ``leftover``, ``upload``, ``unclear``, ``damaged``; or of
            the storage ``write``, ``read``, ``delete``, ``conditions``, ``clock``, ``slow``.
        said: what was found, or done, and where.
        means: what follows from it; empty where ``said`` has it.
        todo: what to do; empty where ``said`` has it, or where nothing is.
        status: ``mended``; ``mendable`` where it would be with ``--fix``; ``open`` where a person
            has to do something; ``note`` where nobody has to.
    """

    kind: str
    said: str
    means: str = ""
    todo: str = ""
    status: Literal["mended", "mendable", "open", "note"] = "note"

    @property
    def remains(self) -> bool:
        """Whether something is still to be done."""
        return self.status in ("mendable", "open")

    @property
    def line(self) -> str:
        """All of it as one line."""
        rest = "; ".join(part for part in (self.means, self.todo) if part)
        return f"{self.said}: {rest}" if rest else self.said
