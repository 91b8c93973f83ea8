"""G4 without a manifest: the zip's own CRCs find damage in what is read, at load and at verify.

What no CRC covers (times, versions and padding in the zip's headers) is never looked at, so a
flip there changes nothing that loads; it is found only where there is a manifest.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import ckptstore
from ckptstore.cli import main

from .damage import flipped
from .saved import contents, error_of, plain

# What not every load needs; verify proves it all the same.
_NOT_LOADED = ("version", ".data/serialization_id", ".format_version", ".storage_alignment")


@pytest.fixture(params=["folder", "file", "legacy folder", "legacy file"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """Give a location without a manifest, and the one file that it is about."""
    saved = contents()
    state: Any = saved["model"].state_dict()
    if request.param.startswith("legacy"):
        state = {
            "model_state_dict": state,
            "config": saved["config"],
            "tokenizer": saved["tokenizer"],
            "step": 5,
            "optimizer_state_dict": saved["optimizer"].state_dict(),
        }
    path = tmp_path / ("latest.pt" if request.param.startswith("legacy") else "model.pt")
    torch.save(state, path)
    return (path if request.param.endswith("file") else tmp_path), path


def load(location: Path) -> Any:
    checkpoint = ckptstore.open(location)
    return plain([checkpoint.load_model(), checkpoint.load_optimizer(), checkpoint.config])


def spans(data: bytes) -> dict[str, tuple[int, int]]:
    """Return where each record's bytes begin and end, by the record's name."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            with archive.open(info) as record:
                start = record._orig_compress_start  # type: ignore[attr-defined]
            found[info.filename.partition("/")[2]] = (start, start + info.file_size)
    return found


def test_a_flip_in_any_record_is_found_by_load_and_by_verify(file):
    location, path = file
    data = path.read_bytes()
    sound = load(location)
    assert ckptstore.open(location).verify().files[0].status == "not verified"

    for name, (start, end) in spans(data).items():
        for at in {*range(start, end, 23), end - 1} if end > start else ():
            path.write_bytes(flipped(data, at))
            if name in _NOT_LOADED:
                with suppress(ckptstore.CorruptionError):
                    assert load(location) == sound, (name, at)
                (report,) = ckptstore.open(location).verify().files
                assert report.status == "damaged", (name, at)
                assert repr(name) in report.detail
            else:
                error = error_of(load, location)
                assert isinstance(error, (ckptstore.CorruptionError, ckptstore.UnsafeError)), at
                assert _verify(location) in (4, 5), (name, at)


def test_a_flip_anywhere_else_is_found_or_changes_nothing(file):
    location, path = file
    data = path.read_bytes()
    sound = load(location)
    refused = 0

    for at in range(0, len(data), 13):
        path.write_bytes(flipped(data, at, 1 << at % 8))
        try:
            assert load(location) == sound, at
        except (ckptstore.CorruptionError, ckptstore.UnsafeError):
            refused += 1

    assert refused > len(data) / 13 / 4


def test_a_file_that_is_cut_off_is_found_by_load_and_by_verify(file):
    location, path = file
    data = path.read_bytes()

    for size in (len(data) - 1, len(data) - 22, len(data) // 2, 100, 1, 0):
        path.write_bytes(data[:size])
        with pytest.raises(ckptstore.CorruptionError, match=path.name):
            load(location)
        assert _verify(location) == 4


def _verify(location: Path) -> int:
    """Return the exit code of `verify`, of the library where that is quick enough."""
    try:
        report = ckptstore.open(location).verify()
    except ckptstore.CkptstoreError as error:
        return error.exit_code
    return 0 if report.sound else 4


def test_the_command_names_the_file_and_the_record(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(contents()["model"].state_dict(), path)
    start, _ = spans(path.read_bytes())["data/0"]
    path.write_bytes(flipped(path.read_bytes(), start))

    result = CliRunner().invoke(main, ["verify", str(tmp_path)])

    assert result.exit_code == 4
    assert "its record 'data/0' has the CRC-32" in result.stdout
    shutil.rmtree(tmp_path)
