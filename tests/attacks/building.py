"""How hostile checkpoints are made: from a small real one, with one thing changed."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

import ckptstore
from ckptstore.digests import Chunks, sha256_of
from gpt.config import GPTConfig
from gpt.model import GPT

__all__ = [
    "GENERATION",
    "NO_BUNDLE",
    "Gadgets",
    "Item",
    "base",
    "called",
    "change_manifest",
    "changed_manifest",
    "committed",
    "glob",
    "number",
    "plain",
    "put",
    "saved",
    "text",
    "value",
    "zipped",
]

GENERATION = Path(".ckptstore/00000001")
REFUSED = frozenset({4, 5})
NO_BUNDLE: Mapping[str, bytes | None] = dict.fromkeys(
    ("model.pt", "config.json", "tokenizer.json", "training_state.json", "optimizer.pt", "extra.pt")
)


@dataclass(frozen=True)
class Item:
    """One hostile checkpoint.

    Attributes:
        name: for people.
        build: makes it in a folder that is not there yet.
        touches: the parts that are hostile; whatever reads one of them has to refuse it.
        codes: the exit codes that such a refusal may have.
        target: the file to open instead of the folder.
        large: whether even a refusal takes time, so that it goes through fewer actions.
        follows: whether links of the user's own lead outside here, and may be read through.
    """

    name: str
    build: Callable[[Path], None]
    touches: frozenset[str]
    codes: frozenset[int] = REFUSED
    target: str = ""
    large: bool = False
    follows: bool = False


@dataclass(frozen=True)
class Gadgets:
    """What a payload may use to leave a mark.

    Attributes:
        mark: the file that appears when something was run.
        outside: a folder outside of every checkpoint, with files that nobody may read or change.
    """

    mark: Path
    outside: Path
    script: Path = field(default=Path())

    @property
    def command(self) -> str:
        return f"touch {self.mark}"

    @property
    def code(self) -> str:
        return f"open({str(self.mark)!r}, 'w').close()"


# -- pickles ---------------------------------------------------------------------------------


def value(inner: Any) -> bytes:
    """Return the pickle of plain data, without its frame."""
    return pickle.dumps(inner, 2)[2:-1]


def text(inner: str) -> bytes:
    """Return the opcodes of a text."""
    raw = inner.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(inner: int) -> bytes:
    """Return the opcodes of a number of up to 255 bytes."""
    raw = inner.to_bytes((inner.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def glob(name: str) -> bytes:
    """Return the opcode that names ``module:attribute``."""
    module, _, attribute = name.partition(":")
    return f"c{module}\n{attribute}\n".encode()


def called(name: str, *args: Any) -> bytes:
    """Return the opcodes that call ``module:attribute`` with plain arguments."""
    return glob(name) + value(args) + b"R"


def zipped(
    pickled: bytes, records: Mapping[str, bytes] | None = None, *, frame: bool = True
) -> bytes:
    """Return a `.pt` of opcodes and records, stored as torch stores them."""
    if frame:
        pickled = b"\x80\x02" + pickled + b"."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", b"little")
        for name, data in {"version": b"3\n", **(records or {})}.items():
            archive.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def saved(obj: Any, **options: Any) -> bytes:
    """Return what `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(obj, buffer, **options)
    return buffer.getvalue()


# -- checkpoints -----------------------------------------------------------------------------


@cache
def base() -> Mapping[str, bytes]:
    """Return the files of a whole checkpoint of a tiny GPT, by their names in the location."""
    import tempfile

    torch.manual_seed(0)
    config = GPTConfig(
        batch_size=1, block_size=4, vocab_size=3, n_embd=4, n_head=1, n_layer=1, device="cpu"
    )
    tokenizer = {"token_kind": "char", "chars": ["\n", "a", "b"]}
    model = GPT(config, tokenizer)
    optimizer = model.configure_optimizer()
    model(torch.tensor([[0, 1, 2]]), torch.tensor([[1, 2, 0]]))[1].backward()
    optimizer.step()
    with tempfile.TemporaryDirectory() as folder:
        ckptstore.save(
            folder,
            model=model.state_dict(),
            config=config.to_dict(),
            tokenizer=tokenizer,
            optimizer=optimizer,
            step=3,
            state={"extra": {"a": torch.ones(2)}},
        )
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def plain(changes: Mapping[str, bytes | None]) -> Callable[[Path], None]:
    """Return what makes a folder of plain files, some of them changed or left out."""

    def build(folder: Path) -> None:
        files: dict[str, bytes | None] = {
            name: data for name, data in base().items() if "/" not in name
        }
        del files["manifest.json"]
        files |= changes
        put(folder, {name: data for name, data in files.items() if data is not None})

    return build


def committed(name: str, data: bytes) -> Callable[[Path], None]:
    """Return what makes a committed checkpoint with one file of bytes put in by its author.

    The manifest agrees with it in every digest, as that of somebody who can write both would.
    """

    def build(folder: Path) -> None:
        put(folder, base())

        def change(raw: dict[str, Any]) -> None:
            entry = raw["files"][name]
            chunks = Chunks()
            chunks.update(data)
            digest = chunks.digest(sha256_of(data))
            (folder / GENERATION / entry["path"]).write_bytes(data)
            entry |= {"size": digest.size, "sha256": digest.sha256}
            entry["chunks"]["checksums"] = list(digest.checksums)

        change_manifest(folder, change)
        shown = json.loads((folder / "manifest.json").read_text())
        (folder / name).unlink()
        (folder / name).write_bytes(data)
        del shown["shown"][name], shown["sha256"]
        (folder / "manifest.json").write_text(json.dumps(shown))

    return build


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a generation's manifest in place; without a digest of its own, which it may lack."""
    path = folder / GENERATION / "manifest.json"
    raw = json.loads(path.read_text())
    raw.pop("sha256", None)
    changed = change(raw)
    path.write_text(changed if isinstance(changed, str) else json.dumps(raw))


def changed_manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Return what makes a committed checkpoint whose manifest was changed by ``change``."""

    def build(folder: Path) -> None:
        put(folder, base())
        change_manifest(folder, change)

    return build
