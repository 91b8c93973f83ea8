"""The bundle: readable, optional in its parts, and strict about names."""

from __future__ import annotations

import io
import json

import pytest
import torch

import ckptstore
from ckptstore.errors import CorruptionError, NotFoundError, UnsafeError, UnsupportedError
from ckptstore.formats.base import Contents
from ckptstore.formats.bundle import BundleFormat
from ckptstore.testing import MemoryNewFiles

WEIGHTS = {"w": torch.arange(3.0), "b": torch.zeros(2, dtype=torch.bfloat16)}


def written(contents):
    files = MemoryNewFiles()
    BundleFormat().write(contents, files)
    return files.written()


def read(files):
    return BundleFormat().read(files)


# -- writing -------------------------------------------------------------------------------


def test_the_files_are_readable_without_us():
    files = written(
        Contents(
            model=WEIGHTS,
            config={"n_layer": 6, "name": "Dantè"},
            tokenizer_state={"token_kind": "gpt2"},
            optimizer={"state": {}, "param_groups": []},
            states={"rng": {"cpu": torch.get_rng_state()}},
            step=500,
            training_state={"note": "x"},
        )
    )

    assert files.text("config.json") == '{\n  "n_layer": 6,\n  "name": "Dantè"\n}\n'
    assert json.loads(files.text("training_state.json")) == {
        "step": 500,
        "optimizer_file": "optimizer.pt",
        "rng_file": "rng.pt",
        "note": "x",
    }
    model = torch.load(files.open("model.pt"), weights_only=True)
    assert torch.equal(model["w"], WEIGHTS["w"])
    assert set(files.names()) == {
        *("config.json", "tokenizer.json", "training_state.json"),
        *("model.pt", "optimizer.pt", "rng.pt"),
    }


def test_weights_alone_are_one_file():
    assert written(Contents(model=WEIGHTS)).names() == ("model.pt",)


@pytest.mark.parametrize(
    "contents",
    [
        Contents(model=WEIGHTS, step=0),
        Contents(model=WEIGHTS, optimizer={}),
        Contents(model=WEIGHTS, states={"a": {}}),
        Contents(model=WEIGHTS, training_state={"note": 1}),
    ],
    ids=["step", "optimizer", "state", "field"],
)
def test_a_training_state_is_written_when_there_is_one(contents):
    assert "training_state.json" in written(contents).names()


def test_a_training_state_of_1_kb_is_refused_and_its_largest_field_named():
    contents = Contents(model=WEIGHTS, training_state={"a": 1, "losses": [0.25] * 300})

    with pytest.raises(
        UnsupportedError,
        match=r"training_state\.json would have \d+ bytes, and stays under 1024; its largest "
        r"field is 'losses': pass it in state= instead",
    ):
        written(contents)


def test_fields_that_name_files_come_from_what_is_saved():
    old = {"step": 3, "optimizer_file": "optimizer.pt", "rng_file": "rng.pt", "input_file": "a.txt"}

    files = written(Contents(model=WEIGHTS, step=4, training_state=old))

    assert json.loads(files.text("training_state.json")) == {"step": 4, "input_file": "a.txt"}
    assert read(files).states() == ()


@pytest.mark.parametrize(
    "name", ["model", "Optimizer", "manifest", "", ".hidden", "a/b", "..", "a:b"]
)
def test_a_state_with_a_name_that_no_file_can_have_is_refused(name):
    with pytest.raises(UnsupportedError, match=f"a state cannot be called {name!r}"):
        written(Contents(model=WEIGHTS, states={name: {}}))


def test_states_may_be_called_anything_else(folder):
    files = written(Contents(model=WEIGHTS, states={"lr [1] ä": {"x": 1}, "data.order": [1, 2]}))

    reader = read(files)

    assert reader.states() == ("lr [1] ä", "data.order")
    assert reader.load_state("lr [1] ä") == {"x": 1}
    assert reader.load_state("data.order") == [1, 2]


