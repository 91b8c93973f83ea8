"""What a benchmark is made of: rows, their variants, and what is wanted of them.

Nothing here imports torch: the parent process, which only starts others and reads the clock's
results, stays small, so that it takes neither cores nor memory from what is measured.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

__all__ = ["Job", "LeftOut", "Row", "Timed", "Variant", "Wanted", "nowhere"]

MIB = 2**20
SMALL = 20 * MIB
"""Enough for uploads in parts to be what is warmed up."""


class LeftOut(Exception):  # noqa: N818  (nothing is wrong)
    """Raised by who prepares a row or a variant that cannot run here; says why."""


@dataclass(frozen=True)
class Job:
    """What one run of one variant is given, in its own process.

    Attributes:
        nbytes: how much to save or load, about.
        folder: on the disk that is measured; empty, nobody else's, and removed afterwards.
        place: what the row's place made ready: URLs, files.
        memory: the path of memory that holds the bytes of the state.
        small: whether this is the warm-up.
    """

    nbytes: int
    folder: Path
    place: Mapping[str, Any] = field(default_factory=dict)
    memory: str = ""
    small: bool = False

    def warm_up(self) -> Job:
        """Return the same job, small, in a folder of its own."""
        folder = self.folder / "small"
        folder.mkdir()
        return replace(self, nbytes=min(self.nbytes, SMALL), folder=folder, small=True)

    def files(self) -> dict[str, str]:
        """Return the paths of files to load, by kind, of this job's size."""
        found: dict[str, str] = self.place["small" if self.small else "files"]
        return found


@dataclass(frozen=True)
class Timed:
    """What is timed, and what is not.

    Attributes:
        call: timed. What it returns is kept until its memory was looked at; where it is a
            mapping, its numbers are results as well, and its ``seconds`` replace the clock's.
        before: called right before, untimed.
        after: called right after, untimed.
    """

    call: Callable[[], object]
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Wanted:
    """A bound that a figure is held against; missing it is printed, and no failure.

    Attributes:
        figure: ``time`` (as a ratio), ``speed`` (the inverse ratio), ``peak`` (bytes by the bytes
            of the tensors), or a number among the results, such as ``peak_mib`` or ``requests``.
        bound: at most this; for ``speed`` at least this.
        against: the variant that a ratio is to; the row's limit by default.
    """

    figure: str
    bound: float
    against: str | None = None


@dataclass(frozen=True)
class Variant:
    """One way to do the work of a row.

    Attributes:
        name: for people.
        prepare: called in the variant's own process; returns what is timed, or raises `LeftOut`.
        ours: whether it is ckptstore's.
        wanted: bounds.
        needs: modules, as they are imported, by the names under which they are installed.
        memory: how much to touch and free beforehand, by the size of the job.
        quick: whether it runs in the quick mode, too.
    """

    name: str
    prepare: Callable[[Job], Timed]
    ours: bool = False
    wanted: tuple[Wanted, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)
    memory: float = 1.25
    quick: bool = True

    def missing(self) -> str | None:
        """Return why it cannot run here, as far as installed packages go."""
        for module, package in self.needs.items():
            if importlib.util.find_spec(module) is None:
                return f"{package} is not installed"
        return None


@contextlib.contextmanager
def nowhere(job: Job) -> Iterator[dict[str, Any]]:
    """Make nothing ready."""
    yield {}


@dataclass(frozen=True)
class Row:
    """A piece of work, done in several ways.

    Attributes:
        name: for the command line.
        title: for people.
        variants: the limit first, where there is one.
        mib: how much, in the full run.
        has_limit: whether the first variant is what the others are compared with.
        place: makes ready what all variants and rounds need; what it gives is the jobs' ``place``.
        warm: whether each process does the same in small before.
        state: whether the variants save a state.
        written: by how much of the job's size the page cache grows, which is touched beforehand.
        weight: its share of the time that there is.
        quick: whether it runs in the quick mode, too.
    """

    name: str
    title: str
    variants: tuple[Variant, ...]
    mib: int = 1536
    has_limit: bool = True
    place: Callable[[Job], AbstractContextManager[dict[str, Any]]] = nowhere
    warm: bool = True
    state: bool = True
    written: float = 0.0
    weight: float = 1.0
    quick: bool = True

    @property
    def limit(self) -> str | None:
        """The name of the variant that is the limit."""
        return self.variants[0].name if self.has_limit else None

    def variant(self, name: str) -> Variant:
        """Return the variant of a name."""
        return next(variant for variant in self.variants if variant.name == name)
