"""G4: who asks for it gets the newest sound state instead of a damaged one, and is told so."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import ckptstore
from ckptstore import StorageError
from ckptstore.cli import main
from ckptstore.testing import Refuse, asked, inject

from .damage import flipped
from .saved import everything, save, save_history


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def harm(path: Path, at: int = 700) -> None:
    path.write_bytes(flipped(path.read_bytes(), at))


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Give a history of the steps 1, 2 and 3."""
    save_history(tmp_path / "history", 1, 2, 3)
    return tmp_path / "history"


def test_a_sound_history_opens_as_ever(history, caplog):
    checkpoint = ckptstore.open(history, fallback=True)

    assert (checkpoint.step, checkpoint.passed_over) == (3, ())
    assert caplog.records == []


@pytest.mark.parametrize("name", ["model.pt", "optimizer.pt", "rng.pt", "config.json"])
def test_a_damaged_step_is_passed_over_and_named(history, caplog, name):
    harm(history / "step-00000003" / name, 12)
    expected = everything(ckptstore.open(history, step=2))

    checkpoint = ckptstore.open(history, fallback=True)

    assert everything(checkpoint) == expected
    (passed,) = checkpoint.passed_over
    assert (passed.called, passed.step) == ("step 3", 3)
    assert f"step-00000003/{name} in {history} is damaged" in passed.reason
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warned == [
        f"step 3 of {history} is passed over: {passed.reason}",
        f"opened step 2 of {history} instead",
    ]


@pytest.mark.parametrize("harmed", ["flipped", "cut off", "gone"])
def test_a_step_whose_model_or_manifest_is_no_good_is_passed_over(history, harmed):
    manifest, model = history / "step-00000003/manifest.json", history / "step-00000002/model.pt"
    manifest.write_bytes(manifest.read_bytes()[:-40])
    if harmed == "gone":
        model.unlink()
    else:
        data = model.read_bytes()
        model.write_bytes(data[:-1] if harmed == "cut off" else flipped(data, 900))

    checkpoint = ckptstore.Store(history).open(fallback=True)

    assert checkpoint.step == 1
    assert [state.called for state in checkpoint.passed_over] == ["step 3", "step 2"]
    assert "manifest.json" in checkpoint.passed_over[0].reason
    assert "model.pt" in checkpoint.passed_over[1].reason


def test_without_it_damage_is_raised_and_never_an_older_step(history):
    harm(history / "step-00000003/model.pt")

    checkpoint = ckptstore.open(history)

    assert checkpoint.step == 3
    with pytest.raises(ckptstore.CorruptionError, match="step-00000003/model.pt"):
        checkpoint.load_model()


def test_where_nothing_is_sound_the_error_of_the_newest_is_raised(history):
    for step in (1, 2, 3):
        harm(history / f"step-0000000{step}/model.pt")

    with pytest.raises(
        ckptstore.CorruptionError, match="step-00000003/model.pt .* 2 older states none is sound"
    ):
        ckptstore.open(history, fallback=True)


def test_an_absent_optimizer_is_no_damage(history):
    (history / "step-00000003/optimizer.pt").unlink()

    checkpoint = ckptstore.open(history, fallback=True)

    assert (checkpoint.step, checkpoint.passed_over) == (3, ())


def test_a_step_that_is_named_is_never_another(history):
    with pytest.raises(ckptstore.UnsupportedError, match="exclude each other"):
        ckptstore.open(history, step=3, fallback=True)
    assert run("inspect", history, "--step", "3", "--fallback").exit_code == 2


def test_a_storage_that_fails_is_raised_and_nothing_passed_over(history, caplog):
    fault = Refuse(asked("read", "step-00000003/manifest.json"), StorageError("access denied"))

    with inject(fault), pytest.raises(StorageError, match="access denied"):
        ckptstore.open(history, fallback=True)

    assert caplog.records == []


def test_a_newer_format_is_raised_and_not_passed_over(history):
    path = history / "step-00000003/manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    path.write_text(json.dumps({**manifest, "ckptstore": 2}))

    with pytest.raises(ckptstore.UnsupportedError, match="format version 2"):
        ckptstore.open(history, fallback=True)


# -- a single checkpoint ------------------------------------------------------------------


def test_a_single_checkpoint_has_nothing_to_fall_back_to(tmp_path):
    save(tmp_path / "dante")
    harm(tmp_path / "dante/model.pt")

    with pytest.raises(ckptstore.CorruptionError, match=r"model\.pt in .* chunk 0") as raised:
        ckptstore.open(tmp_path / "dante", fallback=True)
    assert "older" not in str(raised.value)


def test_an_older_generation_that_is_still_there_is_fallen_back_to(tmp_path):
    location = tmp_path / "dante"
    expected = everything(save(location, seed=1, step=4))
    shutil.copytree(location / ".ckptstore/00000001", tmp_path / "kept")
    save(location, seed=2, step=5)
    shutil.move(tmp_path / "kept", location / ".ckptstore/00000001")
    harm(location / "model.pt")

    checkpoint = ckptstore.open(location, fallback=True)

    assert everything(checkpoint) == expected
    assert [state.called for state in checkpoint.passed_over] == ["generation 2"]


def test_of_a_step_and_a_damaged_generation_the_step_is_opened(tmp_path):
    location = tmp_path / "both"
    save(location, step=4)
    save_history(location, 3)
    assert ckptstore.open(location).step == 4
    (manifest,) = location.glob(".ckptstore/*/manifest.json")
    manifest.write_text("{")

    checkpoint = ckptstore.open(location, fallback=True)

    assert (checkpoint.step, checkpoint.generation) == (3, None)
    (passed,) = checkpoint.passed_over
    assert (passed.called, passed.step) == ("generation 1", None)


def test_plain_files_are_proved_before_they_are_handed_out(tmp_path):
    save(tmp_path / "dante")
    plain = tmp_path / "plain"
    plain.mkdir()
    shutil.copy(tmp_path / "dante/model.pt", plain)
    assert ckptstore.open(plain, fallback=True).load_model()
    assert ckptstore.open(plain / "model.pt", fallback=True).load_model()
    with (plain / "model.pt").open("r+b") as file:
        file.seek(1100)
        file.write(b"\xaa" * 200)

    for location in (plain, plain / "model.pt"):
        with pytest.raises(ckptstore.CkptstoreError, match=r"model\.pt"):
            ckptstore.open(location, fallback=True)


# -- commands -----------------------------------------------------------------------------


def test_inspect_says_what_was_passed_over(history):
    harm(history / "step-00000003/model.pt")

    person, program = (
        run("inspect", history, "--fallback"),
        run("inspect", history, "--fallback", "--json"),
    )

    assert (person.exit_code, program.exit_code) == (0, 0)
    assert "passed over" in person.stdout
    assert "step 3, damaged" in person.stdout
    assert person.stderr.startswith(f"warning: step 3 of {history} is passed over: ")
    (passed,) = json.loads(program.stdout)["passed_over"]
    assert (passed["called"], passed["step"]) == ("step 3", 3)
    assert json.loads(run("inspect", history, "--json").stdout)["passed_over"] == []


@pytest.mark.parametrize("command", ["sync", "convert"])
def test_a_copy_is_made_of_the_newest_sound_step(history, tmp_path, command):
    harm(history / "step-00000003/model.pt")

    refused = run(command, history, tmp_path / "copy")
    done = run(command, "--fallback", history, tmp_path / "copy")

    assert (refused.exit_code, done.exit_code) == (4, 0)
    assert "warning: step 3 of" in done.stderr
    assert ckptstore.open(tmp_path / "copy").step == 2