def test_config_that_is_no_json_is_refused():
    with pytest.raises(UnsupportedError, match=r"config\.json: this cannot be written as JSON"):
        written(Contents(model=WEIGHTS, config={"lr": float("nan")}))
    with pytest.raises(UnsupportedError, match=r"config\.json has to be a JSON object, not a list"):
        written(Contents(model=WEIGHTS, config=[1]))


def test_nothing_is_written_when_one_state_is_refused():
    files = MemoryNewFiles()

    with pytest.raises(UnsafeError, match="the state 'rng' holds a"):
        BundleFormat().write(Contents(model=WEIGHTS, states={"rng": {"x": object()}}), files)

    assert files.written().names() == ()


# -- reading -------------------------------------------------------------------------------


def test_a_folder_that_was_never_ours_opens(folder):
    files = folder(
        {
            "model.pt": WEIGHTS,
            "config.json": {"n_layer": 6, "invented_later": [1]},
            "tokenizer.json": {"token_kind": "gpt2", "chars": None},
            "training_state.json": {
                "step": 7,
                "optimizer_file": "adam.pt",
                "training_config": {"lr": 0.1},
                "model_dtype_at_save": "torch.float32",
            },
            "adam.pt": {"state": {}, "param_groups": [{"lr": 0.1}]},
            "notes.txt": b"mine",
        }
    )

    reader = read(files)

    assert reader.step == 7
    assert reader.config == {"n_layer": 6, "invented_later": [1]}
    assert reader.tokenizer_state == {"token_kind": "gpt2", "chars": None}
    assert reader.training_state["training_config"] == {"lr": 0.1}
    assert reader.has_optimizer
    assert reader.load_optimizer() == {"state": {}, "param_groups": [{"lr": 0.1}]}
    assert reader.files() == (
        *("model.pt", "config.json", "tokenizer.json", "training_state.json", "adam.pt"),
    )
    assert reader.for_inference() == ("model.pt", "config.json", "tokenizer.json")


def test_weights_alone_open(folder):
    reader = read(folder({"model.pt": WEIGHTS}))

    assert reader.step is reader.config is reader.tokenizer_state is reader.training_state is None
    assert not reader.has_optimizer
    assert reader.load_optimizer() is None
    assert reader.states() == ()
    assert set(reader.tensors()) == set(reader.load_model()) == {"w", "b"}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_wrappers_and_prefixes_come_off(folder, prefix, wrapped):
    state = {prefix + name: value for name, value in WEIGHTS.items()}
    if wrapped:
        state = {"state_dict": state, "checkpoint_dtype": "bf16", "model_dtype": torch.bfloat16}

    reader = read(folder({"model.pt": state}))

    assert list(reader.tensors()) == list(reader.load_model()) == ["w", "b"]
    assert torch.equal(reader.load_model(["w"])["w"], WEIGHTS["w"])


def test_an_optimizer_that_is_named_and_absent_is_an_error_for_whoever_asks(folder):
    files = folder({"model.pt": WEIGHTS, "training_state.json": {"optimizer_file": "optimizer.pt"}})

    reader = read(files)

    assert not reader.has_optimizer
    with pytest.raises(
        NotFoundError, match=r"no optimizer\.pt in dante, though its training_state\.json names it"
    ):
        reader.load_optimizer()


def test_a_state_that_is_named_and_absent_is_an_error_for_whoever_asks(folder):
    reader = read(folder({"model.pt": WEIGHTS, "training_state.json": {"rng_file": "rng.pt"}}))

    assert reader.states() == ("rng",)
    with pytest.raises(NotFoundError, match=r"no rng\.pt in dante"):
        reader.load_state("rng")
    with pytest.raises(NotFoundError, match="no state 'scheduler' in dante; it has 'rng'"):
        reader.load_state("scheduler")


