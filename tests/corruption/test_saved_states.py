"""G4: whatever is damaged in a generation or a step is found before it is unpickled."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import ckptstore
from ckptstore.cli import main
from ckptstore.manifest import Manifest

from .damage import changed_sizes, damaged, flipped
from .saved import (
    FILES,
    TEXTS,
    contents,
    copied,
    error_of,
    everything,
    save,
    save_history,
    unpickling,
)

WHERE = ("generation", "step", "copy")


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def prepare(where: str, folder: Path) -> tuple[Path, Path]:
    """Save, and return what to open and the folder that holds it."""
    if where == "generation":
        save(folder / "dante")
        return folder / "dante", folder / "dante/.ckptstore/00000001"
    if where == "step":
        save_history(folder / "dante", 5)
        return folder / "dante", folder / "dante/step-00000005"
    save(folder / "saved")
    copy = copied(folder / "saved", folder / "copy")
    return copy, copy


def file_in(folder: Path, name: str) -> Path:
    """Return the file that has a plain name, or that name with the id of the write in it."""
    (path,) = folder.glob(name.replace(".", "*.", 1))
    return path


def load(checkpoint: ckptstore.Checkpoint, name: str) -> object:
    if name == "model.pt":
        return checkpoint.load_model()
    return checkpoint.load_optimizer() if name == "optimizer.pt" else checkpoint.load_state("rng")


@pytest.fixture
def others(tmp_path: Path) -> dict[str, Path]:
    """Give folders with files of the same names and sizes: another model's, an older state's."""
    save_history(tmp_path / "others", 6, 7)
    return {
        "another checkpoint's file": tmp_path / "others/step-00000006",
        "an older generation's file": tmp_path / "others/step-00000007",
    }


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", WHERE)
def test_damage_is_found_before_anything_is_unpickled(tmp_path, others, where, name):
    location, folder = prepare(where, tmp_path)
    path = file_in(folder, name)
    data = path.read_bytes()
    with unpickling() as seen:
        load(ckptstore.open(location), name)
    assert seen

    number = 0
    named = rf"{name} in .* is damaged: (chunk 0 is xxh3-128:\w+, the manifest|it has \d+ bytes)"
    for what, bad in damaged(data, {w: (f / name).read_bytes() for w, f in others.items()}):
        path.write_bytes(bad)
        checkpoint = ckptstore.open(location)
        with unpickling() as seen:
            error = error_of(load, checkpoint, name)
        assert isinstance(error, ckptstore.CorruptionError), what
        assert re.search(named, str(error)), what
        assert seen == [], what
        number += 1

    assert number >= 50


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", WHERE)
def test_verify_names_the_damaged_file_and_no_other(tmp_path, others, where, name):
    location, folder = prepare(where, tmp_path)
    path = file_in(folder, name)
    data = path.read_bytes()

    for what, bad in damaged(data, {w: (f / name).read_bytes() for w, f in others.items()}):
        path.write_bytes(bad)
        report = ckptstore.open(location).verify()
        found = [file for file in report.files if file.status == "damaged"]
        saved = [file.name for file in found if file.where != "view"]
        assert (saved, report.sound) == ([name], False), what
        assert "chunk 0" in found[0].detail or "bytes" in found[0].detail, what

    path.write_bytes(data)
    assert ckptstore.open(location).verify().sound


@pytest.mark.parametrize("where", WHERE)
def test_every_command_that_reads_it_exits_4_and_names_the_file(tmp_path, where):
    location, folder = prepare(where, tmp_path)
    path = file_in(folder, "model.pt")
    path.write_bytes(flipped(path.read_bytes(), 700))

    verify, sync, convert, to_one = (
        run("verify", location),
        run("sync", location, tmp_path / "there"),
        run("convert", location, tmp_path / "converted"),
        run("convert", location, tmp_path / "one" / "dante.pt", "--to", "legacy"),
    )

    assert [result.exit_code for result in (verify, sync, convert, to_one)] == [4, 4, 4, 4]
    assert re.search(r"^  model.pt +damaged", verify.stdout, re.MULTILINE)
    for result in (sync, convert, to_one):
        assert re.match(r"error: .*model.pt in .* is damaged: chunk 0", result.stderr)
        assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("there/*.*")) + list(tmp_path.glob("converted/*.*"))
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize("name", ["model.pt", "optimizer.pt"])
def test_restoring_from_damage_changes_neither_model_nor_optimizer(tmp_path, name):
    location, folder = prepare("generation", tmp_path)
    path = file_in(folder, name)
    path.write_bytes(flipped(path.read_bytes(), 700))
    mine = contents(seed=3)
    before = json.dumps([mine["model"].state_dict(), mine["optimizer"].state_dict()], default=str)

    with pytest.raises(ckptstore.CorruptionError, match=rf"{name} in .* chunk 0"):
        ckptstore.open(location).restore(model=mine["model"], optimizer=mine["optimizer"])

    after = json.dumps([mine["model"].state_dict(), mine["optimizer"].state_dict()], default=str)
    assert after == before


@pytest.mark.parametrize("where", WHERE)
def test_a_model_that_is_gone_is_damage(tmp_path, where):
    location, folder = prepare(where, tmp_path)
    file_in(folder, "model.pt").unlink()

    assert not ckptstore.open(location).verify().sound
    with pytest.raises(ckptstore.CorruptionError, match=r"model\.pt"):
        ckptstore.open(location).load_model()
    assert run("verify", location).exit_code == 4


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("where", ["generation", "step"])
def test_damaged_text_is_not_believed_and_verify_finds_it(tmp_path, where, name):
    location, folder = prepare(where, tmp_path)
    path = file_in(folder, name)
    data = path.read_bytes()
    saved = everything(ckptstore.open(location))
    versions = [flipped(data, at) for at in range(0, len(data), 9)]
    versions += [bad for _, bad in changed_sizes(data)]
    versions += [data.replace(b"5", b"6"), data.replace(b"a", b"b")]

    for bad in versions:
        if bad != data:
            path.write_bytes(bad)
            checkpoint = ckptstore.open(location)
            assert everything(checkpoint) == saved
            report = checkpoint.verify()
            assert [f.name for f in report.files if f.status == "damaged"] == [name]
            assert not report.sound
    assert run("verify", location).exit_code == 4


@pytest.mark.parametrize("where", WHERE)
def test_a_damaged_manifest_is_found_at_any_place(tmp_path, where):
    location, folder = prepare(where, tmp_path)
    path = folder / "manifest.json"
    data = path.read_bytes()
    versions = [flipped(data, at, 1 << at % 8) for at in range(0, len(data), 17)]
    versions += [data[:-2], data[: len(data) // 2], b"", data + b"}"]
    versions += [data.replace(b'"step": 5', b'"step": 6'), data.replace(b"1.5", b"1.4")]
    versions += [data.replace(b'"sha256": "', b'"sha255": "'), b"[]", b"null"]

    for bad in versions:
        path.write_bytes(bad)
        with pytest.raises(ckptstore.CorruptionError, match=r"manifest\.json in .*"):
            ckptstore.open(location)
    for command in ("inspect", "verify", "sync", "convert"):
        target = [tmp_path / "there"] if command in ("sync", "convert") else []
        result = run(command, location, *target)
        assert result.exit_code == 4, command
        assert re.match(r"error: .*manifest\.json in ", result.stderr), command


@pytest.mark.parametrize("where", ["generation", "step"])
def test_another_checkpoints_manifest_is_not_taken_for_its_own(tmp_path, where):
    location, folder = prepare(where, tmp_path)
    _, other = prepare(where, tmp_path / "second")
    save(tmp_path / "third", seed=9)
    older = save(tmp_path / "third", seed=10)
    assert older.generation == 2
    (folder / "manifest.json").write_bytes((other / "manifest.json").read_bytes())

    if where == "generation":
        with pytest.raises(ckptstore.CorruptionError, match=r"model\.\w+\.pt|model\.pt"):
            ckptstore.open(location).load_model()
        assert not ckptstore.open(location).verify().sound
    else:
        assert ckptstore.open(location).verify().sound  # The same state, saved twice.
    third = tmp_path / "third/.ckptstore/00000002/manifest.json"
    (folder / "manifest.json").write_bytes(third.read_bytes())
    with pytest.raises(ckptstore.CorruptionError, match="move the folder back"):
        ckptstore.open(location)


def test_a_manifest_that_was_replaced_while_the_checkpoint_is_open_is_found(tmp_path):
    location, folder = prepare("generation", tmp_path)
    checkpoint = ckptstore.open(location)
    path = folder / "manifest.json"
    path.write_bytes(flipped(path.read_bytes(), 40))

    report = checkpoint.verify()

    assert [f.name for f in report.files if f.status == "damaged"] == ["manifest.json"]
    assert not report.sound


def test_files_that_are_not_part_of_it_are_no_damage(tmp_path):
    location, folder = prepare("generation", tmp_path)
    for place in (location, folder):
        (place / "notes.txt").write_text("mine")
        (place / "model.0123456789ab.pt").write_bytes(b"what a killed save left")
    (location / ".ckptstore/00000002").mkdir()
    (location / ".ckptstore/00000002/model.pt").write_bytes(b"half")

    report = ckptstore.open(location).verify()

    assert (report.sound, report.view) == (True, "ok")
    assert "notes.txt" not in {file.name for file in report.files}


def test_a_damaged_copy_is_restored_from_a_good_one(tmp_path):
    location, folder = prepare("generation", tmp_path)
    run("sync", location, tmp_path / "good")
    path = file_in(folder, "optimizer.pt")
    path.write_bytes(flipped(path.read_bytes(), 900))
    assert run("verify", location).exit_code == 4

    assert "the same already" in run("sync", tmp_path / "good", location).stdout
    mended = run("sync", "--prove", tmp_path / "good", location)

    assert "copied" in mended.stdout
    assert run("verify", location).exit_code == 0
    assert everything(ckptstore.open(location))["step"] == 5


@pytest.mark.parametrize("harm", ["flipped", "cut off", "gone"])
def test_a_damaged_step_is_restored_from_a_good_one(tmp_path, harm):
    save_history(tmp_path / "good", 5)
    save_history(tmp_path / "bad", 5, 6)
    path = tmp_path / "bad/step-00000005/model.pt"
    data = path.read_bytes()
    path.unlink()
    if harm != "gone":
        path.write_bytes(flipped(data, 700) if harm == "flipped" else data[:-1])

    result = run("sync", "--prove", tmp_path / "good", tmp_path / "bad")

    assert (result.exit_code, "copied" in result.stdout) == (0, True)
    assert ckptstore.open(tmp_path / "bad", step=5).verify().sound
    assert ckptstore.Store(tmp_path / "bad").steps() == (5, 6)


def test_what_is_cut_off_or_gone_is_copied_again_without_being_asked_to(tmp_path):
    location, folder = prepare("generation", tmp_path)
    run("sync", location, tmp_path / "good")
    path = file_in(folder, "rng.pt")
    os.truncate(path, 10)

    assert "copied" in run("sync", tmp_path / "good", location).stdout
    assert ckptstore.open(location).verify().sound


def test_the_manifest_in_the_documentation_agrees_with_its_own_digest():
    page = (Path(__file__).parents[2] / "docs/format.md").read_text("utf-8")
    (text,) = re.findall(r'```json\n(\{\n  "ckptstore": .*?)```', page, re.DOTALL)

    assert Manifest.from_json(text, "docs/format.md").generation == 1
    with pytest.raises(ckptstore.CorruptionError, match="its fields have the sha256"):
        Manifest.from_json(text.replace('"step": 500', '"step": 501'), "docs/format.md")
