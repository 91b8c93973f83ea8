"""`Store(format=...)` and `save(format=...)`: any writable format that is installed, anywhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

import ckptstore
from ckptstore.background import running
from ckptstore.errors import UnsupportedError
from ckptstore.testing import Crash, Killed, Nothing, inject
from tests.plugins.conftest import Install
from tests.plugins.test_converting_to import ONE_FILE, READ_ONLY

RAW = """
    from ckptstore import CorruptionError, TensorInfo, hookimpl, tensors
    from ckptstore.formats.base import Format, Reader
    from ckptstore.texts import dump_json, parse_json

    class RawReader(Reader):
        def __init__(self, files):
            self.source = files
            said = parse_json(files.text("raw.json"), "raw.json")
            self.config, self.step, self.sizes = said["config"], said["step"], said["sizes"]

        def tensors(self):
            return {n: TensorInfo("float32", (s,), 4 * s) for n, s in self.sizes.items()}

        def load_model(self, names=None, map_location="cpu"):
            import torch
            model = {}
            with self.source.open("raw.bin") as file:
                for name, size in self.sizes.items():
                    model[name] = torch.empty(size)
                    file.readinto(tensors.bytes_of(model[name]))
            return model if names is None else {name: model[name] for name in names}

        def files(self):
            return ("raw.bin", "raw.json")

    class Raw(Format):
        name = "raw"
        writable = True

        def matches(self, files):
            return "raw.json" in files.names()

        def read(self, files):
            return RawReader(files)

        def write(self, contents, files):
            sizes = {name: tensor.numel() for name, tensor in contents.model.items()}
            said = {"config": contents.config, "step": contents.step, "sizes": sizes}
            files.write_text("raw.json", dump_json(said))
            with files.create("raw.bin") as sink:
                for tensor in contents.model.values():
                    sink.lend(tensors.bytes_of(tensor.contiguous()))

    @hookimpl
    def ckptstore_formats():
        return [Raw]
"""


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((5,), value), "b": torch.full((3,), -value)}


@pytest.fixture(autouse=True)
def raw(install: Install) -> None:
    install("raw", RAW)


def check(checkpoint: ckptstore.Checkpoint, value: float) -> None:
    assert (checkpoint.format, checkpoint.proved) == ("raw", True)
    assert checkpoint.config == {"n": value}
    found = checkpoint.load_model()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights(value).items())
    assert checkpoint.verify().sound


def test_a_save_is_in_the_format_on_every_storage(location) -> None:
    options = location.storage_options
    for value in (1.0, 2.0):
        ckptstore.save(
            location.url,
            model=weights(value),
            config={"n": value},
            step=7,
            format="raw",
            storage_options=options,
        )

    checkpoint = ckptstore.open(location.url, storage_options=options)
    check(checkpoint, 2.0)
    assert (checkpoint.generation, checkpoint.step) == (2, 7)


@pytest.mark.parametrize("keep", [None, ckptstore.Keep(last=2)])
def test_saves_in_the_background_are_in_the_format(location, keep) -> None:
    with ckptstore.Store(
        location.url, keep=keep, format="raw", storage_options=location.storage_options
    ) as store:
        for step in (1.0, 2.0, 3.0):
            done = store.save_async(model=weights(step), config={"n": step}, step=int(step))
        check(done.result(), 3.0)
        check(store.open(), 3.0)
        assert store.steps() == (() if keep is None else (2, 3))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such processes")
def test_a_process_of_its_own_writes_the_format(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(running, "_WORTH_A_PROCESS", 0)

    with ckptstore.Store(tmp_path / "dante", format="raw") as store:
        done = store.save_async(model=weights(1.0), config={"n": 1.0}, step=1)
        check(done.result(), 1.0)
        assert store._background._process._running is not None, "no process was started"


def test_the_view_has_the_files_of_the_format_alone(tmp_path: Path) -> None:
    ckptstore.save(tmp_path / "dante", model=weights(1.0))
    ckptstore.save(tmp_path / "dante", model=weights(2.0), config={"n": 2.0}, format="raw")

    assert sorted(os.listdir(tmp_path / "dante")) == [
        ".ckptstore",
        "manifest.json",
        "raw.bin",
        "raw.json",
    ]
    check(ckptstore.open(tmp_path / "dante"), 2.0)


def test_a_save_that_dies_at_any_moment_leaves_the_old_state_or_the_new_one(memory_url) -> None:
    def save(value: float, location: str) -> None:
        ckptstore.save(location, model=weights(value), config={"n": value}, format="raw")

    save(1.0, f"{memory_url}/whole")
    with inject(Nothing()) as seen:
        save(2.0, f"{memory_url}/whole")
    for k in range(1, len(seen.operations) + 1):
        save(1.0, f"{memory_url}/{k}")
        with pytest.raises(Killed), inject(Crash(k)):
            save(2.0, f"{memory_url}/{k}")
        checkpoint = ckptstore.open(f"{memory_url}/{k}")
        check(checkpoint, checkpoint.config["n"])


def test_formats_that_cannot_be_saved_in_are_refused_before_anything_is_written(
    install: Install, tmp_path: Path
) -> None:
    install("read-only", READ_ONLY)
    install("one-file", ONE_FILE)

    for name, message in {
        "archive": "'archive' can be read, not written; save in 'bundle', and convert",
        "lines": "'lines' is a single file, which has no manifest and is never replaced",
        "legacy": "'legacy' is a single file",
        "bundel": "'bundel' is not installed; installed: .*; did you mean 'bundle'",
    }.items():
        with pytest.raises(UnsupportedError, match=f"the format {message}"):
            ckptstore.Store(tmp_path / "dante", format=name)
        with pytest.raises(UnsupportedError, match=f"the format {message}"):
            ckptstore.save(tmp_path / "dante", model=weights(1.0), format=name)

    assert not (tmp_path / "dante").exists()


def test_a_save_in_another_format_replaces_a_step_only_where_that_is_asked_for(
    tmp_path: Path,
) -> None:
    keep = ckptstore.Keep(last=2)
    with ckptstore.Store(tmp_path / "dante", keep=keep) as store:
        store.save(model=weights(1.0), config={"n": 1.0}, step=1)

    with ckptstore.Store(tmp_path / "dante", keep=keep, format="raw") as store:
        with pytest.raises(ckptstore.ConflictError, match="step 1 is in .* with other content"):
            store.save(model=weights(1.0), config={"n": 1.0}, step=1)
        store.save(model=weights(1.0), config={"n": 1.0}, step=1, overwrite=True)
        check(store.open(), 1.0)


def test_files_of_a_tokenizer_that_a_format_has_no_room_for_are_refused(
    install: Install, tmp_path: Path
) -> None:
    stored = """def stored(self, contents):
            from dataclasses import replace
            return replace(contents, tokenizer_files={})

        def write(self"""
    install("bare", RAW.replace('"raw', '"bare').replace("def write(self", stored))
    tokenizer = {"token_kind": "char", "chars": ["a"]}
    more = {"tokenizer": tokenizer, "vocabulary": {"tokenizer.words": b"a"}, "format": "bare"}

    with pytest.raises(UnsupportedError, match="'bare' has no room for tokenizer.words, which the"):
        ckptstore.save(tmp_path / "run", model=weights(1), **more)

    assert not (tmp_path / "run").exists()
