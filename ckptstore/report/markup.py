"""Markup, and the only way to make it: what is not markup already is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ckptstore.wording import clean, short

__all__ = ["Html", "joined", "tag", "text"]

_MOST = 2000
_EMPTY = frozenset({"br", "meta", "path", "line"})


class Html(str):
    """Markup that this package made; any other text is a stranger's."""

    __slots__ = ()


def text(value: object) -> Html:
    """Return a stranger's text as markup that shows it, at most 2,000 characters of it.

    Characters that a screen obeys instead of showing, such as those that turn the direction of
    writing, are shown as their Python escapes.
    """
    return Html(escape(clean(short(str(value), _MOST)), quote=True))


def joined(parts: Iterable[object]) -> Html:
    """Return parts one after another; those that are no markup are escaped."""
    return Html("".join(map(_marked, parts)))


def _marked(value: object) -> Html:
    return value if isinstance(value, Html) else text(value)


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """Return an element.

    Args:
        name: of it, ours.
        children: markup, or text that is escaped; None is left out.
        attributes: names are ours, ``class_`` and ``aria_label`` for ``class`` and ``aria-label``;
            values that are no markup are escaped; None and False are left out.
    """
    told = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_marked(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _EMPTY and not children:
        return Html(f"<{name}{told}>" if name in ("br", "meta") else f"<{name}{told}/>")
    inner = joined(child for child in children if child is not None)
    return Html(f"<{name}{told}>{inner}</{name}>")
