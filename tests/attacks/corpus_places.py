"""Names in JSON that lead elsewhere, and links on the disk that do."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from building import GENERATION, Gadgets, Item, base, plain, put

__all__ = ["links", "names"]


def names(gadgets: Gadgets) -> Iterator[Item]:
    """Yield training states that name an optimizer or a further state elsewhere."""
    unsafe = (
        str(gadgets.outside / "secret.pt"),
        "../outside/secret.pt",
        "../../outside/secret.pt",
        "a/../../../outside/secret.pt",
        "./optimizer.pt",
        "sub/optimizer.pt",
        "..",
        ".",
        "",
        "s3://bucket/x.pt",
        "file:///etc/passwd",
        f"file://{gadgets.outside}/secret.pt",
        "http://127.0.0.1:9/x.pt",
        "memory://x/y.pt",
        "optimizer.pt\0",
        "\x1b[31m.pt",
        "..\\..\\outside\\secret.pt",
        "C:\\x.pt",
        "\ud800.pt",
        "x" * 100_000,
    )
    for name in unsafe:
        state = json.dumps({"step": 3, "optimizer_file": name}).encode()
        build = plain({"training_state.json": state})
        yield Item(f"optimizer_file {name[:40]!a}", build, frozenset({"open"}))
        edited = _edited("training_state.json", state)
        yield Item(f"optimizer_file {name[:40]!a}, by hand", edited, frozenset({"open"}))
        state = json.dumps(
            {"step": 3, "extra_file": name, f"{name[:99]}_file": "extra.pt"}
        ).encode()
        yield Item(f"extra_file {name[:40]!a}", plain({"training_state.json": state}), frozenset())
    absent = frozenset({1, 3, 4, 5})
    for wrong in (1, 1.5, True, [], {}, ["optimizer.pt"]):
        state = json.dumps({"step": 3, "optimizer_file": wrong}).encode()
        build = plain({"training_state.json": state})
        yield Item(f"optimizer_file {wrong!r}", build, frozenset({"open"}))
    for name in (
        "manifest.json",
        "model.pt/",
        "nul",
        "CON",
        "OPTIMIZER.PT",
        "folder",
        "config.json",
    ):
        state = json.dumps({"step": 3, "optimizer_file": name.strip("/")}).encode()
        build = _with_folder(plain({"training_state.json": state}))
        touches = frozenset() if name == "model.pt/" else frozenset({"optimizer"})
        yield Item(f"optimizer_file {name!r}", build, touches, absent)
    for step in (-1, 2**70, 10**4000, 1.5, "3", True, [], "\x1b[31m"):
        state = json.dumps({"step": step}).encode()
        yield Item(f"step {str(step)[:20]!a}", plain({"training_state.json": state}), frozenset())


def _edited(name: str, data: bytes) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        put(folder, base())
        (folder / name).write_bytes(data)

    return build


def _with_folder(build: Callable[[Path], None]) -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        build(folder)
        (folder / "folder").mkdir()

    return made


def links(gadgets: Gadgets) -> Iterator[Item]:
    """Yield checkpoints with links that lead outside, in circles, and to what is no file."""
    outside = gadgets.outside
    # Links under fixed names are the user's own, and are read through; never written through.
    for name in ("model.pt", "config.json", "optimizer.pt", "training_state.json", "extra.pt"):
        yield Item(
            f"a user's link {name}",
            _linked({name: outside / name}, plain({})),
            frozenset(),
            follows=True,
        )
    every: Mapping[str, Path] = {
        name: outside / name for name in base() if "/" not in name and name != "manifest.json"
    }
    yield Item("a user's links", _linked(every, plain({})), frozenset(), follows=True)
    yield Item("a view of links", _linked(every, _whole), frozenset(), follows=True)
    yield Item(
        "links to nowhere",
        _linked(dict.fromkeys(every, outside / "no"), _whole),
        frozenset(),
        follows=True,
    )
    for name in ("manifest.json", ".ckptstore", str(GENERATION), str(GENERATION / "manifest.json")):
        build = _linked({name: outside / name}, _whole)
        yield Item(f"a link {name}", build, frozenset(), follows=True)
    generation = [name for name in base() if name.startswith(f"{GENERATION}/")]
    build = _linked({name: outside / name for name in generation}, _whole)
    yield Item("a generation of links", build, frozenset(), follows=True)
    # A name that data chose must not lead out by way of a link.
    for field in ("optimizer_file", "extra_file"):
        state = json.dumps({"step": 3, field: "chosen.pt"}).encode()
        chosen = plain({"training_state.json": state})
        part = "optimizer" if field == "optimizer_file" else "state"
        link = _linked({"chosen.pt": outside / "secret.pt"}, chosen)
        yield Item(f"a link that {field} names", link, frozenset({part}))
    state = json.dumps({"step": 3, "optimizer_file": "secret"}).encode()
    secret = _linked({"secret": outside / "secret"}, plain({"training_state.json": state}))
    yield Item("a link to a secret", secret, frozenset({"optimizer"}))
    circle = _linked({"model.pt": Path("model.pt")}, _whole)
    yield Item("a circle", circle, frozenset())
    yield Item(
        "a circle of folders", _linked({"a": Path("."), "b": Path("..")}, _whole), frozenset()
    )
    yield Item(
        "a circle instead of generations",
        _linked({".ckptstore": Path(".ckptstore")}, plain({})),
        frozenset(),
    )
    yield Item(
        "a step that is the folder above",
        _linked({"step-00000009": Path(".")}, _whole),
        frozenset(),
    )
    for name in (
        "model.pt",
        "config.json",
        "optimizer.pt",
        "manifest.json",
        str(GENERATION / "manifest.json"),
    ):
        for title, make in _NO_FILES.items():
            yield Item(f"{title} called {name}", _instead(name, make), frozenset())


def _whole(folder: Path) -> None:
    put(folder, base())


def _linked(links: Mapping[str, Path], build: Callable[[Path], None]) -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        build(folder)
        for name, target in links.items():
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                os.rename(path, f"{path}.aside")
            elif path.exists():
                path.unlink()
            path.symlink_to(target)

    return made


def _socket(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # A socket's name is short.
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


_NO_FILES: Mapping[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
}


def _instead(name: str, make: Callable[[Path], None]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        put(folder, base())
        (folder / name).unlink()
        make(folder / name)

    return build
