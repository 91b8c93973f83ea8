"""G4: a partial load proves the chunks that it touches, a sample those that it draws."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import ckptstore
from ckptstore.cli import main

from .damage import flipped
from .saved import copied, save

MIB = 2**20
CHUNK = 8 * MIB
# In the order of the file: "a" ends in the second chunk, "b" goes on to the fifth, "c" ends it.
SIZES = {"a": 10 * MIB, "b": 23 * MIB, "c": 6 * MIB}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a checkpoint whose model has five chunks; do not change it."""
    folder = tmp_path_factory.mktemp("large")
    torch.manual_seed(0)
    model = {name: torch.randint(0, 255, (n,), dtype=torch.uint8) for name, n in SIZES.items()}
    with ckptstore.Store(folder / "large", durable=False, small_view=True) as store:
        store.save(model=model, config={"n": 1}, step=1)
    return folder / "large"


@pytest.fixture
def harmed(large: Path, tmp_path: Path) -> Path:
    """Give a copy of it with one bit turned in the third chunk, which holds "b" alone."""
    copy = Path(shutil.copytree(large, tmp_path / "harmed"))
    (weights,) = copy.glob(".ckptstore/*/model.*.pt")
    with weights.open("r+b") as file:
        file.seek(2 * CHUNK + 5)
        byte = file.read(1)
        file.seek(2 * CHUNK + 5)
        file.write(flipped(byte, 0))
    return copy


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


# -- partial loads ------------------------------------------------------------------------


def test_damage_in_a_chunk_that_is_touched_is_found(harmed):
    checkpoint = ckptstore.open(harmed)

    for names in (["b"], ["a", "b"], None):
        with pytest.raises(ckptstore.CorruptionError, match=r"model\.pt in .*: chunk 2 is xxh3"):
            checkpoint.load_model(names=names)


def test_damage_in_a_chunk_that_is_not_touched_is_not_reported(harmed, large):
    loaded = ckptstore.open(harmed).load_model(names=["a", "c"])

    expected = ckptstore.open(large).load_model()
    assert loaded.keys() == {"a", "c"}
    assert torch.equal(loaded["a"], expected["a"])
    assert torch.equal(loaded["c"], expected["c"])


# -- samples ------------------------------------------------------------------------------


def test_a_sample_reads_its_share_and_says_so(large):
    report = ckptstore.open(large).verify(sample=0.4)

    assert report.sound
    assert report.sample is not None
    assert report.sample.share == 0.4
    assert 0 < report.read <= 2 * CHUNK < report.size
    (model,) = [file for file in report.files if file.name == "model.pt" and file.where != "view"]
    assert model.detail == "2 of 5 chunks proved, its sha256 not"


def test_at_least_one_chunk_of_every_file_is_read(tmp_path):
    save(tmp_path / "dante")
    copied(tmp_path / "dante", tmp_path / "copy")

    for location in (tmp_path / "dante", tmp_path / "copy"):
        report = ckptstore.open(location).verify(sample=1e-9)
        details = [file.detail for file in report.files if "chunks" in file.detail]
        assert details == ["1 of 1 chunks proved, its sha256 not"] * 3
        assert report.read == report.size


def test_what_is_drawn_differs_each_time_and_is_repeated_by_its_seed(harmed):
    checkpoint = ckptstore.open(harmed)

    reports = [checkpoint.verify(sample=0.2) for _ in range(60)]

    assert {report.sound for report in reports} == {True, False}
    for report in reports[:10]:
        assert report.sample is not None
        again = checkpoint.verify(sample=0.2, seed=report.sample.seed)
        assert again == report


def test_damage_in_a_sample_names_file_and_chunk_and_exits_4(harmed):
    results = [verify(harmed, "--sample", "20%", "--seed", seed) for seed in range(40)]

    assert {result.exit_code for result in results} == {0, 4}
    found = next(result for result in results if result.exit_code == 4)
    assert "chunk 2 is xxh3-128:" in found.stdout
    assert found.stdout.splitlines()[-1] == f"{harmed}: damaged"
    assert "no damage found" not in found.stdout


def test_the_command_says_that_it_was_a_sample(large):
    person = verify(large, "--sample", "20%", "--seed", 7).stdout.splitlines()[-1]
    program = json.loads(verify(large, "--sample", "20%", "--seed", 7, "--json").stdout)

    assert program["sample"] == {"share": 0.2, "seed": 7}
    assert program["read"] in (CHUNK, program["size"] % CHUNK)
    assert "no damage found: a sample of " in person
    assert "--seed 7 reads the same" in person
    assert "the rest and the SHA-256 of whole files were not proved" in person


def test_all_of_it_is_no_sample(large):
    report = ckptstore.open(large).verify(sample=1)
    command = verify(large, "--sample", "100%")

    assert report.sample is None
    assert report.files[0].detail.startswith("sha256 ")
    assert "sound, proved against its manifest" in command.stdout


def test_a_sample_of_a_folder_without_a_manifest_is_of_its_records(tmp_path):
    save(tmp_path / "dante")
    plain = copied(tmp_path / "dante", tmp_path / "plain")
    (plain / "manifest.json").unlink()

    report = ckptstore.open(plain).verify(sample=0.3)

    assert not report.proved
    details = [file.detail for file in report.files if file.name.endswith(".pt")]
    assert all(" of the zip's own CRCs are right" in detail for detail in details)
    assert 0 < report.read < report.size


@pytest.mark.parametrize("value", ["0", "0%", "120%", "abc", "-1%", "nan%", "5", "%", "5%%", ""])
def test_what_is_no_share_is_a_usage_error(large, value):
    result = verify(large, f"--sample={value}")

    assert result.exit_code == 2
    assert "is no share such as 5%" in result.stderr


def test_a_seed_without_a_sample_is_a_usage_error(large):
    assert verify(large, "--seed", "1").exit_code == 2


@pytest.mark.parametrize("value", [0, -0.1, 1.5, float("nan"), "5%"])
def test_what_is_no_share_is_refused_by_the_library(large, value):
    with pytest.raises(ckptstore.UnsupportedError, match="not a share above 0 and at most 1"):
        ckptstore.open(large).verify(sample=value)
