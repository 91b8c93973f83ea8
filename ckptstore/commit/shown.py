"""The view of one generation as it lies there: to prove it, and to find what has to be put back.

The view is never the truth, so what is wrong in it is no damage of the generation. And only a
view whose manifest is the generation's can be damaged: one that is behind is completed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ckptstore.commit.files import CommittedFiles, digest_of, read_text
from ckptstore.commit.layout import Committed, newest_generation, read_manifest
from ckptstore.commit.view import as_shown
from ckptstore.digests import sha256_of
from ckptstore.errors import (
    CkptstoreError,
    CorruptionError,
    NotFoundError,
    UnsafeError,
    UnsupportedError,
)
from ckptstore.manifest import MANIFEST
from ckptstore.storage.base import Storage
from ckptstore.texts import parse_json

__all__ = ["BEHIND", "DAMAGED", "OK", "Finding", "Shown", "rotten"]

OK, BEHIND, DAMAGED = "ok", "behind", "damaged"


@dataclass(frozen=True)
class Finding:
    """What was found of one file of a view.

    Attributes:
        status: ``ok``, ``behind`` (a refresh is still to come) or ``damaged``.
        detail: a sentence for people.
    """

    status: str
    detail: str = ""


class Shown(CommittedFiles):
    """The view of a generation; every byte is proved by the generation's own manifest.

    Args:
        storage: where.
        state: the generation.
    """

    def __init__(self, storage: Storage, state: Committed) -> None:
        super().__init__(storage, Committed("", as_shown(state.manifest)), edits={})
        self._generation = state
        self._small = False
        self._ours = self._look_at_manifest()

    def is_newest(self) -> bool:
        """Whether the generation is still the newest; otherwise the view is another's by now."""
        top = newest_generation(self.storage)
        return top is not None and top.manifest.write_id == self.manifest.write_id

    def look_at_manifest(self) -> Finding:
        """Say whose manifest the view has."""
        return self._ours

    def copies(self) -> list[str]:
        """Return the files of bytes to be read: none of a view that waits for its refresh.

        What is a hard link to the generation's own file is proved with the generation.
        """
        if self._ours.status == BEHIND:
            return []
        return [name for name in self.manifest.files if not self._is_shared(name)]

    def look_at_bytes(self, name: str, prove: Callable[[], str]) -> Finding:
        """Say what a file of bytes is.

        Args:
            name: which.
            prove: reads it by `open`, raises what `open` raises, and returns a sentence.
        """
        try:
            return Finding(OK, prove())
        except NotFoundError:
            if self._small:
                return Finding(BEHIND, "a small view has no weights")
            return self._absence()
        except CorruptionError as error:
            try:
                found = digest_of(self.storage, name)
            except (CorruptionError, NotFoundError):
                found = ""  # It is being replaced at this moment, or cannot be read to its end.
            return self._behind(name, found) or Finding(DAMAGED, str(error))

    def look_at_text(self, name: str) -> Finding:
        """Say what a JSON file is: the generation's, a forerunner's, a person's, or damaged."""
        saved = self.manifest.texts.get(name)
        where = f"{name} in the view of {self.location}"
        try:
            text = read_text(self.storage, name)
            if saved is not None and text == saved.text:
                return Finding(OK)
            behind = self._behind(name, sha256_of(text))
            if behind is None:
                parse_json(text, where)
        except NotFoundError:
            return self._absence()
        except CorruptionError as error:
            return Finding(DAMAGED, str(self.fault(name, str(error))))
        if behind is None and self._ours.status == DAMAGED:
            found = f"it differs, and whether by hand the view's {MANIFEST} cannot say"
            return Finding(DAMAGED, str(self.fault(name, found)))
        return behind or Finding(OK, "edited by hand since it was saved")

    def fault(self, name: str, found: str) -> CkptstoreError:
        """Return the error for a file of the view that is not what it should be."""
        where = f"{name} in the view of {self.location}"
        return CorruptionError(f"{where} is damaged: {found}; {self._cure()}")

    def _is_shared(self, name: str) -> bool:
        if self.storage.content_versions:
            return False
        own = self._generation.path(self._generation.manifest.files[name].path)
        there, source = self.storage.entry(name), self.storage.entry(own)
        return (
            there is not None
            and source is not None
            and there.version is not None
            and there.version == source.version
        )

    def _look_at_manifest(self) -> Finding:
        mine = self._generation.manifest
        found = ""
        try:
            view = read_manifest(self.storage, "")
        except (CorruptionError, UnsafeError, UnsupportedError) as error:
            return Finding(DAMAGED, f"{error}; {self._cure()}")
        if view is None or (view.generation or 0) < (mine.generation or 0):
            return Finding(BEHIND, f"does not show {mine.called} yet; {self._fix()}")
        if view.write_id != mine.write_id:
            found = f"it is of the write {view.write_id}, {mine.called} is of {mine.write_id}"
        elif replace(view, shown={}) != as_shown(replace(mine, shown={})):
            found = f"it says something else than that of {mine.called}"
        self._small = bool(view.shown) and not {*view.shown} & {*view.files}
        return Finding(DAMAGED, str(self.fault(MANIFEST, found))) if found else Finding(OK)

    def _behind(self, name: str, sha256: str) -> Finding | None:
        """Return that a file waits for a refresh, where it does; its bytes are not ours."""
        if self._ours.status == BEHIND or sha256 in self.manifest.earlier.get(name, ()):
            called = self._generation.manifest.called
            return Finding(BEHIND, f"not that of {called}; {self._fix()}")
        return None

    def _absence(self) -> Finding:
        return Finding(BEHIND, f"not there; {self._fix()}")

    def _absent(self, name: str) -> CkptstoreError:
        return NotFoundError(f"no {name} in the view of {self.location}")

    def _fix(self) -> str:
        return f"ckptstore doctor --fix {self.location} refreshes the view"

    def _cure(self) -> str:
        return f"ckptstore doctor --restore {self.location} puts the saved one back"


def rotten(storage: Storage, state: Committed) -> tuple[str, ...]:
    """Return the damaged files of a generation's view; each copy is read and proved.

    JSON that somebody edited is as it should be while it is JSON. Hard links are the
    generation's own bytes: there is nothing to put back. A view whose manifest is damaged, or
    not this generation's, is refreshed as a whole, and nothing of it is looked at.
    """
    view = Shown(storage, state)
    if view.look_at_manifest().status != OK:
        return ()
    found = {n: view.look_at_bytes(n, partial(_read, view, n)) for n in view.copies()}
    found |= {name: view.look_at_text(name) for name in state.manifest.texts}
    return tuple(name for name, finding in found.items() if finding.status == DAMAGED)


def _read(view: Shown, name: str) -> str:
    view.prove(name)
    return ""
