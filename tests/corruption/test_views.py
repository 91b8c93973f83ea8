"""G4: the view is proved beside its generation, which no damage of the view ever touches."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import ckptstore
from ckptstore.cli import main
from ckptstore.storage import connect

from .damage import changed_sizes, damaged, flipped
from .saved import FILES, TEXTS, contents, error_of, everything, save, save_history


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def statuses(report: Any, where: str = "view") -> dict[str, str]:
    return {f.name: f.status for f in report.files if (f.where == "view") == (where == "view")}


def rot(url: str, name: str, at: int = 700) -> None:
    """Turn a bit of a file in memory where it lies, so that nothing says it was replaced."""
    from fsspec.implementations.memory import MemoryFileSystem

    (key,) = [key for key in MemoryFileSystem.store if key.endswith(f"{url.split('/')[-1]}/{name}")]
    with MemoryFileSystem.store[key].getbuffer() as held:
        held[at] ^= 1


def replace(path: Path, data: bytes) -> None:
    """Put a new file in the place of one, as programs that save do."""
    path.with_name("new").write_bytes(data)
    os.replace(path.with_name("new"), path)


@pytest.fixture
def spread(tmp_path: Path) -> Path:
    """Give a checkpoint that was copied as a whole, so that its view is no hard link."""
    save(tmp_path / "saved")
    return Path(shutil.copytree(tmp_path / "saved", tmp_path / "dante"))


# -- sound --------------------------------------------------------------------------------


def test_hard_links_are_read_once(tmp_path):
    checkpoint = save(tmp_path / "dante")

    report = checkpoint.verify()

    sizes = [info.size for name, info in checkpoint.files().items() if name.endswith(".pt")]
    assert report.read == report.size == sum(sizes)
    assert (report.view, {*statuses(report).values()}) == ("ok", {"ok"})


def test_copies_are_read_and_proved(spread):
    report = ckptstore.open(spread).verify()

    sizes = [info.size for name, info in ckptstore.open(spread).files().items() if ".pt" in name]
    assert report.read == report.size == 2 * sum(sizes)
    assert (report.view, {*statuses(report).values()}) == ("ok", {"ok"})
    assert all(f.detail.startswith("sha256 ") for f in report.files if f.name.endswith(".pt"))


# -- bytes --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_rotten_copy_that_nothing_says_was_replaced_is_found(memory_url, name):
    saved = everything(save(memory_url))
    rot(memory_url, name)

    checkpoint = ckptstore.open(memory_url)
    result = run("verify", memory_url)

    assert everything(checkpoint) == saved
    report = checkpoint.verify()
    assert (report.sound, report.view) == (True, "damaged")
    assert [n for n, status in statuses(report).items() if status == "damaged"] == [name]
    assert result.exit_code == 4
    assert f"{name} in the view of" in result.stdout
    assert "chunk 0 is xxh3-128:" in result.stdout
    assert "ckptstore doctor --restore" in result.stdout.splitlines()[-1]


def test_doctor_restore_puts_a_rotten_copy_back(memory_url):
    saved = everything(save(memory_url))
    rot(memory_url, "model.pt")
    rot(memory_url, "rng.pt")

    done = run("doctor", "--restore", memory_url)

    assert "put model.pt, rng.pt of generation 1 back" in done.stdout
    assert run("verify", memory_url).exit_code == 0
    assert everything(ckptstore.open(memory_url)) == saved


def test_a_sound_copy_can_be_adopted_when_the_generation_is_rotten(memory_url):
    save(memory_url)
    place = connect(memory_url, None)
    (path,) = [n for n in place.list(".ckptstore/00000001").files if n.startswith("model")]
    rot(f"{memory_url}/.ckptstore/00000001", path)

    before = run("verify", memory_url)
    run("doctor", "--adopt", memory_url)
    after = run("verify", memory_url)

    assert (before.exit_code, after.exit_code) == (4, 0)
    assert "adopt what is there with ckptstore doctor --adopt" in before.stdout
    assert "its view is damaged" not in before.stdout
    assert ckptstore.open(memory_url).generation == 2


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_replaced_is_a_conflict_that_offers_both_ways(tmp_path, name):
    location = tmp_path / "dante"
    save(location)
    save_history(tmp_path / "others", 6)
    data = (location / name).read_bytes()
    other = {"another checkpoint's file": (tmp_path / "others/step-00000006" / name).read_bytes()}

    for what, bad in damaged(data, other):
        replace(location / name, bad)
        error = error_of(ckptstore.open, location)
        assert isinstance(error, ckptstore.ConflictError), what
        assert re.search(rf"{name} in .*--adopt .*--restore ", str(error)), what

    for command in ("inspect", "verify"):
        result = run(command, location)
        assert result.exit_code == 6
        assert f"{name} in {location} was replaced by hand" in result.stderr
    run("doctor", "--restore", location)
    assert run("verify", location).exit_code == 0


def test_a_forerunners_file_is_behind_and_not_damaged(tmp_path):
    location = tmp_path / "dante"
    save(location, seed=1, step=4)
    older = (location / "model.pt").read_bytes()
    saved = everything(save(location, seed=2, step=5))
    replace(location / "model.pt", older)

    checkpoint = ckptstore.open(location)
    report = checkpoint.verify()

    assert everything(checkpoint) == saved
    assert (report.sound, report.view) == (True, "behind")
    assert statuses(report)["model.pt"] == "behind"
    assert run("verify", location).exit_code == 0
    run("doctor", "--fix", location)
    assert ckptstore.open(location).verify().view == "ok"


def test_damage_in_shared_bytes_is_the_generations(tmp_path):
    location = tmp_path / "dante"
    save(location)
    data = (location / "model.pt").read_bytes()
    (location / "model.pt").write_bytes(flipped(data, 700))

    report = ckptstore.open(location).verify()

    assert not report.sound
    assert statuses(report, "generation")["model.pt"] == "damaged"


# -- JSON ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTS)
def test_broken_json_names_the_file_and_exits_4(tmp_path, name):
    location = tmp_path / "dante"
    save(location)
    data = (location / name).read_bytes()
    broken = [data[:-3], b"", b"[]", b"\xff" + data, data.replace(b":", b"", 1), data + b"}"]

    for bad in broken:
        (location / name).write_bytes(bad)
        with pytest.raises(ckptstore.CorruptionError, match=name):
            ckptstore.open(location)
    for command in ("inspect", "verify"):
        result = run(command, location)
        assert result.exit_code == 4
        assert name in result.stderr


def test_doctor_restore_puts_broken_json_back_and_leaves_an_edit(tmp_path):
    location = tmp_path / "dante"
    save(location)
    (location / "config.json").write_text('{"n_in": 6}\n')
    (location / "tokenizer.json").write_text("{")

    run("doctor", "--restore", location)

    checkpoint = ckptstore.open(location)
    assert checkpoint.edited == ("config.json",)
    assert checkpoint.config == {"n_in": 6}
    assert checkpoint.tokenizer_state == {"token_kind": "char", "chars": ["\n", "a", "è"]}


def test_an_edit_is_no_damage(tmp_path):
    location = tmp_path / "dante"
    save(location)
    (location / "config.json").write_text('{"n_in": 6}\n')

    report = ckptstore.open(location).verify()

    assert (report.sound, report.view) == (True, "ok")
    (edited,) = [f for f in report.files if "edited by hand" in f.detail]
    assert (edited.name, edited.where, edited.status) == ("config.json", "view", "ok")


def test_an_edit_that_broke_after_opening_is_damage_of_the_view(tmp_path):
    location = tmp_path / "dante"
    checkpoint = save(location)
    (location / "config.json").write_text("{")

    report = checkpoint.verify()

    assert (report.sound, report.view) == (True, "damaged")
    assert statuses(report)["config.json"] == "damaged"


# -- the manifest -------------------------------------------------------------------------


def test_a_damaged_manifest_touches_nothing_that_is_saved(tmp_path):
    location = tmp_path / "dante"
    saved = everything(save(location))
    save(tmp_path / "other", seed=3)
    path = location / "manifest.json"
    data = path.read_bytes()
    versions = [flipped(data, at, 1 << at % 8) for at in range(0, len(data), 37)]
    versions += [bad for _, bad in changed_sizes(data) if bad != data[:-1]]
    versions += [(tmp_path / "other/manifest.json").read_bytes()]

    for bad in versions:
        path.write_bytes(bad)
        checkpoint = ckptstore.open(location)
        assert everything(checkpoint) == saved
        report = checkpoint.verify()
        assert (report.sound, report.view) == (True, "damaged")
        assert statuses(report)["manifest.json"] == "damaged"

    assert run("verify", location).exit_code == 4
    run("doctor", "--restore", location)
    assert run("verify", location).exit_code == 0


def test_what_a_damaged_manifest_cannot_explain_is_damage_too(tmp_path):
    location = tmp_path / "dante"
    save(location)
    (location / "manifest.json").write_text("{")
    (location / "config.json").write_text("{}\n")

    checkpoint = ckptstore.open(location)
    report = checkpoint.verify()

    assert checkpoint.edited == ()
    assert [n for n, s in statuses(report).items() if s == "damaged"] == [
        "config.json",
        "manifest.json",
    ]


# -- behind -------------------------------------------------------------------------------


def test_a_view_of_the_generation_before_is_behind(tmp_path):
    location = tmp_path / "dante"
    save(location, seed=1, step=4)
    older = {p.name: p.read_bytes() for p in location.iterdir() if p.is_file()}
    save(location, seed=2, step=5)
    for name, data in older.items():
        replace(location / name, data)

    report = ckptstore.open(location).verify()

    assert (report.sound, report.view) == (True, "behind")
    assert statuses(report) == {"manifest.json": "behind"}
    assert run("verify", location).stdout.splitlines()[-1].endswith("; its view is behind")
    assert run("verify", location).exit_code == 0


def test_a_view_that_was_never_finished_is_behind(tmp_path):
    location = tmp_path / "dante"
    save(location)
    for path in location.iterdir():
        if path.is_file():
            path.unlink()

    report = ckptstore.open(location).verify()

    assert (report.sound, report.view) == (True, "behind")


def test_a_small_view_is_behind_and_not_damaged(tmp_path):
    with ckptstore.Store(tmp_path / "dante", small_view=True) as store:
        checkpoint = store.save(**contents())

    report = checkpoint.verify()

    assert (report.sound, report.view) == (True, "behind")
    assert {n for n, s in statuses(report).items() if s == "behind"} == set(FILES)
    assert {f.detail for f in report.files if f.status == "behind"} == {
        "a small view has no weights"
    }


def test_a_file_that_somebody_took_out_of_the_view_is_behind(tmp_path):
    location = tmp_path / "dante"
    save(location)
    (location / "optimizer.pt").unlink()

    report = ckptstore.open(location).verify()

    assert (report.sound, report.view) == (True, "behind")
    run("doctor", "--fix", location)
    assert ckptstore.open(location).verify().view == "ok"


def test_of_a_state_that_is_newest_no_more_the_view_is_not_judged(tmp_path):
    location = tmp_path / "dante"
    first = save(location, seed=1, step=4)
    kept = {p.name: p.read_bytes() for p in (location / ".ckptstore/00000001").iterdir()}
    save(location, seed=2, step=5)
    (location / ".ckptstore/00000001").mkdir()
    for name, data in kept.items():
        (location / ".ckptstore/00000001" / name).write_bytes(data)

    report = first.verify()

    assert (report.sound, report.view, statuses(report)) == (True, "", {})


def test_a_step_has_no_view(tmp_path):
    save_history(tmp_path, 5)

    report = ckptstore.open(tmp_path).verify()

    assert (report.sound, report.view) == (True, "")
    assert {file.where for file in report.files} == {"step 5"}
    assert json.loads(run("verify", "--json", tmp_path).stdout)["view"] is None
