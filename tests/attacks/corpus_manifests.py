"""Manifests that name files elsewhere, lie about sizes and counts, or are of other types."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from building import (
    GENERATION,
    Gadgets,
    Item,
    base,
    change_manifest,
    changed_manifest,
    put,
)

__all__ = ["manifests"]

Change = Callable[[dict[str, Any]], Any]
_OPEN = frozenset({"open"})


def set_at(*keys: str, to: Any) -> Change:
    """Return what puts a value at a place of a manifest; ``*`` is the model's entry."""

    def change(raw: dict[str, Any]) -> None:
        target: Any = raw
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = to

    return change


def manifests(gadgets: Gadgets) -> Iterator[Item]:
    """Yield committed checkpoints with one lie in the manifest of their generation."""
    for path in _elsewhere(gadgets):
        for keys in (("files", "model.pt", "path"), ("texts", "config.json", "path")):
            title = f"{keys[1]} is in {path[:30]!a}"
            yield Item(title, changed_manifest(set_at(*keys, to=path)), _OPEN)
        yield Item(f"a file called {path[:30]!a}", changed_manifest(_renamed(path)), _OPEN)
        yield Item(
            f"a write id {path[:30]!a}", changed_manifest(set_at("write_id", to=path)), _OPEN
        )
    for title, change in _in_place().items():
        yield Item(title, changed_manifest(change), frozenset({"model"}), frozenset({3, 4, 5}))
    for title, change in _lies().items():
        yield Item(title, changed_manifest(change), _OPEN, frozenset({1, 4, 5, 6}))
    for title, change in _odd().items():
        yield Item(title, changed_manifest(change), frozenset())
    yield from _types()
    yield from _folders()


def _elsewhere(gadgets: Gadgets) -> tuple[str, ...]:
    """Return names that lead out of a folder, or to what is no file."""
    return (
        str(gadgets.outside / "secret.pt"),
        "../../../outside/secret.pt",
        "../00000002/model.pt",
        "..",
        ".",
        "",
        " ",
        "a/../../x",
        "..\\x",
        "C:x",
        "file:///etc/passwd",
        "s3://bucket/model.pt",
        "http://127.0.0.1:9/model.pt",
        "model.pt\0.json",
        "model\n.pt",
        "\ud800.pt",
        "m" * 300,
        "x/y",
    )


def _renamed(name: str) -> Change:
    def change(raw: dict[str, Any]) -> None:
        raw["files"][name] = raw["files"].pop("optimizer.pt")

    return change


def _in_place() -> Mapping[str, Change]:
    """Return lies that are found when the weights are read."""
    model = ("files", "model.pt")
    return {
        "another file's name": set_at(*model, "path", to="manifest.json"),
        "a name in capitals": set_at(*model, "path", to="MODEL.PT"),
        "a folder's name": set_at(*model, "path", to=".ckptstore"),
        "a file that is absent": set_at(*model, "path", to="absent.pt"),
        "a smaller size": set_at(*model, "size", to=1),
        "a larger size": set_at(*model, "size", to=8 * 2**20),
        "another checksum": set_at(*model, "chunks", "checksums", to=["0" * 32]),
    }


