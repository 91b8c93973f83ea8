"""Pins: what makes a step stay, and how of a pin and a removal at most one succeeds.

A pin is a small file beside the manifest; neither the manifest nor what it lists is touched.

1. Who removes a step first leaves word in its folder, and then looks for a pin: with one there
   nothing is removed.
2. Who pins a step first leaves the pin, and then looks for such word: the step is pinned only
   where there is none, and its manifest is there.
3. What was left is taken away by who left it, when nothing of it is under way any more. What a
   killed remover left stays until it is a day old; that long nobody can pin this step.

Each of two that meet has left its sign before it looks for the other's, so at least one of them
sees the other's, whoever is killed or held up, and wherever. No condition on a request is needed,
and pinning costs others nothing: the listing that shows a pin is made for a removal anyhow.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone

from ckptstore.commit.layout import (
    PIN,
    Committed,
    listed_steps,
    no_such_step,
    read_manifest,
    step_folder,
    steps,
)
from ckptstore.errors import ConflictError
from ckptstore.manifest import MANIFEST
from ckptstore.storage.base import AlreadyThereError, Entry, Storage
from ckptstore.texts import dump_json

__all__ = [
    "PinnedError",
    "announced",
    "check_not_replacing",
    "check_unpinned",
    "is_word",
    "pin",
    "pinned_steps",
    "unpin",
]

_WORD = re.compile(r"removing\.[0-9a-f]{12}")
_LOOKS = 10
_PAUSE = 0.05


class PinnedError(ConflictError):
    """The step is pinned; it was not removed."""


def pinned_steps(storage: Storage) -> tuple[int, ...]:
    """Return the steps that are pinned, ascending; one listing, no manifest is read."""
    return tuple(step for step, listed in listed_steps(storage).items() if listed.pinned)


def pin(storage: Storage, step: int, *, durable: bool = True) -> None:
    """Make a step stay, whatever any policy says; one that is pinned stays pinned.

    Args:
        storage: where.
        step: which.
        durable: whether the pin survives a loss of power.

    Raises:
        NotFoundError: there is no such step, or it was removed meanwhile.
        CorruptionError: nobody can read its manifest.
        ConflictError: somebody is removing it at this moment, or a removal was cut off.
    """
    folder = step_folder(step) if step >= 0 else ""
    if not folder or read_manifest(storage, folder) is None:
        raise no_such_step(storage, step, steps(storage))
    for look in range(_LOOKS):
        with suppress(AlreadyThereError):
            storage.create(f"{folder}/{PIN}", _text(), durable=durable)
        there = storage.list(folder).files
        if any(map(is_word, there)):
            time.sleep(_PAUSE * (look + 1))  # A removal takes a moment, or it sees the pin.
        elif MANIFEST not in there:
            _take_back(storage, folder)
            raise no_such_step(storage, step, steps(storage))
        elif PIN in there:
            return
    raise ConflictError(
        f"step {step} of {storage.location} is being removed, or a removal of it was cut off, so "
        "it is not sure to stay; pin it again where it is still there in a while (ckptstore "
        "doctor --fix takes away what is a day old)"
    )


def unpin(storage: Storage, step: int, *, durable: bool = True) -> bool:
    """Take the pin from a step; return whether there was one.

    Raises:
        NotFoundError: there is no such step.
    """
    folder = step_folder(step) if step >= 0 else ""
    there: Collection[str] = storage.list(folder).files if folder else ()
    if MANIFEST not in there:
        raise no_such_step(storage, step, steps(storage))
    if PIN in there:
        storage.delete(f"{folder}/{PIN}")
        if durable:
            storage.flush(folder)
    return PIN in there


@contextmanager
def announced(storage: Storage, folder: str) -> Iterator[Mapping[str, Entry]]:
    """Leave word that a step is being removed, for as long as the block takes.

    Gives the files that are in its folder. What the block did not end, or failed in, may have
    requests under way that still take effect, so the word stays then.

    Raises:
        PinnedError: it is pinned; nothing was changed.
    """
    word = _leave_word(storage, folder)
    try:
        there = storage.list(folder).files
        if PIN in there:
            raise PinnedError(
                f"{folder} of {storage.location} is pinned, and was not removed; take the pin away "
                "first with Store.unpin(step), or ckptstore pin --remove"
            )
    except Exception:
        storage.delete(word)
        raise
    yield there
    storage.delete(word)


def check_unpinned(storage: Storage, there: Mapping[int, bool], act: str) -> None:
    """Refuse what would remove pinned steps, before anything is removed.

    Args:
        storage: for the message.
        there: the steps that would go, and whether each is pinned.
        act: what would remove them.

    Raises:
        PinnedError: some are.
    """
    pinned = [str(step) for step, is_pinned in sorted(there.items()) if is_pinned]
    if pinned:
        named = f"step {pinned[0]}" if len(pinned) == 1 else f"steps {', '.join(pinned)}"
        raise PinnedError(
            f"{act} would take {named} of {storage.location}, and what is pinned stays; nothing "
            "was removed, take the pin away first with Store.unpin(step), or ckptstore pin --remove"
        )


def check_not_replacing(storage: Storage, old: Committed, there: Collection[str]) -> None:
    """Refuse to put other content in the place of a pinned step.

    Raises:
        PinnedError: it is pinned.
    """
    if PIN in there:
        raise PinnedError(
            f"{old.manifest.called} of {storage.location} is pinned, and is not replaced by other "
            "content; take the pin away first with Store.unpin(step), or ckptstore pin --remove"
        )


def is_word(name: str) -> bool:
    """Whether a file is the word of who removes the step that it lies in."""
    return _WORD.fullmatch(name) is not None


def _leave_word(storage: Storage, folder: str) -> str:
    name = f"{folder}/removing.{secrets.token_hex(6)}"
    # An empty one: where the disk is full there is still room for its name.
    storage.create(name, b"", durable=False)
    return name


def _take_back(storage: Storage, folder: str) -> None:
    """Remove a pin that is beside no manifest, as who removes a step: by rules 1 and 2.

    A newer save of the same step may have been pinned meanwhile, by the same file.
    """
    word = _leave_word(storage, folder)
    if MANIFEST not in storage.list(folder).files:
        storage.delete(f"{folder}/{PIN}")
    storage.delete(word)


def _text() -> bytes:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return dump_json({"pinned": now}).encode()
