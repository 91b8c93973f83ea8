"""Where states lie below a location, and which of them are committed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from ckptstore.commit.stored import Stored
from ckptstore.errors import ConflictError, CorruptionError, NotFoundError, UnsafeError
from ckptstore.manifest import MANIFEST, Manifest
from ckptstore.storage.base import Entry, Listing, Storage
from ckptstore.texts import parse_json

__all__ = [
    "GENERATIONS",
    "MOST_STEPS",
    "PIN",
    "STEP",
    "Committed",
    "Listed",
    "folder_of",
    "generation_folder",
    "generations",
    "is_number",
    "listed_steps",
    "newest",
    "newest_generation",
    "newest_step",
    "no_such_step",
    "read_manifest",
    "step_folder",
    "step_named",
    "steps",
    "steps_among",
]

GENERATIONS = ".ckptstore"
STEP = "step-"
PIN = "pinned.json"
"""The file in a step's folder that says: this step stays. See `ckptstore.commit.pins`."""
_TRIES = 10
_LOOKED = 8
_SHORT = 10**7
_MOST_MANIFEST = 256 * 2**20
_NUMBER = re.compile(r"\d{8,18}")
MOST_STEPS = 10**18 - 1
"""The largest step, and the largest generation: what a folder's name has digits for."""


@dataclass(frozen=True)
class Committed:
    """One committed state.

    Attributes:
        folder: that holds it.
        manifest: what is in it.
        stored: what its save had to write; None where it was found and not saved.
    """

    folder: str
    manifest: Manifest
    stored: Stored | None = field(default=None, compare=False)

    def path(self, name: str) -> str:
        """Return the name in the storage of a file of this state, by its own name."""
        return f"{self.folder}/{name}" if self.folder else name


@dataclass(frozen=True)
class Listed:
    """A committed step as a listing shows it.

    Attributes:
        manifest: the file, whose version tells one save of the step from another.
        pinned: whether there is a pin beside it.
    """

    manifest: Entry
    pinned: bool


def generation_folder(number: int) -> str:
    """Return the folder of a generation."""
    return f"{GENERATIONS}/{number:08d}"


def step_folder(step: int) -> str:
    """Return the folder of a step of a history."""
    return f"{STEP}{step:08d}"


def generations(storage: Storage) -> tuple[int, ...]:
    """Return the committed generations, ascending."""
    return _numbers(storage.holding(GENERATIONS, "", MANIFEST), "")


def steps(storage: Storage) -> tuple[int, ...]:
    """Return the committed steps of a history, ascending."""
    return _numbers(storage.holding("", STEP, MANIFEST), STEP)


def listed_steps(storage: Storage) -> dict[int, Listed]:
    """Return the committed steps of a history, ascending, and which of them are pinned.

    Costs what `steps` costs, and a look at one more file of each on a local disk.
    """
    found = {}
    for folder, files in storage.held("", STEP, (MANIFEST, PIN)).items():
        if is_number(folder.removeprefix(STEP)):
            step = int(folder.removeprefix(STEP))
            found[step] = Listed(files[MANIFEST], PIN in files)
    return dict(sorted(found.items()))


def folder_of(manifest: Manifest) -> str:
    """Return the folder that a manifest belongs into."""
    if manifest.generation is not None:
        return generation_folder(manifest.generation)
    return step_folder(manifest.step or 0)


def read_manifest(storage: Storage, folder: str) -> Manifest | None:
    """Return the manifest in a folder, or None where there is none of ours.

    Raises:
        CorruptionError: it is malformed, or belongs to another folder.
    """
    name = f"{folder}/{MANIFEST}" if folder else MANIFEST
    where = f"{name} in {storage.location}"
    try:
        data = storage.read(name, limit=_MOST_MANIFEST + 1)
    except NotFoundError:
        return None
    if len(data) > _MOST_MANIFEST:
        raise CorruptionError(f"{where} is larger than {_MOST_MANIFEST} bytes; not read")
    try:
        manifest = Manifest.from_json(data, where)
    except (CorruptionError, UnsafeError):
        if not folder and not {"ckptstore", "write_id"} & parse_json(data, where).keys():
            return None  # Among a person's own files, another program's manifest.json.
        raise
    if folder and folder != folder_of(manifest):
        raise CorruptionError(
            f"{where} is that of generation {manifest.generation}, step {manifest.step}; "
            "move the folder back to where it was"
        )
    return manifest


def newest_generation(storage: Storage) -> Committed | None:
    """Return the newest committed generation, or None where nothing was committed."""
    return _newest(storage, generations, generation_folder)


