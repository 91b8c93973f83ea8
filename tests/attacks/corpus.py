"""The groups of hostile checkpoints, by name; each is made anew whenever it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import corpus_archives
import corpus_bombs
import corpus_manifests
import corpus_pickles
import corpus_places
import corpus_tensors
import corpus_texts
from building import Gadgets, Item

__all__ = ["GROUPS"]

GROUPS: dict[str, Callable[[Gadgets], Iterator[Item]]] = {
    "globals": corpus_pickles.every_global,
    "opcodes": corpus_pickles.every_opcode,
    "other streams": corpus_pickles.other_streams,
    "hidden": corpus_pickles.hidden,
    "bombs": corpus_bombs.bombs,
    "archives": corpus_archives.archives,
    "tensors": corpus_tensors.tensors,
    "manifests": corpus_manifests.manifests,
    "names": corpus_places.names,
    "links": corpus_places.links,
    "texts": corpus_texts.texts,
    "tokenizers": corpus_texts.tokenizers,
}