def _lies() -> Mapping[str, Change]:
    """Return lies that are found when the manifest is read."""
    chunks = ("files", "model.pt", "chunks")
    tensor = ("files", "model.pt", "tensors", "lm_head.bias")
    return {
        "a chunk size of 0": set_at(*chunks, "size", to=0),
        "a chunk size of -1": set_at(*chunks, "size", to=-1),
        "a chunk size of 2^62": set_at(*chunks, "size", to=2**62),
        "a chunk size of 1": set_at(*chunks, "size", to=1),
        "no chunks": set_at(*chunks, "checksums", to=[]),
        "too many chunks": set_at(*chunks, "checksums", to=["00"] * 1000),
        "chunks that are no list": set_at(*chunks, "checksums", to="0" * 32),
        "a checksum that is none": set_at(*chunks, "checksums", to=["../x"]),
        "a size of 2^62": set_at("files", "model.pt", "size", to=2**62),
        "a size of -1": set_at("files", "model.pt", "size", to=-1),
        "a size that is true": set_at("files", "model.pt", "size", to=True),
        "a size that is a float": set_at("files", "model.pt", "size", to=1e3),
        "a size of 4000 digits": set_at("files", "model.pt", "size", to=10**4000),
        "a tensor of -1 bytes": set_at(*tensor, "nbytes", to=-1),
        "a tensor of 4000 digits": set_at(*tensor, "nbytes", to=10**4000),
        "a shape of 4000 digits": set_at(*tensor, "shape", to=[10**4000] * 40),
        "a shape of 2^68": set_at(*tensor, "shape", to=[2**68]),
        "a shape of a thousand dimensions": set_at(*tensor, "shape", to=[2**31] * 1000),
        "a shape that is a text": set_at(*tensor, "shape", to="123"),
        "a shape with a negative size": set_at(*tensor, "shape", to=[-1]),
        "a CRC of 4000 digits": set_at(*tensor, "crc32", to=10**4000),
        "another generation's number": set_at("generation", to=2),
        "a generation of -1": set_at("generation", to=-1),
        "a generation of 10^30": set_at("generation", to=10**30),
        "no generation": set_at("generation", to=None),
        "a step of -1": set_at("step", to=-1),
        "a step that is a text": set_at("step", to="3"),
        "a step of 4000 digits": set_at("step", to=10**4000),
        "version 2": set_at("ckptstore", to=2),
        "version 10^400": set_at("ckptstore", to=10**400),
        "version true": set_at("ckptstore", to=True),
        "version 0": set_at("ckptstore", to=0),
        "no version": lambda raw: raw.pop("ckptstore"),
        "an unknown format": set_at("format", to="os"),
        "a format that is a path": set_at("format", to="../../x"),
        "a format without an end": set_at("format", to="b" * 3_000_000),
        "another text": set_at("texts", "config.json", "text", to='{"a": 1}'),
        "a time that is none": set_at("created", to="yesterday"),
        "a time without a zone": set_at("created", to="2026-01-01"),
        "a metric of 400 digits": set_at("metrics", "val_loss", to=10**400),
        "a metric that is a text": set_at("metrics", "val_loss", to="1"),
        "NaN": lambda raw: json.dumps({**raw, "metrics": {"val_loss": float("nan")}}),
        "Infinity": lambda raw: json.dumps(raw).replace(
            '"metrics": {}', '"metrics": {"a": Infinity}'
        ),
        "a key twice": lambda raw: json.dumps(raw)[:-1] + ', "write_id": "x"}',
        "a list": lambda raw: "[1]",
        "deep": lambda raw: '{"ckptstore": 1, "a": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "a million digits": lambda raw: '{"ckptstore": ' + "9" * 10**6 + "}",
        "cut": lambda raw: json.dumps(raw)[:-20],
        "empty": lambda raw: "",
        "binary": lambda raw: "\0" * 100,
    }


def _odd() -> Mapping[str, Change]:
    """Return what is odd, and harmless or told apart only by some: nothing may go wrong."""
    config = {"path": "x.json", "sha256": "", "text": ""}
    return {
        "an unknown algorithm": set_at("files", "model.pt", "chunks", "algorithm", to="os.system"),
        "an algorithm without an end": set_at(
            "files", "model.pt", "chunks", "algorithm", to="b" * 3_000_000
        ),
        "a write id of one letter": set_at("write_id", to="m"),
        "a writer without an end": set_at("writer", to="\x1b[2J" * 500_000),
        "a dtype that commands the terminal": set_at(
            "files", "model.pt", "tensors", "lm_head.bias", "dtype", to="\x1b[2J"
        ),
        "a tensor's name that commands the terminal": lambda raw: raw["files"]["model.pt"][
            "tensors"
        ].update({"\x1b]0;x\x07\ud800": {"dtype": "a", "shape": [1], "nbytes": 4, "crc32": 1}}),
        "a fingerprint that is none": set_at("fingerprint", to="sha256:zz"),
        "no model": lambda raw: raw["files"].pop("model.pt"),
        "no texts": set_at("texts", to={}),
        "a text called model.pt": lambda raw: raw["texts"].update({"model.pt": config}),
        "forerunners without an end": set_at("earlier", to={"config.json": ["00"] * 200_000}),
        "files of others": lambda raw: raw["files"].update(
            dict.fromkeys(("latest.pt", "setup.py", ".bashrc"), raw["files"]["extra.pt"])
        ),
        "the manifest among its own files": lambda raw: raw["files"].update(
            {"manifest.json": raw["files"]["extra.pt"]}
        ),
        "twenty thousand tensors": lambda raw: raw["files"]["model.pt"]["tensors"].update(
            {
                f"t{i}": {"dtype": "float32", "shape": [1], "nbytes": 4, "crc32": 1}
                for i in range(20_000)
            }
        ),
        "a thousand files": lambda raw: raw["files"].update(
            {f"{i}.pt": raw["files"]["extra.pt"] for i in range(1000)}
        ),
    }


def _types() -> Iterator[Item]:
    """Yield manifests with a value of another type in each field."""
    raw = json.loads(base()[str(GENERATION / "manifest.json")])
    for field in raw:
        for wrong in ([], "x", 1.5, {"a": []}, False):
            if field in ("sha256", "fingerprint", "step", "generation", "writer", "format"):
                continue
            if (field, wrong) in (("write_id", "x"), ("earlier", {"a": []})):
                continue
            title = f"{field} is {json.dumps(wrong)}"
            yield Item(title, changed_manifest(set_at(field, to=wrong)), _OPEN)
    for keys in (("files", "model.pt"), ("files", "model.pt", "chunks"), ("texts", "config.json")):
        for wrong in (None, [], "x", 7):
            title = f"{'.'.join(keys)} is {json.dumps(wrong)}"
            yield Item(title, changed_manifest(set_at(*keys, to=wrong)), _OPEN)


def _folders() -> Iterator[Item]:
    """Yield manifests in the wrong places, and folders with names that lie."""

    def build(*names: str, view: bool = False) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            put(folder, base())
            data = (folder / GENERATION / "manifest.json").read_bytes()
            put(folder, {f"{name}/manifest.json": data for name in names})
            if view:
                (folder / "manifest.json").write_bytes(data)

        return make

    yield Item("a generation under another number", build(".ckptstore/00000009"), _OPEN)
    yield Item("a generation of 18 digits", build(f".ckptstore/{'9' * 18}"), _OPEN)
    yield Item("a generation of 19 digits", build(f".ckptstore/{'9' * 19}"), frozenset())
    yield Item(
        "a generation in other digits",
        build(".ckptstore/\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668"),
        frozenset(),
    )
    yield Item("a generation as a step", build("step-00000009"), _OPEN)
    yield Item("a step that is no number", build("step-../x", "step-x", "step-"), frozenset())
    yield Item("a view that shows a hidden one", build(view=True), frozenset())

    def hostile_view(folder: Path) -> None:
        put(folder, base())
        raw = json.loads((folder / "manifest.json").read_text())
        del raw["sha256"]
        raw["files"] = {f"../{name}": entry for name, entry in raw["files"].items()}
        (folder / "manifest.json").write_text(json.dumps(raw))

    yield Item("a view whose files lead out", hostile_view, frozenset())

    def hostile_copy(folder: Path) -> None:
        hostile_view(folder)
        (folder / GENERATION / "manifest.json").unlink()

    yield Item("a copy whose files lead out", hostile_copy, _OPEN)

    def two(folder: Path) -> None:
        put(folder, base())
        put(folder, {str(GENERATION / "x/manifest.json"): b"{}"})
        change_manifest(folder, set_at("files", "model.pt", "path", to="../00000002/m.pt"))

    yield Item("a folder in a generation", two, _OPEN)
