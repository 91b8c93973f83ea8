"""An optimizer as ``inspect`` shows it, known by what its state dict says of itself."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from ckptstore.cli.screen import clean, plural, value_text, width
from ckptstore.structure import kind_of

if TYPE_CHECKING:
    from ckptstore.structure import Group, Structure

__all__ = ["rows"]

_MOST_GROUPS = 4
_INDENT = 12
_SWITCHES = ("maximize", "foreach", "capturable", "differentiable", "fused")


def rows(structure: Structure) -> list[tuple[str, str]]:
    """Return name and text of each line: the kind, what it covers, and its settings."""
    groups = structure.groups or ()
    slots = ", ".join(f"{clean(name)} ({count:,})" for name, count in structure.slots.items())
    covered = plural(sum(group.params for group in groups), "parameter")
    found = [
        ("kind", kind_of(structure) or "not known"),
        ("covers", f"{covered} in {plural(len(groups), 'group')}"),
        ("keeps", slots or "nothing yet"),
    ]
    for number, group in enumerate(groups[:_MOST_GROUPS]):
        name = "settings" if len(groups) == 1 else f"group {number}"
        found += [(name if not at else "", line) for at, line in enumerate(_settings(group))]
    if len(groups) > _MOST_GROUPS:
        found.append(("", f"… and {plural(len(groups) - _MOST_GROUPS, 'group')} more"))
    return found


def _settings(group: Group) -> list[str]:
    """Return the hyperparameters that say something, in lines: switches that are off do not."""
    shown = {
        name: value
        for name, value in group.values.items()
        if value is not None and not (name in _SWITCHES and value is False)
    }
    text = ", ".join(f"{clean(name)} {value_text(value)}" for name, value in shown.items())
    return wrap(text, width() - _INDENT) or ["none"]
