"""`sync` keeps the bytes, `convert` keeps the tensors; both commit like a save."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore

FIXTURE = Path(__file__).parents[1] / "fixtures" / "legacy_char"


@pytest.fixture
def source(tmp_path: Path, training: Any) -> Path:
    ckptstore.save(
        tmp_path / "source",
        model=training.model,
        optimizer=training.optimizer,
        config={"n_layer": 2, "dropout": 0.1},
        tokenizer={"token_kind": "char", "chars": ["a", "b"]},
        step=7,
        state={"rng": {"torch": torch.get_rng_state()}},
        metrics={"val_loss": 1.5},
    )
    return tmp_path / "source"


class TestSync:
    def test_there_and_back_is_the_same_checkpoint(
        self, location, source, tmp_path, training, same
    ):
        url, options = location

        there = ckptstore.sync(source, url, storage_options=options)
        back = ckptstore.sync(url, tmp_path / "back", storage_options=options)

        assert there.changed
        assert back.changed
        assert set(there.copied) >= {"model.pt", "optimizer.pt", "rng.pt", "config.json"}
        checkpoint = ckptstore.open(tmp_path / "back")
        assert checkpoint.proved
        assert (checkpoint.step, checkpoint.metrics) == (7, {"val_loss": 1.5})
        assert checkpoint.verify().sound
        assert same(checkpoint.load_model(), dict(training.model.state_dict()))
        for name in ("model.pt", "optimizer.pt", "config.json", "training_state.json"):
            assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()

    def test_a_source_that_is_replaced_meanwhile_is_copied_as_it_is_then(
        self, location, source, tmp_path, caplog
    ):
        url, options = location
        caplog.set_level("INFO", logger="ckptstore")
        replaced = []

        def replace_it(event):
            if not replaced:
                replaced.append(event)
                ckptstore.save(source, model={"w": torch.full((9,), 8.0)}, step=8)

        done = ckptstore.sync(source, url, storage_options=options, progress=replace_it)

        assert (done.step, done.changed) == (8, True)
        checkpoint = ckptstore.open(url, storage_options=options)
        assert checkpoint.step == 8
        assert checkpoint.load_model()["w"].tolist() == [8.0] * 9
        assert checkpoint.verify().sound
        assert "was replaced while it was copied; starting over" in caplog.text

    def test_a_source_that_is_replaced_again_and_again_is_given_up(self, source, tmp_path):
        steps = iter(range(8, 100))

        def replace_it(event):
            ckptstore.save(source, model={"w": torch.ones(9)}, step=next(steps))

        with pytest.raises(ckptstore.SupersededError):
            ckptstore.sync(source, tmp_path / "copy", progress=replace_it)

        with pytest.raises(ckptstore.NotFoundError):
            ckptstore.open(tmp_path / "copy")

    def test_equal_is_left_alone(self, location, source):
        url, options = location
        ckptstore.sync(source, url, storage_options=options)

        again = ckptstore.sync(source, url, storage_options=options)

        assert not again.changed
        assert again.copied == ()
        assert ckptstore.open(url, storage_options=options).generation == 1

    def test_only_what_differs_is_moved(self, location, source, training, tmp_path):
        url, options = location
        ckptstore.sync(source, url, storage_options=options)
        optimizer = torch.optim.AdamW(training.model.parameters(), lr=0.5)
        old = ckptstore.open(source)
        ckptstore.save(
            source, model=training.model, optimizer=optimizer, config=old.config, step=8,
            tokenizer=old.tokenizer_state,
        )  # fmt: skip

        moved = ckptstore.sync(source, url, storage_options=options)

        assert moved.spared == ("model.pt",)
        assert "optimizer.pt" in moved.copied
        checkpoint = ckptstore.open(url, storage_options=options)
        assert checkpoint.verify().sound
        assert checkpoint.step == 8

    def test_a_dry_run_changes_nothing(self, source, tmp_path):
        plan = ckptstore.sync(source, tmp_path / "copy", dry_run=True)

        assert plan.changed
        assert "model.pt" in plan.copied
        assert not (tmp_path / "copy").exists()

    def test_an_inference_copy(self, location, source):
        url, options = location

        ckptstore.sync(source, url, optimizer=False, storage_options=options)

        checkpoint = ckptstore.open(url, storage_options=options)
        assert set(checkpoint.files()) == {"model.pt", "config.json", "tokenizer.json"}
        assert checkpoint.training_state is None
        assert checkpoint.load_optimizer() is None
        assert not ckptstore.sync(source, url, optimizer=False, storage_options=options).changed

    def test_hand_edits_are_carried_over(self, source, tmp_path):
        (source / "config.json").write_text('{"n_layer": 2, "dropout": 0.5}')

        carried = ckptstore.sync(source, tmp_path / "copy")

        assert carried.edited == ("config.json",)
        copy = ckptstore.open(tmp_path / "copy")
        assert copy.config == {"n_layer": 2, "dropout": 0.5}
        assert copy.edited == ()

    def test_a_folder_without_manifest_gets_one(self, source, tmp_path):
        plain = tmp_path / "plain"
        plain.mkdir()
        for name in ("model.pt", "config.json"):
            shutil.copy(source / name, plain / name)

        assert ckptstore.sync(plain, tmp_path / "copy").changed
        assert not ckptstore.sync(plain, tmp_path / "copy").changed
        assert ckptstore.open(tmp_path / "copy").proved

    def test_damage_on_the_way_commits_nothing(self, source, tmp_path):
        with (source / "model.pt").open("r+b") as file:
            file.seek(200)
            file.write(b"\xff\xfe\xfd")

        with pytest.raises(ckptstore.CorruptionError, match="model.pt .* is damaged: chunk 0"):
            ckptstore.sync(source, tmp_path / "copy")

        with pytest.raises(ckptstore.NotFoundError):
            ckptstore.open(tmp_path / "copy")
        assert [path for path in (tmp_path / "copy").rglob("*") if path.is_file()] == []

    def test_a_step_of_a_history_into_another_history(self, tmp_path):
        one = ckptstore.Store(tmp_path / "one", keep=ckptstore.Keep())
        other = ckptstore.Store(tmp_path / "other", keep=ckptstore.Keep())
        other.save(model={"w": torch.zeros(2)}, step=1)
        one.save(model={"w": torch.ones(2)}, step=2)

        ckptstore.sync(tmp_path / "one", tmp_path / "other")

        assert other.steps() == (1, 2)
        assert not ckptstore.sync(tmp_path / "one", tmp_path / "other").changed

    def test_onto_itself_is_refused(self, source):
        with pytest.raises(ckptstore.ConflictError, match="source and destination at once"):
            ckptstore.sync(source, source)

    def test_a_legacy_file_is_converted_not_synced(self, tmp_path):
        with pytest.raises(ckptstore.UnsupportedError, match="ckptstore convert"):
            ckptstore.sync(FIXTURE / "latest.pt", tmp_path / "copy")

    def test_progress_comes_as_events(self, source, tmp_path):
        events: list[Any] = []

        moved = ckptstore.sync(source, tmp_path / "copy", progress=events.append)

        assert events[-1].done == events[-1].total == moved.copied_bytes
        assert {event.name for event in events} >= {"model.pt", "optimizer.pt", "rng.pt"}


class TestConvert:
    @pytest.fixture
    def old(self, tmp_path: Path) -> Path:
        shutil.copytree(FIXTURE, tmp_path / "dante")
        return tmp_path / "dante"

    def test_beside_the_old_file_which_stays_byte_for_byte(self, old, same):
        before = (old / "latest.pt").read_bytes()
        legacy = ckptstore.open(old)

        done = ckptstore.convert(old)

        assert legacy.format == "legacy"
        assert done.changed
        assert (old / "latest.pt").read_bytes() == before
        bundle = ckptstore.open(old)
        assert bundle.format == "bundle"
        expected = json.loads((old / "expected.json").read_text())
        assert bundle.config == expected["config"]
        assert bundle.tokenizer_state == expected["tokenizer"]
        assert bundle.step == expected["step"]
        assert list(bundle.load_model()) == list(expected["after_step"])
        assert same(dict(bundle.load_model()), dict(legacy.load_model()))
        assert same(bundle.load_optimizer(), legacy.load_optimizer())

    def test_twice_changes_nothing(self, old):
        ckptstore.convert(old / "latest.pt")

        assert not ckptstore.convert(old / "latest.pt").changed
        assert not ckptstore.convert(old).changed
        assert ckptstore.open(old).generation == 1

    def test_elsewhere(self, old, location):
        url, options = location

        ckptstore.convert(old / "latest.pt", url, storage_options=options)

        assert ckptstore.open(url, storage_options=options).verify().sound
        assert sorted(path.name for path in old.iterdir()) == ["expected.json", "latest.pt"]

    def test_a_differing_destination_is_refused_unless_told(self, old, source):
        with pytest.raises(
            ckptstore.ConflictError, match="holds another checkpoint already .* --overwrite"
        ):
            ckptstore.convert(old / "latest.pt", source)
        assert ckptstore.open(source).step == 7

        ckptstore.convert(old / "latest.pt", source, overwrite=True)

        assert ckptstore.open(source).step == 20

    def test_a_persons_plain_files_are_not_replaced_unless_told(self, old, training):
        torch.save(training.model.state_dict(), old / "model.pt")
        mine = (old / "model.pt").read_bytes()

        with pytest.raises(ckptstore.ConflictError, match="holds model.pt already"):
            ckptstore.convert(old / "latest.pt")

        assert (old / "model.pt").read_bytes() == mine
        assert ckptstore.convert(old / "latest.pt", overwrite=True).changed

    def test_a_dry_run_changes_nothing(self, old):
        assert ckptstore.convert(old, dry_run=True).changed

        assert sorted(path.name for path in old.iterdir()) == ["expected.json", "latest.pt"]

    def test_an_unknown_format_names_those_that_there_are(self, old):
        with pytest.raises(ckptstore.UnsupportedError, match="bundle"):
            ckptstore.convert(old, format="bumdle")


def test_fields_too_large_for_training_state_become_a_state(tmp_path, training, same):
    (tmp_path / "theirs").mkdir()
    torch.save(training.model.state_dict(), tmp_path / "theirs" / "model.pt")
    config = {f"option {n}": "x" * 50 for n in range(60)}
    fields = {"step": 3, "training_config": config, "model_dtype_at_save": "float32"}
    (tmp_path / "theirs" / "training_state.json").write_text(json.dumps(fields))

    ckptstore.convert(tmp_path / "theirs", tmp_path / "ours")

    checkpoint = ckptstore.open(tmp_path / "ours")
    assert checkpoint.load_state("training_config") == config
    assert checkpoint.training_state["model_dtype_at_save"] == "float32"
    assert (tmp_path / "ours" / "training_state.json").stat().st_size < 1024


def test_damage_of_the_source_is_named_there(tmp_path, training):
    (tmp_path / "theirs").mkdir()
    torch.save(training.model.state_dict(), tmp_path / "theirs" / "model.pt")
    data = (tmp_path / "theirs" / "model.pt").read_bytes()
    (tmp_path / "theirs" / "model.pt").write_bytes(data[:1000])

    for act in (ckptstore.sync, ckptstore.convert):
        with pytest.raises(ckptstore.CorruptionError, match="model.pt in .*theirs is truncated"):
            act(tmp_path / "theirs", tmp_path / "ours")
    with pytest.raises(ckptstore.CorruptionError, match="truncated"):
        ckptstore.convert(tmp_path / "theirs")
    assert not (tmp_path / "ours").exists()


def test_more_fields_than_can_be_kept_apart_are_refused_at_once(tmp_path):
    ckptstore.save(tmp_path / "a", model={"w": torch.ones(2)})
    (tmp_path / "theirs").mkdir()
    shutil.copy(tmp_path / "a" / "model.pt", tmp_path / "theirs")
    fields = {f"field {number}": number for number in range(501)}
    (tmp_path / "theirs" / "training_state.json").write_text(json.dumps(fields))

    with pytest.raises(ckptstore.UnsupportedError, match="holds 501 fields, and more than 500"):
        ckptstore.convert(tmp_path / "theirs", tmp_path / "b")

    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(("old", "new"), [("config.json", "config"), ("model.pt", "model.json")])
def test_a_manifest_that_calls_a_file_what_it_is_not_is_damage(tmp_path, old, new):
    from ckptstore.manifest import Manifest

    ckptstore.save(tmp_path / "a", model={"w": torch.ones(2)}, config={"n": 1})
    ckptstore.save(tmp_path / "b", model={"w": torch.ones(3)})
    path = tmp_path / "a" / ".ckptstore" / "00000001" / "manifest.json"
    manifest = Manifest.from_json(path.read_text(), "it")
    kind = "texts" if old in manifest.texts else "files"
    entries = getattr(manifest, kind)
    path.write_text(replace(manifest, **{kind: {**entries, new: entries[old]}}).to_json())

    with pytest.raises(ckptstore.CorruptionError, match=f"lists '{new}' as what it is not"):
        ckptstore.sync(tmp_path / "a", tmp_path / "b")

    assert ckptstore.open(tmp_path / "b").generation == 1
