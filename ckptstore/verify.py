"""Proving a whole checkpoint: every chunk and every SHA-256, or the zip's own CRCs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckptstore import ptfile
from ckptstore.commit.files import CommittedFiles
from ckptstore.errors import CorruptionError, NotFoundError, UnsafeError
from ckptstore.formats.base import Files
from ckptstore.progress import OnProgress, Progress

__all__ = ["FileReport", "Report", "prove"]

_PIECE = 8 * 2**20


@dataclass(frozen=True)
class FileReport:
    """What was found of one file.

    Attributes:
        name: its plain name.
        status: ``ok``, ``damaged``, ``absent`` or ``not verified``.
        detail: a sentence for people; empty where there is nothing to say.
    """

    name: str
    status: str
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """What `Checkpoint.verify` found.

    Attributes:
        location: which checkpoint.
        sound: whether nothing is damaged, and the model is there.
        proved: whether a manifest says what the bytes have to be.
        files: one entry per file, the model's first.
    """

    location: str
    sound: bool
    proved: bool
    files: tuple[FileReport, ...]


def prove(files: Files, names: Sequence[str], progress: OnProgress | None = None) -> Report:
    """Read every file of a checkpoint and hold it against its manifest (G4).

    An absent file is damage only where it is the model's, the first of ``names``.

    Raises:
        SupersededError: the state was replaced while it was read.
    """
    checked = _Checked(files, progress)
    reports = tuple(checked.report(name) for name in names)
    damaged = any(report.status == "damaged" for report in reports)
    absent = not reports or reports[0].status == "absent"
    return Report(
        location=files.location,
        sound=not damaged and not absent,
        proved=files.manifest is not None,
        files=reports,
    )


class _Checked:
    """One run over the files, counting bytes for progress."""

    def __init__(self, files: Files, progress: OnProgress | None) -> None:
        self._files = files
        self._progress = progress
        self._done = 0
        entries = files.manifest.files.values() if files.manifest else ()
        self._total = sum(entry.digest.size for entry in entries)

    def report(self, name: str) -> FileReport:
        try:
            return self._text(name) if name.endswith(".json") else self._bytes(name)
        except NotFoundError as error:
            return FileReport(name, "absent", str(error))
        except (CorruptionError, UnsafeError) as error:
            return FileReport(name, "damaged", str(error))

    def _text(self, name: str) -> FileReport:
        text = self._files.text(name)
        if not isinstance(self._files, CommittedFiles):
            return FileReport(name, "not verified", f"{len(text)} characters, no manifest")
        if name in self._files.edits:
            return FileReport(name, "ok", "edited by hand since it was saved")
        stored = self._files.stored_text(name)
        if stored != text:
            return FileReport(name, "damaged", "its text is not the one in the manifest")
        return FileReport(name, "ok")

    def _bytes(self, name: str) -> FileReport:
        manifest = self._files.manifest
        if manifest is None:
            with self._files.open(name) as file:
                ptfile.check_records(file, f"{name} in {self._files.location}")
            return FileReport(name, "not verified", "no manifest; the zip's own CRCs are right")
        sha256 = hashlib.sha256()
        for piece in self._pieces(name):
            sha256.update(piece)
        expected = manifest.files[name].digest.sha256
        if sha256.hexdigest() != expected:
            detail = f"sha256 is {sha256.hexdigest()}, the manifest says {expected}"
            return FileReport(name, "damaged", detail)
        return FileReport(name, "ok", f"sha256 {expected}")

    def _pieces(self, name: str) -> Iterator[memoryview]:
        buffer = bytearray(_PIECE)
        with self._files.open(name) as file:
            while count := file.readinto(buffer):  # type: ignore[attr-defined]
                self._done += count
                if self._progress is not None:
                    self._progress(Progress("verify", name, self._done, self._total))
                yield memoryview(buffer)[:count]
