"""The view of a single checkpoint: plain files at the top, a copy of its newest generation.

The view is never the truth. It is refreshed file by file, manifest last, and looked at again
until it shows the newest. What a person changed in it is told from what a late or broken refresh
left there by one rule: the view's manifest, read before and after, is the newest generation's, a
listing made after that still shows it as the newest, and the text is none of its forerunners'.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ckptstore.commit.files import read_text
from ckptstore.commit.layout import Committed, newest_generation, read_manifest
from ckptstore.digests import sha256_of
from ckptstore.errors import ConflictError, CorruptionError, NotFoundError
from ckptstore.manifest import MANIFEST, Manifest
from ckptstore.storage.base import Entry, Storage

__all__ = [
    "check_replaced",
    "hand_edits",
    "put_back",
    "replaced_error",
    "replaced_files",
    "show",
    "stale",
    "view_manifest",
]

_TRIES = 10
_TAIL = 2**20


def show(storage: Storage, state: Committed, *, small: bool, durable: bool) -> Committed:
    """Refresh the view, until it shows the newest generation; return the one that it shows.

    Args:
        storage: where.
        state: the generation to show, the newest as far as is known.
        small: JSON and manifest only.
        durable: make it survive a loss of power.

    Raises:
        ConflictError: newer generations appear faster than they can be shown.
    """
    for _ in range(_TRIES):
        complete = _refresh(storage, state, small=small, durable=durable)
        top = newest_generation(storage)
        if top is None or (complete and top.folder == state.folder):
            return state
        state = top
    raise ConflictError(
        f"{storage.location} is saved to faster than its view can be refreshed; "
        "every save is committed, and the next one refreshes it",
        committed=True,
    )


def hand_edits(storage: Storage, state: Committed) -> dict[str, str] | None:
    """Return the JSON texts that somebody edited in the view, by name.

    Returns:
        None where ``state`` is not the newest generation any more: start over.

    Raises:
        ConflictError: somebody replaced a file of bytes in the view.
    """
    view = view_manifest(storage)
    if view is None or view.write_id != state.manifest.write_id:
        return {}
    files = storage.list("").files
    texts = dict(_changed_texts(storage, view, state, files))
    replaced = _replaced(storage, view, state, files)
    if not texts and not replaced:
        return {}
    again = view_manifest(storage)
    if again is None or again.write_id != view.write_id:
        return {}
    if not _is_newest(storage, state):
        return None
    if replaced:
        raise replaced_error(storage, replaced)
    return texts


def replaced_files(storage: Storage, state: Committed) -> tuple[str, ...]:
    """Return the names of files of bytes in the view that somebody replaced."""
    view = view_manifest(storage)
    if view is None or view.write_id != state.manifest.write_id:
        return ()
    replaced = _replaced(storage, view, state, storage.list("").files)
    return replaced if replaced and _is_newest(storage, state) else ()


def check_replaced(storage: Storage, state: Committed) -> None:
    """Refuse to write over a file of bytes that somebody put into the view.

    Raises:
        ConflictError: there is one; nothing was written.
    """
    replaced = replaced_files(storage, state)
    if replaced:
        raise replaced_error(storage, replaced)


def put_back(storage: Storage, state: Committed, names: tuple[str, ...]) -> None:
    """Put files of a generation back into its view; hand edits of the JSON stay."""
    for name in names:
        storage.copy(state.path(state.manifest.files[name].path), name)
    view = view_manifest(storage)
    if view is not None:
        listed = storage.list("").files
        versions = {name: listed[name].version or "" for name in names if name in listed}
        view = replace(view, shown={**view.shown, **versions})
        storage.replace(MANIFEST, view.to_json().encode())


def stale(storage: Storage, state: Committed, *, small: bool) -> bool:
    """Whether the view does not show a generation, or not all of it."""
    view = view_manifest(storage)
    if view is None or view.write_id != state.manifest.write_id:
        return True
    names = {*state.manifest.texts, *(() if small else state.manifest.files)}
    return not names <= storage.list("").files.keys()


def view_manifest(storage: Storage) -> Manifest | None:
    """Return the view's manifest; None too where it is broken, since nothing depends on it."""
    try:
        return read_manifest(storage, "")
    except CorruptionError:
        return None