@pytest.mark.parametrize("name", ["../x.pt", "/etc/passwd", "a/b.pt", "C:x.pt", "..", "", 7])
def test_an_optimizer_file_that_leads_outside_is_unsafe(folder, name):
    files = folder({"model.pt": WEIGHTS, "training_state.json": {"optimizer_file": name}})

    with pytest.raises(UnsafeError, match=r"training_state\.json in dante names .*not followed"):
        read(files)


def test_a_state_file_that_leads_outside_is_unsafe(folder):
    reader = read(folder({"model.pt": WEIGHTS, "training_state.json": {"rng_file": "../rng.pt"}}))

    assert reader.states() == ()
    with pytest.raises(UnsafeError, match="not followed"):
        reader.load_state("rng")


@pytest.mark.parametrize("step", ["7", 7.0, True, [7]])
def test_a_step_that_is_no_whole_number_is_damage(folder, step):
    files = folder({"model.pt": WEIGHTS, "training_state.json": {"step": step}})

    with pytest.raises(CorruptionError, match="has the step .*, not a whole number; correct it"):
        read(files)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "training_state.json"])
@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"null", b'{"a": NaN}', b"\xff"])
def test_malformed_json_is_damage_that_names_the_file(folder, name, text):
    with pytest.raises(CorruptionError, match=name.replace(".", r"\.")):
        read(folder({"model.pt": WEIGHTS, name: text}))


def test_a_model_that_is_no_state_dict_is_damage(folder):
    reader = read(folder({"model.pt": [torch.ones(1)]}))

    with pytest.raises(CorruptionError, match=r"model\.pt in dante holds a list, not a state dict"):
        reader.load_model()


def test_a_flipped_bit_in_an_unproved_folder_is_found(folder):
    files = folder({"model.pt": WEIGHTS})
    data = bytearray(files.data["model.pt"])
    data[data.index(bytes(WEIGHTS["w"].view(torch.uint8).tolist()))] ^= 1
    files.data["model.pt"] = bytes(data)

    with pytest.raises(
        CorruptionError, match=r"model\.pt in dante is damaged: its record 'data/0'"
    ):
        read(files).load_model()


# -- committed -----------------------------------------------------------------------------


def test_a_committed_bundle_lists_its_tensors_from_the_manifest(tmp_path):
    checkpoint = ckptstore.save(tmp_path / "dante", model=WEIGHTS, step=1)
    for file in tmp_path.rglob("model*.pt"):
        file.write_bytes(b"x" * file.stat().st_size)

    assert list(checkpoint.tensors()) == ["w", "b"]


def test_an_inference_copy_says_what_it_lacks(tmp_path):
    optimizer = {"state": {}, "param_groups": []}
    ckptstore.save(tmp_path / "dante", model=WEIGHTS, optimizer=optimizer, step=1)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("model.pt", "training_state.json", "manifest.json"):
        (copy / name).write_bytes((tmp_path / "dante" / name).read_bytes())

    checkpoint = ckptstore.open(copy)

    assert checkpoint.proved
    assert not checkpoint.has_optimizer
    with pytest.raises(NotFoundError, match=r"no optimizer\.pt in .*copy.*an inference copy"):
        checkpoint.load_optimizer()


def test_the_index_needs_no_second_look_at_other_files(folder):
    files = folder({"model.pt": WEIGHTS})
    opened = []
    plain = files.open
    files.open = lambda name: opened.append(name) or plain(name)

    reader = read(files)

    assert opened == []
    assert reader.tensors()["w"].shape == (3,)
    assert isinstance(plain("model.pt"), io.BytesIO)


def test_a_field_that_names_another_of_our_files_is_no_state(folder):
    fields = {"config_file": "config.json", "model_file": "model.pt", "vocab_file": "vocab.txt"}
    reader = read(folder({"model.pt": WEIGHTS, "config.json": {}, "training_state.json": fields}))

    assert reader.states() == ()
    assert reader.training_state == fields
