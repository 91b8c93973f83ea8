"""Where the bytes are: a treemap of the modules, one colour for each part that they play."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckptstore.manifest import TensorInfo
from ckptstore.modules import Module
from ckptstore.report.geometry import Box, squarified
from ckptstore.report.markup import Html, joined, tag
from ckptstore.wording import plural, shape_text, size

__all__ = ["Tile", "role_of", "tiles", "treemap"]

WIDTH, HEIGHT = 1040.0, 520.0
_HUES = 6
_MOST_TILES = 1500
_MOST_ENTRIES = 250
_LEAST = 12.0  # A module whose sides are shorter is one tile.
_HEAD = 19.0
_MOST_FRAMES = 2
_LETTER, _LINE, _MARGIN = 6.4, 15.0, 12.0
_WIDTHS = (280, 400, 520, 640, 760, 880, 1000)  # Of the whole, from which on a label is shown.


@dataclass(frozen=True)
class Tile:
    """A rectangle of the treemap.

    Attributes:
        name: of the tensor or module.
        label: what to write into it; shorter ones follow, parts of the name.
        box: where, of `WIDTH` by `HEIGHT`.
        nbytes: what its area stands for.
        module: whether it is a frame around others, with room for its name at the top.
        about: more words for whoever asks.
        role: what it is coloured by.
    """

    name: str
    label: str
    box: Box
    nbytes: int
    module: bool = False
    about: str = ""
    role: str = ""


@dataclass(frozen=True)
class _Rest:
    """The smallest of very many modules and tensors."""

    count: int
    nbytes: int


Entry = Module | TensorInfo | _Rest


def role_of(name: str) -> str:
    """Return the part that a tensor plays: ``blocks.*.sa``, ``token_embedding_table``."""
    parts = name.split(".")
    for at, part in enumerate(parts[:-1]):
        if part.isdecimal() and at:
            inner = parts[at + 1 : at + 2] if at + 2 < len(parts) else []
            return ".".join([*parts[:at], "*", *inner])
    return ".".join(parts[:-1]) or name


def tiles(tensors: Mapping[str, TensorInfo]) -> list[Tile]:
    """Return the tiles of a model, frames before what is in them; at most 1,500 or so."""
    return list(_Layout().of(Module.of(tensors), "", "", Box(0, 0, WIDTH, HEIGHT)))


class _Layout:
    """Divides boxes until nothing of them could be seen, or there are very many."""

    def __init__(self) -> None:
        self._left = _MOST_TILES

    def of(self, module: Module, name: str, label: str, box: Box, depth: int = 0) -> Iterator[Tile]:
        """Yield the tiles of a module.

        Args:
            module: which.
            name: its own.
            label: what of its name no frame around it says.
            box: where to put them.
            depth: frames around it.
        """
        while len(module.modules) == 1 and not module.tensors:
            ((part, module),) = module.modules.items()
            name, label = _below(name, part), _below(label, part)
        inner = box
        numbered = label.isdecimal()
        if name and depth < _MOST_FRAMES + numbered and _has_room(box):
            about = plural(module.parameters, "parameter")
            # A number alone says little: it is told with what it counts.
            label = ".".join(name.split(".")[-2:]) if numbered else label
            yield Tile(name, label, box, module.nbytes, module=True, about=about)
            inner, label, depth = box.inset(2, _HEAD, 2, 2), "", depth + 1
        elif name:
            inner = box.inset(1, 1, 1, 1)
        entries = _entries(module)
        places = squarified([entry.nbytes for _, entry in entries], inner)
        for (part, entry), place in zip(entries, places, strict=True):
            if not entry.nbytes:
                continue
            self._left -= 1
            whole = _below(name, part)
            small = min(place.width, place.height) < _LEAST or self._left <= 0
            if isinstance(entry, Module) and not small:
                yield from self.of(entry, whole, _below(label, part), place, depth)
            else:
                yield _leaf(whole, _below(label, part), entry, place)


def treemap(tensors: Mapping[str, TensorInfo], ties: Iterable[Sequence[str]] = ()) -> Html:
    """Return the figure and its legend, which says the same in numbers.

    Args:
        tensors: of the model.
        ties: names of one and the same bytes, of which the first is shown.
    """
    again = {name for names in ties for name in names[1:]}
    tensors = {name: info for name, info in tensors.items() if name not in again}
    total = sum(info.nbytes for info in tensors.values())
    if not total:
        return tag("p", "There are no bytes of tensors to show.", class_="none")
    roles: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    for name, info in tensors.items():
        role = role_of(name)
        roles[role] += info.nbytes
        counts[role] += 1
        parameters[role] += math.prod(info.shape)
    ranked = [role for role, _ in roles.most_common()]
    hues = {role: min(at, _HUES) for at, role in enumerate(ranked)}
    shown = tiles(tensors)
    largest = ", ".join(f"{role} {_share(roles[role], total)}" for role in ranked[:3])
    figure = tag(
        "div",
        *(_drawn(tile, hues.get(tile.role, _HUES), total) for tile in shown),
        class_="treemap",
        role="img",
        aria_label=f"Treemap of {size(total)} in {plural(len(tensors), 'tensor')}; "
        f"the largest parts are {largest}. The table below has the numbers.",
    )
    told = f"{plural(len(again), 'tied tensor')} left out: the same bytes once more."
    note = tag("p", told, class_="note") if again else ""
    return joined([figure, _legend(ranked, roles, counts, parameters), note])


def _legend(
    ranked: list[str], roles: Counter[str], counts: Counter[str], parameters: Counter[str]
) -> Html:
    total = sum(roles.values())
    rows: list[tuple[str, int, tuple[str, ...]]] = [
        (role, at, (role,)) for at, role in enumerate(ranked[:_HUES])
    ]
    rest = tuple(ranked[_HUES:])
    if rest:
        rows.append((rest[0] if len(rest) == 1 else f"{len(rest)} others", _HUES, rest))
    head = tag("tr", *(tag("th", word) for word in ("Part", "Tensors", "Parameters", "Size", "")))
    body = []
    for label, hue, members in rows:
        nbytes = sum(roles[role] for role in members)
        body.append(
            tag(
                "tr",
                tag("th", tag("i", class_=f"key f{hue}"), label, scope="row"),
                tag("td", f"{sum(counts[role] for role in members):,}"),
                tag("td", f"{sum(parameters[role] for role in members):,}"),
                tag("td", size(nbytes)),
                tag("td", _share(nbytes, total)),
            )
        )
    table = tag("table", tag("thead", head), tag("tbody", *body), class_="numbers parts")
    return tag("div", table, class_="scroll")


def _leaf(name: str, label: str, entry: Entry, box: Box) -> Tile:
    inside = box.inset(0.75, 0.75, 0.75, 0.75)
    if isinstance(entry, Module):
        about = plural(entry.parameters, "parameter")
        return Tile(name, label, inside, entry.nbytes, about=about, role=role_of(f"{name}.x"))
    if isinstance(entry, _Rest):
        return Tile(name, label, inside, entry.nbytes, about=f"the smallest {entry.count:,}")
    about = f"{entry.dtype} {shape_text(entry.shape)}"
    return Tile(name, label, inside, entry.nbytes, about=about, role=role_of(name))


def _drawn(tile: Tile, hue: int, total: int) -> Html:
    box = tile.box
    place = ";".join(
        f"{side}:{value * 100:.3f}%"
        for side, value in (
            ("left", box.x / WIDTH),
            ("top", box.y / HEIGHT),
            ("width", box.width / WIDTH),
            ("height", box.height / HEIGHT),
        )
    )
    share = f"{size(tile.nbytes)}, {_share(tile.nbytes, total)}"
    return tag(
        "div",
        *(_frame_label(tile) if tile.module else _tile_label(tile)),
        class_="frame" if tile.module else f"tile f{hue}",
        style=place,
        title=f"{tile.name}: {tile.about}, {share}",
    )


def _entries(module: Module) -> list[tuple[str, Entry]]:
    """Return what is in a module; of very many the largest, and the others as one."""
    entries: list[tuple[str, Entry]] = [*module.modules.items(), *module.tensors.items()]
    if len(entries) <= _MOST_ENTRIES:
        return entries
    entries.sort(key=lambda entry: -entry[1].nbytes)
    rest = entries[_MOST_ENTRIES:]
    more = _Rest(len(rest), sum(entry.nbytes for _, entry in rest))
    return [*entries[:_MOST_ENTRIES], ("others", more)]


def _has_room(box: Box) -> bool:
    """Whether a module's name has room above what is in it."""
    return box.height > 3 * _HEAD and box.width > 4 * _HEAD