def newest_step(storage: Storage) -> Committed | None:
    """Return the highest committed step, or None where there is none."""
    folders = storage.list("").folders
    if not any(folder.startswith(STEP) for folder in folders):
        return None
    return _newest_step(storage, folders)


def newest(storage: Storage, listing: Listing | None = None) -> Committed | None:
    """Return the newest committed state: of a generation and a step the higher training step.

    Args:
        storage: where.
        listing: of the location itself, where it was just made.
    """
    folders = (storage.list("") if listing is None else listing).folders
    single = newest_generation(storage) if GENERATIONS in folders else None
    last = None
    if any(folder.startswith(STEP) for folder in folders):
        last = _newest_step(storage, folders)
    if single is None or last is None:
        return single or last
    return single if (single.manifest.step or 0) > (last.manifest.step or 0) else last


def step_named(storage: Storage, step: int) -> Committed | None:
    """Return the committed state of a training step, or None where nothing is committed at all.

    Raises:
        NotFoundError: there is none of this step; the message names those that there are.
    """
    manifest = read_manifest(storage, step_folder(step)) if step >= 0 else None
    if manifest is not None:
        return Committed(step_folder(step), manifest)
    single = newest_generation(storage)
    if single is not None and single.manifest.step == step:
        return single
    known = set(steps(storage))
    if single is None and not known:
        return None
    if single is not None and single.manifest.step is not None:
        known.add(single.manifest.step)
    raise no_such_step(storage, step, known)


def no_such_step(storage: Storage, step: int, known: Collection[int]) -> NotFoundError:
    """Return the error that names the steps that there are, the last of them."""
    listed = ", ".join(map(str, sorted(known)[-20:])) or "none"
    return NotFoundError(
        f"no checkpoint at step {step} in {storage.location}; committed steps: {listed}"
    )


def is_number(name: str) -> bool:
    """Whether a folder's name, less its prefix, is that of a generation or a step."""
    return _NUMBER.fullmatch(name) is not None


def _newest(
    storage: Storage,
    numbers: Callable[[Storage], tuple[int, ...]],
    folder: Callable[[int], str],
) -> Committed | None:
    for _ in range(_TRIES):
        found = numbers(storage)
        if not found:
            return None
        manifest = read_manifest(storage, folder(found[-1]))
        if manifest is not None:
            return Committed(folder(found[-1]), manifest)
        # It was replaced by a newer one between the two looks: look again.
    raise ConflictError(f"{storage.location} changes faster than it can be read; try again")


def _newest_step(storage: Storage, folders: tuple[str, ...]) -> Committed | None:
    """Return the newest step; of a history of thousands one manifest is read.

    The folders are looked into from the top. What is found is believed if after that nothing
    above it is committed: what was the newest when this began is still there then, or something
    higher is, for retention takes no newest step. Where a listing shows names in order the first
    one tells that too, as long as no number has more than eight digits and it was the highest.
    (Only two saves in a row, each at ten times the step of the last, could pass such a listing.)

    Args:
        storage: where.
        folders: of the location, from a listing that was just made.
    """
    for _ in range(_TRIES):
        there = steps_among(folders)
        for step in there[: -_LOOKED - 1 : -1]:
            manifest = read_manifest(storage, step_folder(step))
            if manifest is not None:
                break
        else:
            break  # So much of what was not finished is looked through from below.
        found = Committed(step_folder(step), manifest)
        if storage.lists_in_order and step == there[-1] < _SHORT:
            return found
        folders = storage.list("").folders
        if not _any_above(storage, folders, step):
            return found
    return _newest(storage, steps, step_folder)


def _any_above(storage: Storage, folders: tuple[str, ...], step: int) -> bool:
    """Whether any step above one is committed, or may be: as in `Storage.holding`, ascending."""
    above = [number for number in steps_among(folders) if number > step]
    if not above:
        return False
    if any(storage.entry(f"{step_folder(number)}/{MANIFEST}") for number in above):
        return True
    again = steps_among(storage.list("").folders)
    return above != [number for number in again if number > step]


def steps_among(folders: tuple[str, ...]) -> tuple[int, ...]:
    """Return the numbers of the steps that have a folder, committed or not, ascending."""
    return _numbers(tuple(name for name in folders if name.startswith(STEP)), STEP)


def _numbers(folders: tuple[str, ...], prefix: str) -> tuple[int, ...]:
    names = (folder[len(prefix) :] for folder in folders)
    return tuple(sorted(int(name) for name in names if is_number(name)))
