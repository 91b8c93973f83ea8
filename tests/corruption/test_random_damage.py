"""G4 as a property: whatever is done to the files of a folder, no load ever gives wrong weights."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

import ckptstore

from .saved import everything, facts, plain, save, save_history

TEXTS = {
    "config": "config.json",
    "tokenizer_state": "tokenizer.json",
    "training_state": "training_state.json",
    "step": "training_state.json",
}


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give a single checkpoint, a history of one step, and what they hold; do not change them."""
    folder = tmp_path_factory.mktemp("states")
    save(folder / "generation", seed=1, step=4)
    single = everything(save(folder / "generation", seed=2, step=5))
    save_history(folder / "step", 5)
    return {
        "generation": (folder / "generation", single),
        "step": (folder / "step", everything(ckptstore.open(folder / "step"))),
    }


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, list[tuple[str, int, int, bytes]]]:
    """Draw what is damaged, and how: which file, how, where, and with what."""
    kinds = ("flip", "write", "cut", "extend", "insert", "remove", "delete", "swap", "replace")
    one = st.tuples(
        st.sampled_from(kinds),
        st.integers(0, 2**16),
        st.integers(0, 2**16),
        st.binary(min_size=1, max_size=40),
    )
    return draw(st.sampled_from(("generation", "step"))), draw(
        st.lists(one, min_size=1, max_size=3)
    )


def mutate(folder: Path, kind: str, which: int, at: int, data: bytes) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[which % len(files)]
    held = path.read_bytes()
    at %= len(held) + 1
    if kind == "flip" and at < len(held):
        path.write_bytes(held[:at] + bytes([held[at] ^ (1 << data[0] % 8)]) + held[at + 1 :])
    elif kind == "write":
        path.write_bytes(held[:at] + data + held[at + len(data) :])
    elif kind == "cut":
        path.write_bytes(held[:at])
    elif kind == "extend":
        path.write_bytes(held + data)
    elif kind == "insert":
        path.write_bytes(held[:at] + data + held[at:])
    elif kind == "remove":
        path.write_bytes(held[:at] + held[at + len(data) :])
    elif kind == "delete":
        path.unlink()
    elif kind == "swap":
        path.write_bytes(files[at % len(files)].read_bytes())
    elif kind == "replace":  # With a new inode, as programs that save do.
        path.unlink()
        path.write_bytes(held[:at] + data + held[at + len(data) :])


@given(mutations())
@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_damaged_folder_gives_what_was_saved_or_an_error_of_ours(states, tmp_path, mutation):
    which, steps = mutation
    source, saved = states[which]
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    _linked(source, folder)
    for step in steps:
        if any(path.is_file() for path in folder.rglob("*")):
            mutate(folder, *step)

    try:
        checkpoint = ckptstore.open(folder)
    except ckptstore.CkptstoreError:
        return
    if checkpoint.proved:  # Else no manifest is left to say what was saved.
        _check_facts(checkpoint, saved)
    for name, load in _loads(checkpoint).items():
        with suppress(ckptstore.CkptstoreError):
            loaded = load()
            known = checkpoint.proved and (name == "model" or _says_files(checkpoint))
            assert loaded == saved[name] or not known, name
    with suppress(ckptstore.CkptstoreError):
        report = checkpoint.verify()
        assert not report.sound or not report.proved or _loads(checkpoint)["model"]()


def _says_files(checkpoint: ckptstore.Checkpoint) -> bool:
    """Whether what says which files there are is as it was saved."""
    info = checkpoint.files().get("training_state.json")
    edited = "training_state.json" in checkpoint.edited
    return not edited and info is not None and info.present


def _check_facts(checkpoint: ckptstore.Checkpoint, saved: dict[str, Any]) -> None:
    known = facts(checkpoint)
    wrong = {name for name in known if known[name] != saved[name]}
    edited = {fact for fact, text in TEXTS.items() if text in checkpoint.edited}
    # A copy of a view may lack files, and says so.
    there = {name for name, info in checkpoint.files().items() if info.present}
    absent = {fact for fact, text in TEXTS.items() if text not in there and known[fact] is None}
    assert wrong <= edited | absent


def _loads(checkpoint: ckptstore.Checkpoint) -> dict[str, Any]:
    return {
        "model": lambda: plain(checkpoint.load_model()),
        "optimizer": lambda: plain(checkpoint.load_optimizer()),
        "rng": lambda: plain(checkpoint.load_state("rng")),
    }


def _linked(source: Path, target: Path) -> None:
    """Copy a folder with its hard links."""
    copies: dict[int, Path] = {}
    for path in sorted(source.rglob("*")):
        to = target / path.relative_to(source)
        if path.is_dir():
            to.mkdir(parents=True)
            continue
        to.parent.mkdir(parents=True, exist_ok=True)
        inode = path.stat().st_ino
        if inode in copies:
            to.hardlink_to(copies[inode])
        else:
            shutil.copyfile(path, to)
            copies[inode] = to
