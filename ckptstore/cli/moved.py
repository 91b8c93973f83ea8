"""The one line that ``convert`` and ``sync`` end with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptstore.cli.screen import plural, size

if TYPE_CHECKING:
    from ckptstore.transfer import Transfer

__all__ = ["moved_line"]

_DONE = {"copy": "copied", "write": "wrote"}


def moved_line(transfer: Transfer, verb: str, *, dry_run: bool) -> str:
    """Return what was moved and what was spared, on one line.

    Args:
        transfer: what the library answered.
        verb: ``copy`` or ``write``.
        dry_run: whether nothing was really done.
    """
    ways = f"{transfer.source} -> {transfer.destination}"
    if not transfer.changed:
        return f"{ways}: the same already, {_spared(transfer)}"
    acted = f"would {verb}" if dry_run else _DONE[verb]
    parts = [f"{acted} {_amount(transfer.copied, transfer.copied_bytes)}"]
    if transfer.spared:
        parts.append(_spared(transfer))
    if transfer.edited:
        parts.append(f"hand edits of {', '.join(transfer.edited)} carried over")
    if transfer.step is not None:
        parts.append(f"step {transfer.step}")
    return f"{ways}: {', '.join(parts)}"


def _spared(transfer: Transfer) -> str:
    return f"spared {_amount(transfer.spared, transfer.spared_bytes)}"


def _amount(names: tuple[str, ...], nbytes: int) -> str:
    return f"{plural(len(names), 'file')} ({size(nbytes)})"
