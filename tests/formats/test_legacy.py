"""The legacy single file, with all that real files of its kind hold."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

import ckptstore
from ckptstore import ptfile
from ckptstore.errors import CorruptionError, NotFoundError, UnsafeError, UnsupportedError
from ckptstore.formats.base import Contents
from ckptstore.formats.legacy import LegacyFormat
from ckptstore.testing import MemoryFiles, MemoryNewFiles

WEIGHTS = {"w": torch.arange(3.0), "b": torch.zeros(2)}


def read(files):
    return LegacyFormat().read(files)


def test_a_real_file_is_read(legacy_bytes, legacy):
    reader = read(MemoryFiles({"latest.pt": legacy_bytes}))

    assert reader.step == 20
    assert reader.config == legacy["config"]
    assert reader.tokenizer_state == legacy["tokenizer"]
    assert reader.training_state == {"step": 20}
    expected = {k: v for k, v in legacy["model_state_dict"].items() if not k.endswith(".tril")}
    loaded = reader.load_model()
    assert list(loaded) == list(expected) == list(reader.tensors())
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    optimizer = reader.load_optimizer()
    assert optimizer["param_groups"] == legacy["optimizer_state_dict"]["param_groups"]
    for key, values in legacy["optimizer_state_dict"]["state"].items():
        assert all(torch.equal(optimizer["state"][key][n], v) for n, v in values.items())


def test_the_facts_are_read_without_torch():
    path = Path(__file__).parents[1] / "fixtures" / "legacy_char" / "latest.pt"
    code = (
        "import sys; from ckptstore.formats.legacy import LegacyFormat\n"
        "from ckptstore.testing.memory import MemoryFiles\n"
        f"data = open({str(path)!r}, 'rb').read()\n"
        "reader = LegacyFormat().read(MemoryFiles({'latest.pt': data}))\n"
        "assert reader.step == 20 and reader.tensors() and reader.config\n"
        "print(bool({'torch', 'fsspec', 's3fs', 'tiktoken'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout.strip() == "False", done.stderr


def test_the_optimizers_bytes_are_not_read_with_the_weights(legacy_bytes):
    spans = []

    class Watched(io.BytesIO):
        def readinto(self, buffer, /):
            spans.append((self.tell(), len(buffer)))
            return super().readinto(buffer)

    files = MemoryFiles({"latest.pt": legacy_bytes})
    files.open = lambda name: Watched(legacy_bytes)

    state = read(files).load_model()

    assert sum(length for _, length in spans) == sum(t.nbytes for t in state.values())


def test_latest_wins_over_final_and_bundles_win_over_both(folder):
    latest, final = {"model_state_dict": WEIGHTS, "step": 2}, {"model_state_dict": {}, "step": 1}

    assert read(folder({"final.pt": final, "latest.pt": latest})).step == 2
    assert read(folder({"final.pt": final, "other.pt": latest})).step == 1
    assert LegacyFormat.yields_to == ("bundle",)


def test_a_folder_without_such_a_file_does_not_match(folder):
    other = {"model_state_dict": WEIGHTS}

    assert not LegacyFormat().matches(folder({"a.pt": other, "b.pt": other}))
    assert not LegacyFormat().matches(folder({"a.txt": b""}))
    assert not LegacyFormat().matches(folder({}))
    assert not LegacyFormat().matches(folder({"any.pt": other}))
    assert LegacyFormat().matches(folder({"any.pt": other}, named="any.pt"))
    with pytest.raises(NotFoundError, match=r"dante has neither latest\.pt nor final\.pt"):
        read(folder({"a.txt": b""}))


def test_every_key_but_the_first_may_be_missing_or_none(folder):
    nothing = dict.fromkeys(["config", "tokenizer", "step", "optimizer_state_dict"])
    for more in ({}, nothing):
        reader = read(folder({"latest.pt": {"model_state_dict": WEIGHTS, **more}}))

        assert reader.step is reader.config is reader.tokenizer_state is reader.training_state
        assert reader.step is None
        assert not reader.has_optimizer
        assert reader.load_optimizer() is None
        assert set(reader.load_model()) == set(WEIGHTS)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_masks_prefixes_and_wrappers_come_off(folder, prefix, wrapped):
    state = OrderedDict({prefix + name: value for name, value in WEIGHTS.items()})
    state[f"{prefix}blocks.0.sa.heads.11.tril"] = torch.ones(4, 4)
    state[f"{prefix}blocks.0.sa.heads.11.tril_not"] = torch.ones(1)
    if wrapped:
        state = {"state_dict": state, "checkpoint_dtype": "bf16", "model_dtype": torch.bfloat16}

    reader = read(folder({"latest.pt": {"model_state_dict": state}}))

    names = ["w", "b", "blocks.0.sa.heads.11.tril_not"]
    assert list(reader.tensors()) == list(reader.load_model()) == names
    assert torch.equal(reader.load_model(["w"])["w"], WEIGHTS["w"])
    with pytest.raises(NotFoundError, match=r"no tensor 'blocks\.0\.sa\.heads\.11\.tril'"):
        reader.load_model(["blocks.0.sa.heads.11.tril"])


def test_gpt2_states_and_unknown_fields_are_given_out_as_they_are(folder):
    parts = {
        "model_state_dict": WEIGHTS,
        "config": {"n_layer": 2, "use_loss_mask": True, "betas": (0.9, 0.95)},
        "tokenizer": {"token_kind": "gpt2", "chars": None},
    }

    reader = read(folder({"latest.pt": parts}))

    assert reader.tokenizer_state == {"token_kind": "gpt2", "chars": None}
    assert reader.config == {"n_layer": 2, "use_loss_mask": True, "betas": [0.9, 0.95]}


def test_torchs_own_values_in_a_config_are_named(folder):
    config = {"device": torch.device("cuda"), "dtype": torch.bfloat16}

    reader = read(folder({"latest.pt": {"model_state_dict": WEIGHTS, "config": config}}))

    assert reader.config == {"device": "cuda", "dtype": "torch.bfloat16"}


def test_further_keys_are_kept_as_fields_or_as_states(folder):
    parts = {
        "model_state_dict": WEIGHTS,
        "step": 3,
        "best_loss": 1.25,
        "training_config": {"lr": 0.1},
        "losses": [0.5] * 1000,
        "scheduler_state_dict": {"last_epoch": 3, "seen": torch.arange(3)},
        "worst": float("nan"),
    }

    reader = read(folder({"latest.pt": parts}))

    assert reader.training_state == {"step": 3, "best_loss": 1.25, "training_config": {"lr": 0.1}}
    assert reader.states() == ("losses", "scheduler", "worst")
    assert reader.load_state("losses") == [0.5] * 1000
    assert torch.equal(reader.load_state("scheduler")["seen"], torch.arange(3))
    with pytest.raises(
        NotFoundError, match=r"no state 'rng' in latest\.pt in dante; it has 'losses'"
    ):
        reader.load_state("rng")


def test_bare_weights_are_taken_where_the_file_is_named(folder):
    for state in (WEIGHTS, {"state_dict": WEIGHTS, "model_dtype": torch.float32}):
        files = folder({"weights.pt": state}, named="weights.pt")

        assert LegacyFormat().matches(files)
        reader = read(files)
        assert list(reader.load_model()) == ["w", "b"]
        assert reader.step is reader.config is None
        assert not reader.has_optimizer


def test_other_files_are_no_legacy_checkpoint(folder):
    assert not LegacyFormat().matches(
        folder({"ckpt.pt": {"model": WEIGHTS, "iter_num": 1}}, named="ckpt.pt")
    )
    with pytest.raises(
        CorruptionError,
        match=r"latest\.pt in dante holds no 'model_state_dict', .*; it holds 'model', 'iter_num'",
    ):
        read(folder({"latest.pt": {"model": WEIGHTS, "iter_num": 1}}))
    with pytest.raises(CorruptionError, match="holds a list, not a checkpoint"):
        read(folder({"latest.pt": [1]}))
    with pytest.raises(CorruptionError, match="has a 'model_state_dict' that is no dict"):
        read(folder({"latest.pt": {"model_state_dict": [1]}}))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"step": "20"}, "has the step '20', not a whole number"),
        ({"step": True}, "has the step True"),
        ({"config": [1]}, "has a 'config' that is no JSON object but a list"),
        ({"tokenizer": "gpt2"}, "has a 'tokenizer' that is no JSON object but a str"),
    ],
    ids=str,
)
def test_fields_of_another_type_are_damage(folder, more, message):
    with pytest.raises(CorruptionError, match=message):
        read(folder({"latest.pt": {"model_state_dict": WEIGHTS, **more}}))


def test_a_file_that_would_run_code_is_refused_and_named(folder):
    files = folder({"old.pt": {"model_state_dict": WEIGHTS, "config": Path("x")}}, named="old.pt")

    assert LegacyFormat().matches(files)
    with pytest.raises(UnsafeError, match=r"old\.pt in dante holds more than tensors \(pathlib"):
        read(files)


def test_damage_in_the_optimizer_is_found_when_it_is_read_and_not_before(legacy_bytes):
    content = ptfile.read(io.BytesIO(legacy_bytes), "x")
    stub = content.stubs["optimizer_state_dict.state.3.exp_avg"]
    data = bytearray(legacy_bytes)
    data[content.archive.start(io.BytesIO(legacy_bytes), content.records[stub.record])] ^= 1

    reader = read(MemoryFiles({"latest.pt": bytes(data)}))

    reader.load_model()
    with pytest.raises(CorruptionError, match="is damaged: its record"):
        reader.load_optimizer()


def test_a_legacy_file_opens_by_folder_and_by_name_and_stays_as_it_was(tmp_path, legacy_bytes):
    path = tmp_path / "dante" / "latest.pt"
    path.parent.mkdir()
    path.write_bytes(legacy_bytes)

    for location in (path.parent, path):
        checkpoint = ckptstore.open(location)
        assert checkpoint.format == "legacy"
        assert checkpoint.step == 20
        assert len(checkpoint.load_model()) == 38
    ckptstore.convert(path.parent)

    bundle = ckptstore.open(path.parent)
    assert bundle.format == "bundle"
    assert bundle.step == 20
    old = ckptstore.open(path)
    assert all(torch.equal(bundle.load_model()[n], t) for n, t in old.load_model().items())
    assert path.read_bytes() == legacy_bytes


def test_a_key_with_the_ending_is_a_state_though_json_could_hold_it(folder):
    parts = {"model_state_dict": WEIGHTS, "scheduler_state_dict": {"last_epoch": 3}}

    reader = read(folder({"latest.pt": parts}))

    assert (reader.states(), reader.training_state) == (("scheduler",), None)
    assert reader.load_state("scheduler") == {"last_epoch": 3}


def test_states_of_one_name_are_told_apart(folder):
    parts = {
        "model_state_dict": WEIGHTS,
        "scheduler": {"seen": torch.arange(2)},
        "scheduler_state_dict": {"seen": torch.arange(3)},
    }

    reader = read(folder({"latest.pt": parts}))

    assert reader.states() == ("scheduler", "scheduler_state_dict")
    assert [len(reader.load_state(name)["seen"]) for name in reader.states()] == [2, 3]


@pytest.mark.parametrize("key", ["config", "tokenizer_state"])
def test_what_could_not_be_read_back_as_json_is_not_written(key):
    new = MemoryNewFiles()
    name = key.removesuffix("_state")

    for value in (float("nan"), b"bytes", "x" * (16 * 2**20)):
        with pytest.raises(UnsupportedError, match=f"the {name} holds more than JSON has, or more"):
            LegacyFormat().write(Contents(model=WEIGHTS, **{key: {"a": value}}), new)

    assert new.written().names() == ()


@pytest.mark.parametrize("name", ["model_state_dict", "config", "tokenizer", "rng_state_dict"])
def test_a_field_in_the_place_of_something_else_is_not_written(name):
    contents = Contents(model=WEIGHTS, states={"rng": {"a": 1}}, training_state={name: 1})

    with pytest.raises(UnsupportedError, match=f"would stand under '{name}', where a legacy file"):
        LegacyFormat().write(contents, MemoryNewFiles())


def test_a_converted_file_keeps_what_no_bundle_has_a_place_for(tmp_path):
    parts = {
        "model_state_dict": WEIGHTS,
        "step": 3,
        "losses": [0.5] * 1000,
        "scheduler_state_dict": {"last_epoch": 3},
        "best_loss": 1.25,
    }
    torch.save(parts, tmp_path / "old.pt")

    ckptstore.convert(tmp_path / "old.pt", tmp_path / "new")

    checkpoint = ckptstore.open(tmp_path / "new")
    assert checkpoint.training_state["best_loss"] == 1.25
    assert checkpoint.load_state("losses") == [0.5] * 1000
