"""What the actors share: named files, requests under way, and a record of what was promised.

Names: ``g2/M`` is the manifest of generation 2, ``g2/m.A1`` its model.pt as the write A1 named
it, ``s3/o`` optimizer.pt of step 3 under its plain name, ``v/c`` config.json in the view. What a
data file or a text holds is the id of the write that made it, or ``U`` for a person's. So a file
and its version (inode, ETag) are the same thing here. ``s3/P`` is the pin of step 3, ``s3/R.A1``
the word that A1 left there, because it is removing that step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .rules import Rules

__all__ = [
    "MANIFEST",
    "PIN",
    "TEXT",
    "USER",
    "WORD",
    "Manifest",
    "Op",
    "Setting",
    "World",
    "first_world",
    "folder_of",
]

MANIFEST, TEXT, USER, PIN, WORD = "M", "c", "U", "P", "R"


class Manifest(NamedTuple):
    """A manifest, as far as anybody decides by it."""

    wid: str
    folder: str
    paths: tuple[tuple[str, str], ...]
    """Plain name and the name that holds it; the text first."""
    text: str
    earlier: frozenset[tuple[str, str]] = frozenset()
    """Plain name and content of the forerunners' files."""
    shown: tuple[tuple[str, str], ...] = ()
    """In a view: plain name and version of what the view was given."""

    @property
    def number(self) -> int:
        """The generation or step."""
        return int(self.folder[1:])

    def data(self) -> tuple[tuple[str, str], ...]:
        """Return the files of bytes, the JSON left out."""
        return tuple((plain, path) for plain, path in self.paths if plain != TEXT)

    def plain(self) -> tuple[str, ...]:
        """Return the plain names."""
        return tuple(plain for plain, _ in self.paths)


class Op(NamedTuple):
    """One operation that a program asks for.

    Attributes:
        kind: the method of `Storage`, or what the model alone knows (``start``, ``ack`` …).
        name: of the file or folder.
        value: what is written, or expected.
        other: a second value.
        alone: whether it commutes with whatever anybody else may do, so that it can be done at
            once and without trying it at every later moment. Such are: what has no effect on
            storage; listings whose result nobody looks at; and creating or deleting a file under
            a name unique to a write, as long as no manifest names it, but the first of them
            where folders can be seen. Others see such a file only as one more name in a
            leftover, and leftovers are removed name by name, whatever they hold.
    """

    kind: str
    name: str = ""
    value: Any = None
    other: Any = None
    alone: bool = False


class World(NamedTuple):
    """One state of what is shared.

    Attributes:
        files: name and content, sorted.
        acked: folder and write id of the saves that returned, in order; and of the pins, which
            have ``p3`` for the folder of step 3.
        crashes, lost, repeats: how many more crashes, lost replies and repeated requests there
            may be.
        flight: requests whose reply was given up, or that were repeated: they may still land.
        old: writes whose files somebody found older than a day.
        hurrying: writes that have looked at the clock, and are about to commit.
        stolen: saves whose manifest was deleted by somebody who meant another.
    """

    files: tuple[tuple[str, Any], ...]
    acked: tuple[tuple[str, str], ...] = ()
    crashes: int = 0
    lost: int = 0
    repeats: int = 0
    flight: tuple[Op, ...] = ()
    old: frozenset[str] = frozenset()
    hurrying: frozenset[str] = frozenset()
    stolen: tuple[tuple[str, str], ...] = ()


class Setting(NamedTuple):
    """What stays the same through one search.

    Attributes:
        rules: which rules the programs keep.
        storage: ``s3``, ``local`` (a listing is several operations, and an opened file stays
            readable), or ``memory`` (both are one operation, and stay).
        ages: whether a writer may sleep for so long that its files look like leftovers.
        kept: steps that every policy keeps.
        same_size: whether all files of a name have one size, so that only their ends differ.
        meant: whether it counts that a removal takes a save which it did not mean.
        puts: whether a person replaces model.pt in the view.
        pins: whether somebody pins steps; else nobody looks at what is there for the sake of pins.
    """

    rules: Rules = Rules()
    storage: str = "s3"
    ages: bool = False
    kept: tuple[str, ...] = ()
    same_size: bool = True
    meant: bool = False
    puts: bool = False
    pins: bool = False


def folder_of(name: str) -> str:
    """Return the folder of a file."""
    return name.partition("/")[0]


def first_world(
    *manifests: Manifest,
    view: Manifest | None = None,
    files: dict[str, Any] | None = None,
    **more: Any,
) -> World:
    """Return a world of whole states, and a view of one of them."""
    found: dict[str, Any] = dict(files or {})
    for manifest in manifests:
        found[f"{manifest.folder}/{MANIFEST}"] = manifest
        for plain, path in manifest.paths:
            found[f"{manifest.folder}/{path}"] = manifest.text if plain == TEXT else manifest.wid
    if view is not None:
        shown = tuple((plain, view.text if plain == TEXT else view.wid) for plain in view.plain())
        found |= {f"v/{plain}": value for plain, value in shown}
        found[f"v/{MANIFEST}"] = view._replace(shown=shown)
    acked = tuple((manifest.folder, manifest.wid) for manifest in manifests)
    return World(tuple(sorted(found.items(), key=lambda item: item[0])), acked=acked, **more)
