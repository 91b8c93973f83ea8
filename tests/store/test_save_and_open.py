"""G1, G4, G5, G7: what is saved is readable with plain tools, proved, and comes back the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore

CONFIG = {"n_layer": 6, "batch_size": 32, "invented_later": {"deep": [1, None, "ü"]}}
CHAR = {"token_kind": "char", "chars": ["\n", " ", "a", "è"]}


def save(location: Any, training: Any, **more: Any) -> ckptstore.Checkpoint:
    url, options = location
    fields = {
        "model": training.model,
        "config": CONFIG,
        "tokenizer": CHAR,
        "optimizer": training.optimizer,
        "step": 500,
        "state": {"rng": {"torch": torch.get_rng_state()}},
        "training_state": {"note": "from a test"},
    }
    return ckptstore.save(url, **{**fields, **more}, storage_options=options)


def reopen(location: Any) -> ckptstore.Checkpoint:
    return ckptstore.open(location[0], storage_options=location[1])


def test_everything_comes_back(location, training, same):
    save(location, training)

    checkpoint = reopen(location)

    assert checkpoint.format == "bundle"
    assert checkpoint.step == 500
    assert checkpoint.generation == 1
    assert checkpoint.config == CONFIG
    assert checkpoint.tokenizer_state == CHAR
    assert checkpoint.training_state == {
        "step": 500,
        "optimizer_file": "optimizer.pt",
        "rng_file": "rng.pt",
        "note": "from a test",
    }
    assert checkpoint.proved
    assert checkpoint.edited == ()
    assert same(checkpoint.load_model(), dict(training.model.state_dict()))
    assert same(checkpoint.load_optimizer(), training.optimizer.state_dict())
    assert checkpoint.states() == ("rng",)
    assert same(checkpoint.load_state("rng"), {"torch": torch.get_rng_state()})
    assert checkpoint.load_tokenizer().encode("a è") == [2, 1, 3]
    assert checkpoint.verify().sound


def test_a_write_id_names_one_commit_to_whoever_opens_it(location, training):
    first = save(location, training)
    opened = reopen(location)
    second = save(location, training)

    assert opened.write_id == first.write_id
    assert second.write_id not in (None, first.write_id)
    assert reopen(location).write_id == second.write_id


def test_where_nothing_was_committed_there_is_no_write_id(training, tmp_path):
    torch.save(training.model.state_dict(), tmp_path / "model.pt")

    assert ckptstore.open(tmp_path).write_id is None


def test_the_second_save_is_what_opens_and_the_first_handle_is_superseded(
    location, training, other_training, same
):
    first = save(location, training)
    save(location, other_training, step=501)

    assert same(reopen(location).load_model(), dict(other_training.model.state_dict()))
    with pytest.raises(ckptstore.SupersededError, match="open the location again"):
        first.load_model()


def test_named_tensors_are_loaded_alone(location, training, same):
    checkpoint = save(location, training)

    some = checkpoint.load_model(names=["2.bias", "0.weight"])

    expected = training.model.state_dict()
    assert same(some, {"2.bias": expected["2.bias"], "0.weight": expected["0.weight"]})
    with pytest.raises(ckptstore.NotFoundError, match=r"0\.wieght"):
        checkpoint.load_model(names=["0.wieght"])


def test_tensors_are_listed_without_reading_them(location, training):
    info = save(location, training).tensors()["0.weight"]

    assert (info.dtype, info.shape, info.nbytes) == ("float32", (8, 4), 128)


def test_restore_loads_in_place(location, training, other_training, same):
    checkpoint = save(location, training)

    checkpoint.restore(model=other_training.model, optimizer=other_training.optimizer)

    assert same(dict(other_training.model.state_dict()), dict(training.model.state_dict()))
    assert same(other_training.optimizer.state_dict(), training.optimizer.state_dict())


def test_an_optimizer_that_does_not_fit_changes_nothing(location, training, same):
    checkpoint = save(location, training)
    model = torch.nn.Linear(3, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    with pytest.raises(ckptstore.CkptstoreError, match=r"0\.weight"):
        checkpoint.restore(model=model)

    assert same(dict(model.state_dict()), before)


class TestPlainTools:
    """G1: the files need nothing of ours to be read."""

    @pytest.fixture
    def folder(self, tmp_path: Path, training: Any) -> Path:
        save((tmp_path / "dante", None), training)
        return tmp_path / "dante"

    def test_torch_load_reads_the_weights(self, folder, training, same):
        state = torch.load(folder / "model.pt", weights_only=True)

        assert same(dict(state), dict(training.model.state_dict()))
        optimizer = torch.load(folder / "optimizer.pt", weights_only=True)
        assert same(optimizer, training.optimizer.state_dict())

    def test_unzip_finds_no_fault(self, folder):
        with zipfile.ZipFile(folder / "model.pt") as archive:
            assert archive.testzip() is None

    def test_sha256sum_prints_what_the_manifest_says(self, folder):
        manifest = json.loads((folder / "manifest.json").read_text())

        for name in ("model.pt", "optimizer.pt", "rng.pt"):
            printed = subprocess.run(
                ["sha256sum", folder / name], check=True, capture_output=True, text=True
            ).stdout.split()[0]
            assert manifest["files"][name]["sha256"] == printed
        for name in ("config.json", "tokenizer.json", "training_state.json"):
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            assert manifest["texts"][name]["sha256"] == digest

    def test_json_is_utf8_with_indent_two(self, folder):
        text = (folder / "config.json").read_text("utf-8")

        assert text.startswith('{\n  "n_layer": 6,\n')
        assert "ü" in text

    def test_view_and_generation_are_the_same_bytes(self, folder):
        (generation,) = (folder / ".ckptstore").iterdir()
        twins = [path for path in generation.iterdir() if path.name.startswith("model.")]

        assert os.path.samefile(folder / "model.pt", twins[0])

    def test_permissions_follow_the_umask(self, tmp_path, training):
        old = os.umask(0o027)
        try:
            save((tmp_path / "x", None), training)
        finally:
            os.umask(old)

        modes = {
            path.stat().st_mode & 0o777 for path in (tmp_path / "x").iterdir() if path.is_file()
        }
        assert modes == {0o640}

    def test_training_state_stays_under_a_kilobyte(self, folder, training):
        assert (folder / "training_state.json").stat().st_size < 1024
        with pytest.raises(ckptstore.UnsupportedError, match="big"):
            save((folder, None), training, training_state={"big": "x" * 2000})


class TestPlainFolders:
    """A folder that was never ours, or was copied by hand, opens and says what it is."""

    def test_three_files_by_hand(self, tmp_path, training, same):
        torch.save(training.model.state_dict(), tmp_path / "model.pt")
        (tmp_path / "config.json").write_text(json.dumps(CONFIG))
        (tmp_path / "tokenizer.json").write_text(json.dumps(CHAR))

        checkpoint = ckptstore.open(tmp_path)

        assert checkpoint.format == "bundle"
        assert not checkpoint.proved
        assert checkpoint.config == CONFIG
        assert checkpoint.step is None
        assert checkpoint.load_optimizer() is None
        assert same(checkpoint.load_model(), dict(training.model.state_dict()))
        assert {file.status for file in checkpoint.verify().files} == {"not verified"}

    def test_a_flipped_bit_is_found_by_the_zips_own_crc(self, tmp_path, training):
        torch.save(training.model.state_dict(), tmp_path / "model.pt")
        data = bytearray((tmp_path / "model.pt").read_bytes())
        data[data.index(training.model[0].weight.detach().numpy().tobytes())] ^= 1
        (tmp_path / "model.pt").write_bytes(data)

        with pytest.raises(ckptstore.CorruptionError, match="model.pt"):
            ckptstore.open(tmp_path).load_model()

    def test_saving_into_it_makes_generation_one(self, tmp_path, training, other_training, same):
        torch.save(training.model.state_dict(), tmp_path / "model.pt")

        checkpoint = save((tmp_path, None), other_training)

        assert checkpoint.generation == 1
        assert same(ckptstore.open(tmp_path).load_model(), dict(other_training.model.state_dict()))

    def test_an_inference_copy_has_no_optimizer(self, tmp_path, training):
        save((tmp_path / "dante", None), training)
        (tmp_path / "copy").mkdir()
        for name in ("model.pt", "config.json", "tokenizer.json", "manifest.json"):
            (tmp_path / "copy" / name).write_bytes((tmp_path / "dante" / name).read_bytes())

        checkpoint = ckptstore.open(tmp_path / "copy")

        assert checkpoint.proved
        assert checkpoint.load_optimizer() is None
        assert not checkpoint.has_optimizer
        assert checkpoint.load_model()
        report = checkpoint.verify()
        assert report.sound
        assert {f.name for f in report.files if f.status == "absent"} <= {
            "optimizer.pt",
            "rng.pt",
            "training_state.json",
        }

    def test_an_optimizer_that_is_named_and_absent_is_an_error_for_who_asks(
        self, tmp_path, training
    ):
        save((tmp_path / "dante", None), training)
        (tmp_path / "copy").mkdir()
        for name in ("model.pt", "config.json", "training_state.json", "manifest.json"):
            (tmp_path / "copy" / name).write_bytes((tmp_path / "dante" / name).read_bytes())

        checkpoint = ckptstore.open(tmp_path / "copy")

        assert checkpoint.step == 500
        with pytest.raises(ckptstore.NotFoundError, match="optimizer.pt"):
            checkpoint.load_optimizer()

    def test_a_copied_view_that_was_damaged_is_found(self, tmp_path, training):
        save((tmp_path / "dante", None), training)
        (tmp_path / "copy").mkdir()
        for path in (tmp_path / "dante").glob("*.*"):
            if path.is_file():
                (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
        data = bytearray((tmp_path / "copy" / "model.pt").read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / "copy" / "model.pt").write_bytes(data)

        with pytest.raises(ckptstore.CorruptionError, match="model.pt .* chunk 0"):
            ckptstore.open(tmp_path / "copy").load_model()

    def test_without_the_model_it_is_damaged(self, tmp_path, training):
        save((tmp_path / "dante", None), training)
        (tmp_path / "copy").mkdir()
        for name in ("config.json", "manifest.json"):
            (tmp_path / "copy" / name).write_bytes((tmp_path / "dante" / name).read_bytes())

        checkpoint = ckptstore.open(tmp_path / "copy")

        assert not checkpoint.verify().sound
        with pytest.raises(ckptstore.CorruptionError, match="model.pt"):
            checkpoint.load_model()


class TestHandEdits:
    """What a person edits in the view is shown, and marked."""

    def test_an_edit_is_shown_and_marked(self, location, training):
        from ckptstore.storage import connect

        save(location, training)
        edited = json.dumps({**CONFIG, "batch_size": 64}, indent=2)
        connect(*location).replace("config.json", edited.encode())

        checkpoint = reopen(location)

        assert checkpoint.edited == ("config.json",)
        assert checkpoint.config["batch_size"] == 64
        assert checkpoint.load_model()

    def test_an_edit_that_is_no_json_is_named(self, tmp_path, training):
        save((tmp_path, None), training)
        (tmp_path / "config.json").write_text('{"n_layer": 6,}')

        with pytest.raises(ckptstore.CorruptionError, match="config.json"):
            ckptstore.open(tmp_path)

    def test_what_a_caller_passes_wins(self, tmp_path, training):
        save((tmp_path, None), training)
        (tmp_path / "config.json").write_text('{"n_layer": 7}')

        save((tmp_path, None), training, step=501)

        assert ckptstore.open(tmp_path).config == CONFIG


class TestDamage:
    """G4: damage names the file and the chunk, expected and found, before unpickling."""

    def test_a_flip_anywhere_in_the_model_is_found(self, tmp_path, training):
        save((tmp_path, None), training)
        path = tmp_path / "model.pt"
        good = path.read_bytes()
        for position in range(0, len(good), max(1, len(good) // 40)):
            with path.open("r+b") as file:
                file.seek(position)
                file.write(bytes([good[position] ^ 0x10]))
            with pytest.raises(
                ckptstore.CorruptionError, match=r"chunk 0 is xxh3-128:\w+, the man"
            ):
                ckptstore.open(tmp_path).load_model()
            with path.open("r+b") as file:
                file.seek(position)
                file.write(good[position : position + 1])
        assert ckptstore.open(tmp_path).load_model()

    def test_a_truncated_model_is_found(self, tmp_path, training):
        save((tmp_path, None), training)
        os.truncate(tmp_path / "model.pt", 1000)

        with pytest.raises(ckptstore.CorruptionError, match="it has 1000 bytes, the manifest says"):
            ckptstore.open(tmp_path).load_model()


class TestNothingThere:
    def test_a_missing_location(self, location):
        with pytest.raises(ckptstore.NotFoundError, match="nothing is there"):
            reopen(location)

    def test_a_folder_of_other_files(self, tmp_path):
        (tmp_path / "notes.txt").write_text("hello")

        expected = r"it holds notes.txt, and no model.pt; of the formats .* \(bundle, .*\) none"
        with pytest.raises(ckptstore.NotFoundError, match=expected):
            ckptstore.open(tmp_path)

    def test_an_absent_bucket(self, s3_server):
        with pytest.raises(ckptstore.NotFoundError, match="no-such-bucket-here"):
            ckptstore.open("s3://no-such-bucket-here/x", storage_options=s3_server.storage_options)


def test_what_safe_loading_would_refuse_is_not_saved(tmp_path, training):
    np = pytest.importorskip("numpy")
    save((tmp_path, None), training)

    with pytest.raises(ckptstore.UnsafeError, match="numpy"):
        save((tmp_path, None), training, state={"loss": {"best": np.float64(1.5)}}, step=501)

    checkpoint = ckptstore.open(tmp_path)
    assert (checkpoint.step, checkpoint.generation) == (500, 1)
    assert [path.name for path in (tmp_path / ".ckptstore").iterdir()] == ["00000001"]


def test_a_name_that_climbs_out_is_not_followed(tmp_path, training):
    torch.save(training.model.state_dict(), tmp_path / "model.pt")
    (tmp_path / "training_state.json").write_text('{"step": 1, "optimizer_file": "../o.pt"}')

    with pytest.raises(ckptstore.UnsafeError, match="not a plain file name"):
        ckptstore.open(tmp_path).load_optimizer()


DTYPES = [
    "bfloat16", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "int8", "uint8",
    "int16", "int32", "int64", "uint16", "uint32", "uint64", "bool", "complex32", "complex64",
    "complex128",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_every_dtype_shape_and_tie_comes_back(location, same):
    url, options = location
    base = torch.arange(24, dtype=torch.float32)
    state = {f"d.{name}": base.to(getattr(torch, name)).reshape(4, 6) for name in DTYPES}
    tied = torch.randn(5, 5)
    state |= {
        "tied.a": tied,
        "tied.b": tied,
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3.5),
        "view": torch.arange(1000)[10:20],
        "transposed": torch.randn(3, 7).t(),
        "weird name [*] ü": torch.ones(2),
    }

    ckptstore.save(url, model=state, storage_options=options)

    loaded = ckptstore.open(url, storage_options=options).load_model()
    assert same(dict(loaded), state)
    assert loaded["tied.a"].data_ptr() == loaded["tied.b"].data_ptr()


def test_a_vocabulary_edited_by_hand_is_not_the_one_of_the_training(tmp_path, training):
    save((tmp_path, None), training)
    (tmp_path / "tokenizer.json").write_text(json.dumps({**CHAR, "chars": ["a", "b"]}))

    checkpoint = ckptstore.open(tmp_path)

    assert checkpoint.edited == ("tokenizer.json",)
    with pytest.raises(ckptstore.CorruptionError, match="vocabulary"):
        checkpoint.load_tokenizer()
