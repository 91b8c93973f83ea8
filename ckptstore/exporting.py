"""The files of a tokenizer, put into a folder for the library that reads them.

Rule 1: nobody's file is replaced; one that is the same already is left alone. Rule 2: nothing is
written before all is known to be right.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptstore import plugins, storage
from ckptstore.checkpoint import Checkpoint
from ckptstore.errors import ConflictError, NotFoundError, PluginError, UnsupportedError
from ckptstore.opening import Location, open
from ckptstore.storage.base import AlreadyThereError
from ckptstore.tokenizers.base import Tokenizer
from ckptstore.vocabulary import missing_error

__all__ = ["Exported", "ExportedFile", "export"]


@dataclass(frozen=True)
class ExportedFile:
    """A file that is in the folder now.

    Attributes:
        name: its name there.
        size: bytes.
        sha256: hexadecimal.
        new: whether it was written; False where the very same was there.
    """

    name: str
    size: int
    sha256: str
    new: bool


@dataclass(frozen=True)
class Exported:
    """What `export` has done.

    Attributes:
        source: where the files came from: a checkpoint, or ``this machine``.
        kind: of the tokenizer.
        folder: where they are.
        files: all of them.
        variables: environment variables with which the library finds them there.
    """

    source: str
    kind: str
    folder: str
    files: tuple[ExportedFile, ...]
    variables: Mapping[str, str]


def export(
    source: Location,
    folder: Location,
    *,
    carried: bool = False,
    step: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Exported:
    """Write the files of a tokenizer into a folder, as the library behind its kind looks for them.

    Args:
        source: path or URL of a checkpoint that carries them; or the name of a kind that is
            installed, for those that are on this machine (a folder called like that: ``./gpt2``).
        folder: on this machine; made where it is not there.
        carried: write them as checkpoints carry them, too.
        step: of a history.
        storage_options: what fsspec's filesystem takes, for the source.

    Raises:
        NotFoundError: there is no such checkpoint, or it carries no files of a tokenizer.
        UnsupportedError: the kind has no such files, or they are not on this machine.
        ConflictError: a file of another content, or anything else, is in the way.
        CorruptionError: what is carried is damaged, or another vocabulary.
    """
    place = _folder(folder)
    if _kind_called(os.fspath(source)) is not None:
        where, kind = "this machine", os.fspath(source)
        files = _of_machine(kind)
    else:
        checkpoint = open(source, step=step, storage_options=storage_options)
        where, files = checkpoint.location, _of_checkpoint(checkpoint)
        kind = str((checkpoint.tokenizer_state or {}).get("token_kind"))
    cls = _kind_called(kind)
    wanted = dict(files) if cls is None else plugins.files_elsewhere(kind, files)
    if carried:
        wanted |= files
    written = _write(place, wanted)
    variable = None if cls is None else cls.folder_variable
    return Exported(
        source=where,
        kind=kind,
        folder=str(place),
        files=tuple(
            ExportedFile(name, len(data), hashlib.sha256(data).hexdigest(), name in written)
            for name, data in wanted.items()
        ),
        variables={} if variable is None else {variable: str(place)},
    )


def _kind_called(name: str) -> type[Tokenizer] | None:
    """Return a tokenizer kind; None where there is none of this name, or nobody can say."""
    with suppress(UnsupportedError, PluginError):
        return plugins.tokenizer_kind(name)
    return None


def _of_machine(kind: str) -> dict[str, bytes]:
    state = {"token_kind": kind}
    names = plugins.file_names_of(state)
    if not names:
        raise _no_files(kind)
    found = plugins.files_of(state)
    lacking = [name for name in names if name not in found]
    if lacking:
        raise missing_error(kind, lacking)
    return {name: found[name] for name in names}


def _of_checkpoint(checkpoint: Checkpoint) -> dict[str, bytes]:
    state, carried = checkpoint.tokenizer_state, checkpoint.tokenizer_files()
    if state is None:
        raise NotFoundError(
            f"{checkpoint.location} has no tokenizer, so there is nothing to export"
        )
    # Where the kind is known, its files are: the checkpoint could call others what it likes.
    names = plugins.file_names_of(state) or tuple(carried)
    if not names and plugins.fingerprint_of(state) is not None:
        raise _no_files(str(state.get("token_kind")))
    if not carried or not {*names} <= {*carried}:
        kind = str(state.get("token_kind"))
        raise NotFoundError(
            f"{checkpoint.location} carries no files of its {kind!r} tokenizer; export those of "
            f"this machine (ckptstore tokenizer export {kind} FOLDER), or one of its copies that "
            "ckptstore sync --vocabulary made"
        )
    return {name: carried[name] for name in names}


def _no_files(kind: str) -> UnsupportedError:
    return UnsupportedError(
        f"the tokenizer kind {kind!r} has no files beside tokenizer.json, so there is nothing to "
        "export"
    )


def _folder(folder: Location) -> Path:
    name = os.fspath(folder)
    if "://" in name:
        raise UnsupportedError(
            f"{name.partition('://')[0]}:// is no folder on this machine, which the libraries that "
            "read such files need; name one"
        )
    place = Path(name).absolute()
    if place.exists() and not place.is_dir():
        raise ConflictError(f"{str(place)!r} is a file, not a folder; choose another")
    return place


def _write(place: Path, wanted: Mapping[str, bytes]) -> set[str]:
    """Write files that are not there, and return their names."""
    new = set()
    for name, data in wanted.items():
        path = place / name
        if not os.path.lexists(path):
            new.add(name)
        elif not path.is_file() or path.stat().st_size != len(data) or path.read_bytes() != data:
            raise _in_the_way(place, name)
    files = storage.connect(place)
    for name in sorted(new):
        try:
            files.create(name, wanted[name])
        except AlreadyThereError as error:
            raise _in_the_way(place, name) from error
    return new


def _in_the_way(place: Path, name: str) -> ConflictError:
    return ConflictError(
        f"{name} is in {str(place)!r} already, and another file; move it away, or choose another "
        "folder"
    )
