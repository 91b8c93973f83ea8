"""What a person changed in the view, told from what a late or broken refresh left there.

One rule: the view's manifest, read before and after, is the newest generation's, a listing made
after that still shows it as the newest, and what is there is none of its forerunners'.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from ckptstore.commit.files import digest_of, read_text
from ckptstore.commit.layout import Committed, newest_generation
from ckptstore.commit.view import view_manifest
from ckptstore.digests import sha256_of
from ckptstore.errors import ConflictError, CorruptionError, NotFoundError
from ckptstore.manifest import MANIFEST
from ckptstore.storage.base import Entry, Storage

__all__ = ["Look", "check_replaced", "hand_edits", "look", "replaced_error"]

_TAIL = 2**20


class _Kind(Enum):
    KEPT = "as it was shown"
    LATE = "a forerunner's, left by a late refresh"
    CHANGED = "a person's"


@dataclass(frozen=True)
class Look:
    """What was found in the view of the newest generation.

    Attributes:
        edits: plain name to text of the JSON files that somebody edited or added.
        replaced: the files of bytes that somebody replaced.
        late: the files that a late refresh left there.
    """

    edits: dict[str, str]
    replaced: tuple[str, ...] = ()
    late: tuple[str, ...] = ()


def look(
    storage: Storage, state: Committed, known: Collection[str] = (), *, thorough: bool = False
) -> Look | None:
    """Look at the view of a generation.

    Args:
        storage: where.
        state: the newest generation, as far as is known.
        known: JSON files that count as edited also where the generation has none of them.
        thorough: compare also what is as the view's manifest says that it was shown: a refresh
            says that of what it finds when it is done, and a late one may have put that there.

    Returns:
        None where ``state`` is not the newest generation any more: start over.
    """
    view = view_manifest(storage)
    if view is None or view.write_id != state.manifest.write_id:
        ahead = view is not None and (view.generation or 0) > (state.manifest.generation or 0)
        # A writer that came too late may have committed this one below the newest, and is about
        # to remove it: nobody opens that.
        return None if ahead and not _is_newest(storage, state) else Look({})
    shown = {} if thorough else view.shown
    files = storage.list("").files
    edits, late = {}, []
    for name, text in _other_texts(storage, shown, state, files, known):
        if sha256_of(text) in state.manifest.earlier.get(name, ()):
            late.append(name)
        else:
            edits[name] = text
    kinds = {
        name: _kind(storage, shown, state, name, files[name])
        for name in state.manifest.files
        if name in files
    }
    replaced = tuple(name for name, kind in kinds.items() if kind is _Kind.CHANGED)
    late += [name for name, kind in kinds.items() if kind is _Kind.LATE]
    if edits or replaced:
        again = view_manifest(storage)
        if again is None or again.write_id != view.write_id:
            return Look({})
        if not _is_newest(storage, state):
            return None
    return Look(edits, replaced, tuple(late))


def hand_edits(
    storage: Storage, state: Committed, known: Collection[str] = ()
) -> dict[str, str] | None:
    """Return the JSON texts that somebody edited in the view, by name.

    Args and Returns: as for `look`.

    Raises:
        ConflictError: somebody replaced a file of bytes in the view.
    """
    found = look(storage, state, known)
    if found is None:
        return None
    if found.replaced:
        raise replaced_error(storage, found.replaced)
    return found.edits


def check_replaced(storage: Storage, state: Committed) -> None:
    """Refuse to write over a file of bytes that somebody put into the view.

    Raises:
        ConflictError: there is one; nothing was written.
    """
    found = look(storage, state)
    if found is not None and found.replaced:
        raise replaced_error(storage, found.replaced)


def replaced_error(storage: Storage, names: tuple[str, ...]) -> ConflictError:
    """Return the error that offers both ways: adopt what somebody put there, or restore."""
    where = storage.location
    return ConflictError(
        f"{', '.join(names)} in {where} was replaced by hand since the last save; "
        f"ckptstore doctor --adopt {where} makes it the checkpoint, "
        f"ckptstore doctor --restore {where} puts the saved one back"
    )


def _is_newest(storage: Storage, state: Committed) -> bool:
    top = newest_generation(storage)
    return top is not None and top.manifest.write_id == state.manifest.write_id


def _other_texts(
    storage: Storage,
    shown: Mapping[str, str],
    state: Committed,
    files: dict[str, Entry],
    known: Collection[str],
) -> Iterator[tuple[str, str]]:
    """Give the JSON files whose text is not the generation's."""
    texts = state.manifest.texts
    for name in sorted({*texts, *known} - {MANIFEST}):
        there = files.get(name)
        if there is None:
            continue
        if storage.content_versions and there.version == shown.get(name):
            continue
        try:
            text = read_text(storage, name)
        except NotFoundError:
            continue
        if name not in texts or text != texts[name].text:
            yield name, text


def _kind(
    storage: Storage, shown: Mapping[str, str], state: Committed, name: str, there: Entry
) -> _Kind:
    """Say where a file of bytes in the view comes from; reads it only where nothing else tells."""
    if there.version is not None and there.version == shown.get(name):
        return _Kind.KEPT
    entry = state.manifest.files[name]
    source = storage.entry(state.path(entry.path))
    if source is None or (source.version is not None and source.version == there.version):
        # Superseded, or shared bytes that were overwritten in place: the checksums tell.
        return _Kind.KEPT
    try:
        if _same_bytes(storage, there, source):
            return _Kind.KEPT
        found = digest_of(storage, name)
        if found == entry.digest.sha256:
            return _Kind.KEPT  # What a late refresh left was refreshed while this looked.
        earlier = state.manifest.earlier.get(name, ())
        return _Kind.LATE if found in earlier else _Kind.CHANGED
    except NotFoundError:
        return _Kind.KEPT  # Superseded meanwhile, which whoever reads the source finds out.
    except CorruptionError:
        return _Kind.CHANGED  # It became shorter while it was read.


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
        with storage.open(name) as reader:
            reader.readinto(start, memoryview(end))
        ends.append(end)
    return ends[0] == ends[1]