def _frame_label(tile: Tile) -> list[Html]:
    from_width = _shown_from(tile.label, tile.box, 0)
    return [tag("b", tile.label, class_=f"w{max(from_width, 760)}")] if from_width else []


def _tile_label(tile: Tile) -> list[Html]:
    short = tile.label.removesuffix(".weight")
    for label in dict.fromkeys([tile.label, short, short.rpartition(".")[2]]):
        from_width = _shown_from(label, tile.box, _LINE)
        if from_width:
            second = _shown_from(max(label, size(tile.nbytes), key=len), tile.box, 2 * _LINE)
            told = tag("span", size(tile.nbytes), class_=f"w{second}") if second else None
            return [tag("b", label, class_=f"w{from_width}"), *([told] if told else [])]
    return []


def _shown_from(label: str, box: Box, height: float) -> int:
    """Return how wide the treemap has to be for a label to fit into its box; 0 if it never does."""
    wide = (len(label) * _LETTER + _MARGIN) / (box.width / WIDTH) if box.width else math.inf
    high = (height + 3) / box.height * HEIGHT * 2 if box.height else math.inf
    return next((least for least in _WIDTHS if least >= max(wide, high)), 0)


def _below(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part


def _share(nbytes: int, total: int) -> str:
    share = nbytes / total
    return f"{share:.1%}" if share >= 0.0005 or not nbytes else "<0.1%"
