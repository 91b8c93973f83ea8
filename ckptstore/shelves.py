"""What plugins add, by name, and who claims one name with whom.

A name that two claim is nobody's, and a fault of one plugin never hides what another one adds.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from ckptstore.discovery import BUILT_IN, Plugin, PluginInfo, remedy
from ckptstore.errors import PluginError, UnsupportedError
from ckptstore.formats.base import Format
from ckptstore.tokenizers.base import Tokenizer

__all__ = ["Registry", "Shelf", "registry_of"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Shelf(Generic[_T]):
    """What plugins add of one sort.

    Attributes:
        sort: what one of them is called.
        things: the undisputed ones by name.
        disputes: name to the error about who claims it.
        faults: errors about plugins that may have had more to add.
        notes: what else may explain that a name is missing.
    """

    sort: str
    things: Mapping[str, _T]
    disputes: Mapping[str, str]
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    def all(self) -> dict[str, _T]:
        """Return all by name.

        Raises:
            PluginError: a name is disputed, or a plugin is faulty.
        """
        _raise((*self.disputes.values(), *self.faults))
        return dict(self.things)

    def get(self, name: str) -> _T | None:
        """Return the one of a name, or None where there is none.

        Raises:
            PluginError: the name is disputed.
        """
        if name in self.disputes:
            raise PluginError(self.disputes[name])
        return self.things.get(name)

    def named(self, name: str) -> _T:
        """Return the one of a name.

        Raises:
            UnsupportedError: there is none; the message says which there are.
            PluginError: the name is disputed, or may be missing because of a faulty plugin.
        """
        thing = self.get(name)
        if thing is not None:
            return thing
        _raise(self.faults)
        near = difflib.get_close_matches(name, self.things, n=1)
        raise UnsupportedError(
            f"the {self.sort} {name!r} is not installed; installed: "
            + ", ".join(map(repr, sorted(self.things)))
            + "".join(f"; {note}" for note in self.notes)
            + (f"; did you mean {near[0]!r}?" if near else "; install the plugin that provides it")
        )


@dataclass(frozen=True)
class Registry:
    """All that was found.

    Attributes:
        infos: every plugin, the built-ins first.
        formats: the formats.
        kinds: the tokenizer kinds.
    """

    infos: tuple[PluginInfo, ...]
    formats: Shelf[Format]
    kinds: Shelf[type[Tokenizer]]


def registry_of(plugins: tuple[Plugin, ...]) -> Registry:
    """Return what plugins add, every name judged."""
    faults = tuple(plugin.fault for plugin in plugins if plugin.fault)
    notes = tuple(
        f"the plugin {plugin.info} "
        + (f"is switched off by {plugin.info.off_by}" if plugin.info.off_by else "failed to load")
        for plugin in plugins
        if plugin.info.status != "active"
    )
    formats = _shelf("format", [(p.info, p.formats) for p in plugins], faults, notes)
    kinds = _shelf("tokenizer kind", [(p.info, p.kinds) for p in plugins], faults, notes)
    infos = tuple(_judged(plugin.info, formats, kinds) for plugin in plugins)
    return Registry(infos=infos, formats=formats, kinds=kinds)


def _shelf(
    sort: str,
    offers: list[tuple[PluginInfo, Mapping[str, _T]]],
    faults: tuple[str, ...],
    notes: tuple[str, ...],
) -> Shelf[_T]:
    claims: dict[str, list[tuple[PluginInfo, _T]]] = {}
    for info, things in offers:
        for name, thing in things.items():
            claims.setdefault(name, []).append((info, thing))
    return Shelf(
        sort=sort,
        things={name: who[0][1] for name, who in claims.items() if len(who) == 1},
        disputes={
            name: f"the {sort} {name!r} is claimed by {' and by '.join(str(i) for i, _ in who)}; "
            + remedy(who[-1][0])
            for name, who in claims.items()
            if len(who) > 1
        },
        faults=faults,
        notes=notes,
    )


def _judged(info: PluginInfo, formats: Shelf[Format], kinds: Shelf[type[Tokenizer]]) -> PluginInfo:
    errors = [formats.disputes[name] for name in info.formats if name in formats.disputes]
    errors += [kinds.disputes[name] for name in info.tokenizers if name in kinds.disputes]
    if not errors or info.distribution == BUILT_IN:
        return info
    return replace(info, status="failed", error="; ".join(errors))


def _raise(faults: tuple[str, ...]) -> None:
    if faults:
        raise PluginError("; ".join(faults))