def _is_newest(storage: Storage, state: Committed) -> bool:
    top = newest_generation(storage)
    return top is not None and top.manifest.write_id == state.manifest.write_id


def replaced_error(storage: Storage, names: tuple[str, ...]) -> ConflictError:
    """Return the error that offers both ways: adopt what somebody put there, or restore."""
    where = storage.location
    return ConflictError(
        f"{', '.join(names)} in {where} was replaced by hand since the last save; "
        f"ckptstore doctor --adopt {where} makes it the checkpoint, "
        f"ckptstore doctor --restore {where} puts the saved one back"
    )


def _changed_texts(
    storage: Storage, view: Manifest, state: Committed, files: dict[str, Entry]
) -> Iterator[tuple[str, str]]:
    for name, entry in state.manifest.texts.items():
        there = files.get(name)
        if there is None:
            continue
        if storage.content_versions and there.version == view.shown.get(name):
            continue
        try:
            text = read_text(storage, name)
        except NotFoundError:
            continue
        late = sha256_of(text) in state.manifest.earlier.get(name, ())
        if text != entry.text and not late:
            yield name, text


def _replaced(
    storage: Storage, view: Manifest, state: Committed, files: dict[str, Entry]
) -> tuple[str, ...]:
    def kept(name: str) -> bool:
        there = files[name]
        if there.version is not None and there.version == view.shown.get(name):
            return True
        source = storage.entry(state.path(state.manifest.files[name].path))
        if source is None or (source.version is not None and source.version == there.version):
            # Superseded, or shared bytes that were overwritten in place: the checksums tell.
            return True
        return _same_bytes(storage, there, source)

    return tuple(name for name in state.manifest.files if name in files and not kept(name))


def _same_bytes(storage: Storage, one: Entry, other: Entry) -> bool:
    """Whether a file of the view is a copy, as in a folder that was copied as a whole.

    Sizes and the last megabyte are compared: a .pt ends with its zip directory, which holds the
    CRC-32 of every record in it.
    """
    if one.size != other.size:
        return False
    start = max(0, one.size - _TAIL)
    ends = []
    for name in (one.name, other.name):
        end = bytearray(one.size - start)
        try:
            with storage.open(name) as reader:
                reader.readinto(start, memoryview(end))
        except NotFoundError:
            # Superseded meanwhile, which whoever reads the source finds out.
            return True
        except CorruptionError:
            return False
        ends.append(end)
    return ends[0] == ends[1]


def _refresh(storage: Storage, state: Committed, *, small: bool, durable: bool) -> bool:
    manifest = state.manifest
    before = view_manifest(storage)
    shown = {} if small else manifest.files
    for name, entry in shown.items():
        try:
            storage.copy(state.path(entry.path), name, durable=durable)
        except NotFoundError:
            return False
    for name, text in manifest.texts.items():
        storage.replace(name, text.text.encode(), durable=durable)
    if before is not None:
        for name in {*before.files, *before.texts} - {*shown, *manifest.texts}:
            storage.delete(name)
    listed = storage.list("").files
    names = {*shown, *manifest.texts}
    versions = {n: e.version for n, e in listed.items() if n in names and e.version is not None}
    view = replace(
        manifest,
        texts={name: replace(entry, path=name) for name, entry in manifest.texts.items()},
        files={name: replace(entry, path=name) for name, entry in manifest.files.items()},
        shown=versions,
    )
    storage.replace(MANIFEST, view.to_json().encode(), durable=durable)
    if durable:
        storage.flush("")
    return True
