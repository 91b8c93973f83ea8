"""G4 wherever bytes are kept: in memory and in S3 the view is a copy, and is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import ckptstore
from ckptstore.cli import main
from ckptstore.storage import connect

from .damage import flipped
from .saved import everything, save, save_history


def own(url: str, options: Any, name: str) -> str:
    """Return where a generation keeps the file of a plain name."""
    stem, _, ending = name.partition(".")
    files = connect(url, options).list(".ckptstore/00000001").files
    (path,) = [file for file in files if file.startswith(stem) and file.endswith(ending)]
    return f".ckptstore/00000001/{path}"


def spoil(url: str, options: Any, path: str, how: str) -> None:
    place = connect(url, options)
    data = place.read(path)
    changed = {
        "flipped": flipped(data, len(data) // 3),
        "cut off": data[:-1],
    }
    place.replace(path, changed[how])


def verify(url: str, options: Any, *more: str) -> Result:
    given = [f"--storage-option={key}={value}" for key, value in (options or {}).items()]
    return CliRunner().invoke(main, ["verify", url, *given, *more])


@pytest.mark.parametrize("how", ["flipped", "cut off"])
def test_damage_of_a_generation_is_found(location, how):
    url, options = location
    checkpoint = save(url, options=options)
    spoil(url, options, own(url, options, "model.pt"), how)

    report = checkpoint.verify()
    found = {(file.where, file.name) for file in report.files if file.status == "damaged"}

    with pytest.raises(ckptstore.CorruptionError, match=r"model\.pt in .* (chunk 0|has \d+ bytes)"):
        ckptstore.open(url, storage_options=options).load_model()
    with pytest.raises(ckptstore.CorruptionError, match=r"model\.pt in .* (chunk 0|has \d+ bytes)"):
        ckptstore.sync(url, f"{url}2", storage_options=options)
    assert (report.sound, report.view, found) == (False, "ok", {("generation 1", "model.pt")})
    assert verify(url, options).exit_code == 4


def test_damage_of_a_step_is_found_and_the_step_before_it_opens(location):
    url, options = location
    save_history(url, 1, 2, options=options)
    spoil(url, options, "step-00000002/optimizer.pt", "flipped")

    with pytest.raises(ckptstore.CorruptionError, match=r"step-00000002/optimizer\.pt .* chunk 0"):
        ckptstore.open(url, storage_options=options).load_optimizer()
    assert verify(url, options).exit_code == 4
    assert verify(url, options, "--step", "1").exit_code == 0
    assert ckptstore.open(url, storage_options=options, fallback=True).step == 1


def test_a_copy_in_the_view_that_somebody_replaced_is_a_conflict(location):
    url, options = location
    save(url, options=options)
    spoil(url, options, "model.pt", "flipped")

    result = verify(url, options)

    assert result.exit_code == 6
    assert "--adopt" in result.stderr
    assert "--restore" in result.stderr
    ckptstore.Store(url, storage_options=options).repair(restore=True)
    assert verify(url, options).exit_code == 0


def test_a_copy_that_rots_behind_the_servers_back_is_found(rclone_server):
    url, options = rclone_server.url("dante"), rclone_server.storage_options
    saved = everything(save(url, options=options))
    # rclone serves a folder: this is what a disk does to an object that nobody writes to.
    folder = Path(str(rclone_server.process.args[-1])) / url.removeprefix("s3://")
    before = (folder / "optimizer.pt").stat()
    data = (folder / "optimizer.pt").read_bytes()
    (folder / "optimizer.pt").write_bytes(flipped(data, 900))
    os.utime(folder / "optimizer.pt", ns=(before.st_atime_ns, before.st_mtime_ns))

    checkpoint = ckptstore.open(url, storage_options=options)
    result = verify(url, options)

    assert everything(checkpoint) == saved
    assert result.exit_code == 4
    assert "optimizer.pt in the view of" in result.stdout
    assert "chunk 0 is xxh3-128:" in result.stdout
