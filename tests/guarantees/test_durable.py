"""G3: when a save returns, power may fail."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch

import ckptstore

MODEL = {"w": torch.arange(1000.0)}


class Watch:
    """What the operating system was asked, in order; it does all of it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, str]] = []
        self.sources: dict[str, str] = {}
        self._fsync, self._link = os.fsync, os.link
        patch.setattr(os, "fsync", self.fsync)
        patch.setattr(os, "link", self.link)

    def fsync(self, descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        self.events.append((kind, path))
        self._fsync(descriptor)

    def link(self, source: str, target: str, **options: object) -> None:
        self.events.append(("link", os.fspath(target)))
        self.sources[os.fspath(target)] = os.fspath(source)
        self._link(source, target, **options)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to know which file is fsynced")
    return Watch(monkeypatch)


@pytest.mark.parametrize("keep", [None, ckptstore.Keep()], ids=["single", "history"])
def test_every_file_is_on_disk_before_the_manifest_has_its_name(watch, tmp_path, keep):
    store = ckptstore.Store(tmp_path / "dante", keep=keep)

    store.save(model=MODEL, optimizer={"state": {}, "param_groups": []}, config={"n": 1}, step=5)

    folder = tmp_path / "dante" / ("step-00000005" if keep else ".ckptstore/00000001")
    committed = watch.events.index(("link", str(folder / "manifest.json")))
    before = {path for kind, path in watch.events[:committed] if kind != "link"}
    after = {path for kind, path in watch.events[committed:] if kind == "folder"}
    written = [str(path) for path in folder.iterdir()]
    assert len(written) == 5
    assert {watch.sources.get(path, path) for path in written} <= before
    assert str(folder) in before
    assert str(folder) in after


def test_not_durable_means_no_fsync_at_all(watch, tmp_path):
    ckptstore.save(tmp_path / "dante", model=MODEL, durable=False)

    assert [path for kind, path in watch.events if kind != "link"] == []


def test_a_step_saved_again_is_made_durable_though_nothing_is_written(watch, tmp_path):
    keep = ckptstore.Keep()
    ckptstore.Store(tmp_path, keep=keep, durable=False).save(model=MODEL, step=5)

    ckptstore.Store(tmp_path, keep=keep).save(model=MODEL, step=5)

    folder = tmp_path / "step-00000005"
    synced = {path for kind, path in watch.events if kind != "link"}
    assert {str(folder), *map(str, folder.iterdir())} <= synced
