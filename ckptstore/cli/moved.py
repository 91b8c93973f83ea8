"""The one line that ``convert`` and ``sync`` end with, and what proves a conversion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ckptstore.cli.screen import clean, plural, shape_text, size, table

if TYPE_CHECKING:
    from ckptstore.manifest import TensorInfo
    from ckptstore.transfer import Transfer

__all__ = ["moved_line", "proof_lines"]

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
    if transfer.spared_bytes or transfer.spared:
        parts.append(_spared(transfer))
    if transfer.edited:
        parts.append(f"hand edits of {', '.join(transfer.edited)} carried over")
    proved = sum(map(len, transfer.proofs.values()))
    if proved:
        parts.append(f"{plural(proved, 'tensor')} proved the same")
    if transfer.step is not None:
        parts.append(f"step {transfer.step}")
    if transfer.left_out:  # Last, for it is a list, too.
        parts.append(f"left out: {', '.join(map(clean, transfer.left_out))}")
    return f"{ways}: {', '.join(parts)}"


def proof_lines(transfer: Transfer) -> Iterator[str]:
    """Yield a table for each part: tensor, dtype, shape, and its record's CRC-32 on both sides."""
    for part, proofs in transfer.proofs.items():
        yield click.style(f"tensors of the {clean(part)}", bold=True)
        yield from table(
            (
                clean(proof.name),
                clean(proof.after.dtype),
                shape_text(proof.after.shape),
                f"{_crc(proof.before)} -> {_crc(proof.after)}",
                "" if proof.before.crc32 == proof.after.crc32 else "values compared",
            )
            for proof in proofs
        )
        yield ""


def _crc(info: TensorInfo) -> str:
    return "none" if info.crc32 is None else f"{info.crc32:08x}"


def _spared(transfer: Transfer) -> str:
    if not transfer.spared:  # Parts of files.
        return f"spared {size(transfer.spared_bytes)} of them"
    return f"spared {_amount(transfer.spared, transfer.spared_bytes)}"


def _amount(names: tuple[str, ...], nbytes: int) -> str:
    return f"{plural(len(names), 'file')} ({size(nbytes)})"
