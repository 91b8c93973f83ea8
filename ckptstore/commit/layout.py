"""Where states lie below a location, and which of them are committed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ckptstore.errors import ConflictError, CorruptionError, NotFoundError, UnsafeError
from ckptstore.manifest import MANIFEST, Manifest
from ckptstore.storage.base import Listing, Storage
from ckptstore.texts import parse_json

__all__ = [
    "GENERATIONS",
    "MOST_STEPS",
    "STEP",
    "Committed",
    "generation_folder",
    "generations",
    "is_number",
    "newest",
    "newest_generation",
    "no_such_step",
    "read_manifest",
    "step_folder",
    "step_named",
    "steps",
]

GENERATIONS = ".ckptstore"
STEP = "step-"
_TRIES = 10
_MOST_MANIFEST = 256 * 2**20
_NUMBER = re.compile(r"\d{8,18}")
MOST_STEPS = 10**18 - 1
"""The largest step, and the largest generation: what a folder's name has digits for."""


@dataclass(frozen=True)
class Committed:
    """One committed state: the folder that holds it, and its manifest."""

    folder: str
    manifest: Manifest

    def path(self, name: str) -> str:
        """Return the name in the storage of a file of this state, by its own name."""
        return f"{self.folder}/{name}" if self.folder else name


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
    if manifest.generation is not None:
        expected = generation_folder(manifest.generation)
    else:
        expected = step_folder(manifest.step or 0)
    if folder and folder != expected:
        raise CorruptionError(
            f"{where} is that of generation {manifest.generation}, step {manifest.step}; "
            "move the folder back to where it was"
        )
    return manifest


def newest_generation(storage: Storage) -> Committed | None:
    """Return the newest committed generation, or None where nothing was committed."""
    return _newest(storage, generations, generation_folder)


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
        last = _newest(storage, steps, step_folder)
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


def _numbers(folders: tuple[str, ...], prefix: str) -> tuple[int, ...]:
    names = (folder[len(prefix) :] for folder in folders)
    return tuple(sorted(int(name) for name in names if is_number(name)))
