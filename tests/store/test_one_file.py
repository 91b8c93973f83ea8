"""`convert` to one legacy file: all is in it, it is whole or absent, and replaces nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from ckptstore import storage
from ckptstore.commit.files import PlainFiles
from ckptstore.errors import (
    ConflictError,
    CorruptionError,
    StorageError,
    UnsafeError,
    UnsupportedError,
)
from ckptstore.storage import UnknownOutcomeError
from ckptstore.testing import Crash, Killed, Lose, Refuse, asked, inject

CONFIG = {"n_layer": 2, "dropout": 0.1, "nested": {"names": ["a", None]}}
TOKENIZER = {"token_kind": "bytes-of-a-plugin", "table": [3, 1, 2]}


@pytest.fixture
def source(tmp_path: Path, training: Any) -> Path:
    ckptstore.save(
        tmp_path / "dante",
        model=training.model,
        optimizer=training.optimizer,
        config=CONFIG,
        tokenizer=TOKENIZER,
        step=7,
        state={"rng": {"torch": torch.get_rng_state()}, "scheduler": {"last_epoch": 3}},
        training_state={"best_loss": 1.25, "note": "è"},
    )
    return tmp_path / "dante"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_beside_the_source_the_options_are_those_of_the_source(moto_server):
    url, options = moto_server.url(), moto_server.storage_options
    ckptstore.save(url, model={"w": torch.ones(3)}, storage_options=options)
    nowhere = {**options, "endpoint_url": "http://127.0.0.1:1"}

    ckptstore.convert(url, format="legacy", storage_options=options, destination_options=nowhere)

    assert "latest.pt" in storage.connect(url, options).list().files


def test_what_lies_beside_a_named_file_is_opened_by_name_alone(location):
    place = storage.connect(location.url, location.storage_options)
    place.create("ckpt.pt", b"weights")
    place.create("meta.pkl", b"letters")

    alone = PlainFiles(place, ("ckpt.pt",), named="ckpt.pt")
    folder = PlainFiles(place, ("ckpt.pt", "meta.pkl"))

    assert alone.names() == ("ckpt.pt",)
    with alone.beside("meta.pkl") as file:
        assert file.read() == b"letters"
    assert alone.beside("other.pkl") is None
    assert folder.beside("meta.pkl") is None


class TestWhatIsInIt:
    def test_plain_torch_reads_the_documented_keys(self, source, tmp_path, training, same):
        ckptstore.convert(source, tmp_path / "dante.pt", "legacy")

        found = torch.load(tmp_path / "dante.pt", weights_only=True)
        assert list(found)[:5] == [
            *("model_state_dict", "config", "tokenizer", "step", "optimizer_state_dict")
        ]
        assert same(dict(found["model_state_dict"]), dict(training.model.state_dict()))
        assert same(found["optimizer_state_dict"], training.optimizer.state_dict())
        assert (found["config"], found["tokenizer"], found["step"]) == (CONFIG, TOKENIZER, 7)
        assert found["scheduler_state_dict"] == {"last_epoch": 3}
        assert (found["best_loss"], found["note"]) == (1.25, "è")

    def test_what_is_absent_is_none(self, tmp_path):
        ckptstore.save(tmp_path / "bare", model={"w": torch.ones(2)})

        ckptstore.convert(tmp_path / "bare", tmp_path / "bare.pt", "legacy")

        found = torch.load(tmp_path / "bare.pt", weights_only=True)
        assert found.pop("model_state_dict")["w"].tolist() == [1.0, 1.0]
        assert found == dict.fromkeys(["config", "tokenizer", "step", "optimizer_state_dict"])

    def test_there_and_back_are_the_same_bytes(self, location, source, tmp_path):
        url, options = location

        there = ckptstore.convert(source, f"{url}/dante.pt", "legacy", storage_options=options)
        back = ckptstore.convert(f"{url}/dante.pt", tmp_path / "back", storage_options=options)

        assert there.destination == f"{url}/dante.pt"
        assert there.copied == ("dante.pt",)
        assert there.left_out == back.left_out == ()
        for name in os.listdir(source):
            if name.endswith((".pt", ".json")) and name != "manifest.json":
                assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes(), name

    def test_every_tensor_is_proved_the_same(self, source, tmp_path, training):
        done = ckptstore.convert(source, tmp_path / "dante.pt", "legacy")

        assert done.proofs.keys() == {"model", "optimizer", "rng"}
        assert [proof.name for proof in done.proofs["model"]] == list(training.model.state_dict())
        for proofs in done.proofs.values():
            assert all(proof.before == proof.after and proof.before.crc32 for proof in proofs)

    def test_ties_stay_and_views_bring_nothing_along(self, tmp_path):
        table = torch.arange(10_000.0)
        model = {"a": table[:4], "b": table[:4], "c": table[2:6]}
        old = {"model_state_dict": model, "optimizer_state_dict": {"state": {0: table[7:9]}}}
        torch.save(old, tmp_path / "old.pt")

        ckptstore.convert(tmp_path / "old.pt", tmp_path / "new.pt", "legacy")

        found = torch.load(tmp_path / "new.pt", weights_only=True)
        weights, moments = found["model_state_dict"], found["optimizer_state_dict"]["state"][0]
        assert (tmp_path / "new.pt").stat().st_size < 4000
        assert weights["c"].tolist() == [2.0, 3.0, 4.0, 5.0]
        assert moments.tolist() == [7.0, 8.0]
        places = {name: t.untyped_storage().data_ptr() for name, t in weights.items()}
        assert places["a"] == places["b"] == places["c"]
        assert moments.untyped_storage().data_ptr() != places["a"]

    def test_a_hand_edit_is_carried_over(self, source, tmp_path):
        (source / "config.json").write_text('{"n_layer": 2, "mine": true}')

        done = ckptstore.convert(source, tmp_path / "dante.pt", "legacy")

        assert done.edited == ("config.json",)
        assert ckptstore.open(tmp_path / "dante.pt").config == {"n_layer": 2, "mine": True}

    @pytest.mark.parametrize("dry_run", [True, False])
    def test_what_it_has_no_room_for_is_named(self, source, tmp_path, dry_run, training):
        ckptstore.save(
            source, model=training.model, tokenizer={"token_kind": "char", "chars": ["a"]},
            metrics={"val_loss": 1.5}, step=8,
        )  # fmt: skip

        done = ckptstore.convert(source, tmp_path / "dante.pt", "legacy", dry_run=dry_run)

        assert done.left_out == ("the tokenizer's fingerprint", "metrics")

    def test_a_long_pickle_is_written_though_a_dry_run_cannot_look_into_it(self, tmp_path):
        losses = [float(number) for number in range(200_000)]
        ckptstore.save(
            tmp_path / "dante", model={"w": torch.ones(2)}, state={"losses": losses},
            metrics={"val_loss": 1.5},
        )  # fmt: skip

        dry = ckptstore.convert(tmp_path / "dante", tmp_path / "a.pt", "legacy", dry_run=True)
        done = ckptstore.convert(tmp_path / "dante", tmp_path / "a.pt", "legacy")

        assert (dry.left_out, done.left_out) == (None, ("metrics",))
        assert ckptstore.open(tmp_path / "a.pt").load_state("losses") == losses

    def test_without_the_optimizer_it_is_a_copy_for_inference(self, source, tmp_path):
        done = ckptstore.convert(source, tmp_path / "dante.pt", "legacy", optimizer=False)

        assert done.left_out == (
            *("step", "optimizer", "the field best_loss", "the field note"),
            *("the state rng", "the state scheduler"),
        )
        assert done.proofs.keys() == {"model"}
        found = torch.load(tmp_path / "dante.pt", weights_only=True)
        assert found["optimizer_state_dict"] is None
        assert (found["config"], found["tokenizer"]) == (CONFIG, TOKENIZER)

    def test_a_field_that_would_stand_in_the_place_of_the_weights_is_refused(self, tmp_path):
        ckptstore.save(
            tmp_path / "dante", model={"w": torch.ones(2)}, training_state={"tokenizer": "mine"}
        )

        with pytest.raises(
            UnsupportedError, match="the field 'tokenizer' of the training state would stand under"
        ):
            ckptstore.convert(tmp_path / "dante", tmp_path / "dante.pt", "legacy")

        assert names(tmp_path) == ["dante"]

    @pytest.mark.parametrize("called", ["config", "step", "scheduler"])
    def test_a_state_may_be_called_as_a_field_or_a_key_is(self, tmp_path, called):
        ckptstore.save(
            tmp_path / "dante", model={"w": torch.ones(2)}, state={called: {"a": 1}}, step=3,
            training_state={"scheduler": "cosine"},
        )  # fmt: skip

        done = ckptstore.convert(tmp_path / "dante", tmp_path / "dante.pt", "legacy")

        assert done.left_out == ()
        checkpoint = ckptstore.open(tmp_path / "dante.pt")
        assert checkpoint.states() == (called,)
        assert checkpoint.load_state(called) == {"a": 1}
        assert checkpoint.training_state == {"step": 3, "scheduler": "cosine"}


class TestWhereItIs:
    def test_by_default_beside_the_bundle_which_stays_what_is_opened(self, source):
        done = ckptstore.convert(source, format="legacy")

        assert done.destination == f"{source}/latest.pt"
        assert ckptstore.open(source).format == "bundle"
        assert ckptstore.open(source / "latest.pt").format == "legacy"
        assert ckptstore.open(source).verify().sound

    def test_in_a_folder_that_is_named_as_one(self, location, source):
        url, options = location

        ckptstore.convert(source, f"{url}/new/", "legacy", storage_options=options)
        ckptstore.save(f"{url}/old", model={"w": torch.ones(1)}, storage_options=options)
        ckptstore.convert(source, f"{url}/old", "legacy", storage_options=options)

        assert ckptstore.open(f"{url}/new", storage_options=options).format == "legacy"
        assert ckptstore.open(f"{url}/old/latest.pt", storage_options=options).step == 7

    def test_what_could_be_a_file_or_a_folder_is_refused(self, source, tmp_path):
        with pytest.raises(UnsupportedError, match=r"could be meant as .*'.*/x\.pt' .* '.*/x/'"):
            ckptstore.convert(source, tmp_path / "x", "legacy")

        assert names(tmp_path) == ["dante"]

    def test_a_name_that_means_something_else_is_refused(self, source, tmp_path):
        with pytest.raises(UnsupportedError, match="called model.pt would be opened as 'bundle'"):
            ckptstore.convert(source, tmp_path / "model.pt", "legacy")

        assert names(tmp_path) == ["dante"]

    def test_the_file_itself_is_the_same_already(self, source, tmp_path):
        ckptstore.convert(source, tmp_path / "dante.pt", "legacy")

        for destination in (None, tmp_path / "dante.pt"):
            done = ckptstore.convert(tmp_path / "dante.pt", destination, "legacy")
            assert (done.changed, done.spared) == (False, ("dante.pt",))
        assert names(tmp_path) == ["dante", "dante.pt"]


class TestWholeOrAbsent:
    def test_a_dry_run_changes_nothing(self, source, tmp_path):
        done = ckptstore.convert(source, tmp_path / "dante.pt", "legacy", dry_run=True)

        assert (done.changed, done.copied, done.proofs) == (True, ("dante.pt",), {})
        assert names(tmp_path) == ["dante"]

    def test_twice_changes_nothing(self, location, source):
        url, options = location
        first = ckptstore.convert(source, f"{url}/dante.pt", "legacy", storage_options=options)

        again = ckptstore.convert(source, f"{url}/dante.pt", "legacy", storage_options=options)

        assert (again.changed, again.copied, again.spared) == (False, (), ("dante.pt",))
        assert again.spared_bytes == first.copied_bytes

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_another_file_is_never_replaced(self, location, source, overwrite):
        url, options = location
        storage.connect(url, options).create("dante.pt", b"mine")

        with pytest.raises(ConflictError, match=r"dante\.pt in .* is there already, and another"):
            ckptstore.convert(
                source, f"{url}/dante.pt", "legacy", overwrite=overwrite, storage_options=options
            )

        assert storage.connect(url, options).read("dante.pt") == b"mine"

    def test_a_file_that_appears_meanwhile_is_not_replaced(self, source, tmp_path):
        def appear(event):
            (tmp_path / "dante.pt").write_bytes(b"mine")

        with pytest.raises(ConflictError, match=r"dante\.pt' is already there"):
            ckptstore.convert(source, tmp_path / "dante.pt", "legacy", progress=appear)

        assert (tmp_path / "dante.pt").read_bytes() == b"mine"
        assert names(tmp_path) == ["dante", "dante.pt"]

    def test_a_full_disk_leaves_nothing(self, source, tmp_path):
        with (
            inject(Refuse(asked("write", "dante.pt"), "no space")),
            pytest.raises(StorageError) as caught,
        ):
            ckptstore.convert(source, tmp_path / "dante.pt", "legacy")

        assert caught.value.committed is False
        assert names(tmp_path) == ["dante"]

    def test_a_kill_leaves_no_part_under_its_name(self, location, source):
        url, options = location
        with inject(Crash(asked("finish", "dante.pt"))), pytest.raises(Killed):
            ckptstore.convert(source, f"{url}/dante.pt", "legacy", storage_options=options)

        assert storage.connect(url, options).entry("dante.pt") is None
        done = ckptstore.convert(source, f"{url}/dante.pt", "legacy", storage_options=options)
        assert done.changed

    def test_a_lost_reply_is_settled_by_reading_back(self, source, memory_url):
        with inject(Lose(asked("finish", "dante.pt"))):
            done = ckptstore.convert(source, f"{memory_url}/dante.pt", "legacy")

        assert done.proofs.keys() == {"model", "optimizer", "rng"}

    def test_a_reply_that_never_comes_is_not_called_a_failure(self, source, memory_url):
        def never(operation, perform):
            if str(operation) == "finish dante.pt":
                raise UnknownOutcomeError("no reply")
            return perform()

        with inject(never), pytest.raises(StorageError, match="is not known: look at") as caught:
            ckptstore.convert(source, f"{memory_url}/dante.pt", "legacy")

        assert caught.value.committed is None

    def test_a_failure_after_the_file_is_there_says_so(self, source, tmp_path):
        def late(operation, perform):
            perform_done = perform()
            if str(operation) == "finish dante.pt":
                raise StorageError("cannot sync the folder")
            return perform_done

        with inject(late), pytest.raises(StorageError, match="may not survive a loss") as caught:
            ckptstore.convert(source, tmp_path / "dante.pt", "legacy")

        assert caught.value.committed is True
        assert ckptstore.open(tmp_path / "dante.pt").step == 7

    @pytest.mark.parametrize("format", ["legacy", "bundle"])
    def test_an_error_while_it_is_proved_says_that_it_is_there(self, source, tmp_path, format):
        table = torch.arange(100.0)
        torch.save({"model_state_dict": {"w": table[:4]}, "step": 3}, tmp_path / "old.pt")
        finished = []

        def late(operation, perform):
            if finished and operation.name == "readinto":
                raise StorageError("cannot read any more")
            finished.extend([1] if operation.name == "finish" else [])
            return perform()

        with inject(late), pytest.raises(StorageError, match="cannot read any more") as caught:
            ckptstore.convert(tmp_path / "old.pt", tmp_path / "new.pt", format)

        assert caught.value.committed is True
        assert ckptstore.open(tmp_path / "new.pt").step == 3

    def test_progress_ends_with_all_of_it(self, source, tmp_path):
        events = []

        done = ckptstore.convert(source, tmp_path / "dante.pt", "legacy", progress=events.append)

        assert (events[-1].done, events[-1].total) == (done.copied_bytes, done.copied_bytes)
        assert (tmp_path / "dante.pt").stat().st_size == done.copied_bytes


class TestHarmedSources:
    @pytest.mark.parametrize("name", ["model.pt", "optimizer.pt", "rng.pt"])
    def test_damage_of_any_part_leaves_nothing(self, source, tmp_path, name):
        with (source / name).open("r+b") as file:
            file.seek(200)
            file.write(b"\xff\xfe\xfd")

        with pytest.raises(CorruptionError, match=f"{name} in .* is damaged"):
            ckptstore.convert(source, tmp_path / "dante.pt", "legacy")

        assert names(tmp_path) == ["dante"]

    def test_an_unsafe_part_leaves_nothing(self, tmp_path):
        (tmp_path / "dante").mkdir()
        torch.save({"w": torch.ones(2)}, tmp_path / "dante" / "model.pt")
        torch.save({"state": {}, "path": Path("x")}, tmp_path / "dante" / "optimizer.pt")
        (tmp_path / "dante" / "training_state.json").write_text('{"optimizer_file":"optimizer.pt"}')

        with pytest.raises(UnsafeError, match="optimizer.pt in .* holds more than tensors"):
            ckptstore.convert(tmp_path / "dante", tmp_path / "dante.pt", "legacy")

        assert names(tmp_path) == ["dante"]

    def test_an_optimizer_that_is_named_and_absent_is_not_passed_over(self, source, tmp_path):
        ckptstore.sync(source, tmp_path / "copy")
        for path in (tmp_path / "copy").rglob("optimizer*.pt"):
            path.unlink()

        with pytest.raises(ckptstore.NotFoundError, match="optimizer.pt"):
            ckptstore.convert(tmp_path / "copy", tmp_path / "dante.pt", "legacy")
        ckptstore.convert(tmp_path / "copy", tmp_path / "dante.pt", "legacy", optimizer=False)

        assert ckptstore.open(tmp_path / "dante.pt").has_optimizer is False
