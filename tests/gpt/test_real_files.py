"""What real files of this family hold beside the plain: all of it loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from ckptstore import CorruptionError
from gpt.checkpoint import CheckpointManager
from gpt.model import GPT

Write = Callable[[dict[str, Any]], Path]


def _logits(model: GPT) -> torch.Tensor:
    model.eval()
    return model(torch.arange(10)[None])[0]


@pytest.fixture
def reference(legacy_file: Path) -> torch.Tensor:
    return _logits(GPT.load(legacy_file)[0])


@pytest.fixture(params=["legacy", "plain folder"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    """Give a function that writes a checkpoint without ckptstore, in either layout."""

    def as_file(parts: dict[str, Any]) -> Path:
        torch.save(parts, tmp_path / "old.pt")
        return tmp_path / "old.pt"

    def as_folder(parts: dict[str, Any]) -> Path:
        folder = tmp_path / "plain"
        folder.mkdir()
        torch.save(parts["model_state_dict"], folder / "model.pt")
        torch.save(parts["optimizer_state_dict"], folder / "optimizer.pt")
        state = {"step": parts["step"], "optimizer_file": "optimizer.pt"}
        for name, value in (
            ("config", parts["config"]),
            ("tokenizer", parts["tokenizer"]),
            ("training_state", state),
        ):
            (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
        return folder

    return as_file if request.param == "legacy" else as_folder


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "module._orig_mod."])
def test_masks_and_prefixes_are_no_parameters(
    write: Write, legacy: dict[str, Any], reference: torch.Tensor, prefix: str
) -> None:
    weights = {prefix + name: value for name, value in legacy["model_state_dict"].items()}

    model, tokenizer_state, step, optimizer_state = GPT.load(
        write({**legacy, "model_state_dict": weights})
    )

    assert torch.equal(_logits(model), reference)
    assert (tokenizer_state, step) == (legacy["tokenizer"], 20)
    assert optimizer_state is not None
    model.configure_optimizer(optimizer_state=optimizer_state)


def test_the_wrapper_of_later_writers_is_taken_off(
    tmp_path: Path, legacy: dict[str, Any], reference: torch.Tensor
) -> None:
    weights = {n: v for n, v in legacy["model_state_dict"].items() if not n.endswith("tril")}
    wrapped = {"state_dict": weights, "checkpoint_dtype": "float32", "model_dtype": "float32"}
    folder = tmp_path / "later"
    folder.mkdir()
    torch.save(wrapped, folder / "model.pt")
    (folder / "config.json").write_text(json.dumps(legacy["config"]))
    (folder / "tokenizer.json").write_text(json.dumps(legacy["tokenizer"]))
    fields = {"training_config": {"lr": 1e-4}, "model_dtype_at_save": "torch.float32"}
    (folder / "training_state.json").write_text(json.dumps({"step": 7, **fields}))

    model, _, step, _ = GPT.load(folder)
    model.save(folder)

    assert torch.equal(_logits(model), reference)
    assert step == 7
    written = json.loads((folder / "training_state.json").read_text())
    assert written == {"step": 7, **fields}


def test_weights_of_half_the_width_are_trained_in_float32(
    write: Write, legacy: dict[str, Any], reference: torch.Tensor
) -> None:
    weights = {name: value.bfloat16() for name, value in legacy["model_state_dict"].items()}

    model = GPT.load(write({**legacy, "model_state_dict": weights}))[0]

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.allclose(_logits(model), reference, atol=0.1)


def test_tied_parameters_are_trained_apart(write: Write, legacy: dict[str, Any]) -> None:
    weights = dict(legacy["model_state_dict"])
    weights["lm_head.weight"] = weights["token_embedding_table.weight"]

    model = GPT.load(write({**legacy, "model_state_dict": weights}))[0]
    with torch.no_grad():
        model.lm_head.weight.zero_()

    assert model.token_embedding_table.weight.abs().sum() > 0


def test_unknown_fields_are_kept_and_written_back(
    write: Write, legacy: dict[str, Any], tmp_path: Path
) -> None:
    config = {"use_loss_mask": True, **legacy["config"], "pos_encoding": "learned"}

    model = GPT.load(write({**legacy, "config": config}))[0]
    model.save_checkpoint_bundle(tmp_path / "new")

    written = json.loads((tmp_path / "new" / "config.json").read_text())
    assert written == config
    assert list(written) == list(config)


def test_a_config_older_than_a_field_is_completed_from_the_weights(
    write: Write, legacy: dict[str, Any], reference: torch.Tensor
) -> None:
    config = {name: value for name, value in legacy["config"].items() if name in ("n_embd", "n_x")}

    model = GPT.load(write({**legacy, "config": config}))[0]

    assert torch.equal(_logits(model), reference)
    assert (model.config.n_layer, model.config.n_head, model.config.bias) == (2, 2, False)


def test_a_device_that_is_not_here_is_written_back(
    write: Write, legacy: dict[str, Any], tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    location = write({**legacy, "config": {**legacy["config"], "device": "cuda"}})

    with pytest.warns(UserWarning, match="device 'cuda' is not available here; using the CPU"):
        model = GPT.load(location)[0]
    model.save_checkpoint_bundle(tmp_path / "new")

    assert model.device == torch.device("cpu")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["device"] == "cuda"
    GPT.load(location, map_location="cpu")  # says nothing: it was asked for


@pytest.mark.parametrize("bias", [False, True])
def test_gpt2_files_load_and_write(
    write: Write, gpt2_files: Path, make_config: Any, text: str, bias: bool
) -> None:
    torch.manual_seed(1)
    source = GPT(make_config(vocab_size=50304, bias=bias, n_embd=8), token_kind="gpt2")
    location = write(
        {
            "model_state_dict": source.state_dict(),
            "config": source.config.to_dict(),
            "tokenizer": {"token_kind": "gpt2", "chars": None},
            "step": 3,
            "optimizer_state_dict": source.configure_optimizer().state_dict(),
        }
    )

    model, tokenizer_state, step, _ = GPT.load(location)

    assert ("blocks.0.sa.heads.0.key.bias" in model.state_dict()) is bias
    assert torch.equal(_logits(model), _logits(source))
    assert tokenizer_state is not None
    assert (tokenizer_state["token_kind"], step) == ("gpt2", 3)
    assert model.decode(model.encode(text)) == text
    assert model.generate("Nel mezzo", 9, seed=1) == source.generate("Nel mezzo", 9, seed=1)


def test_a_kind_that_is_not_installed_loads_trains_and_saves(
    write: Write, legacy: dict[str, Any], reference: torch.Tensor, tmp_path: Path
) -> None:
    state = {"token_kind": "klingon", "letters": 26}

    model = GPT.load(write({**legacy, "tokenizer": state}))[0]
    model.save_checkpoint_bundle(tmp_path / "new", step=1)

    assert torch.equal(_logits(model), reference)
    assert ckptstore.open(tmp_path / "new").tokenizer_state == state
    with pytest.raises(ckptstore.UnsupportedError, match="'klingon' is not installed; installed:"):
        model.generate("Nel", 1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("n_layer", 8, "says n_layer 8, .* holds 2"),
        ("n_head", 4, "says n_head 4, .* holds 2"),
        ("n_embd", 64, "says n_embd 64, .* holds 32"),
        ("block_size", 64, "says block_size 64, .* holds 32"),
        ("vocab_size", 50304, "says vocab_size 50304, .* holds 41"),
        ("bias", True, "says bias True, .* holds False"),
        ("n_layer", "2", "says n_layer '2', .* holds 2"),
        ("dropout", "much", "dropout is 'much', not a number"),
    ],
)
def test_a_config_that_the_weights_contradict_names_the_field_and_both(
    write: Write, legacy: dict[str, Any], field: str, value: Any, message: str
) -> None:
    location = write({**legacy, "config": {**legacy["config"], field: value}})

    with pytest.raises(CorruptionError, match=message):
        GPT.load(location)


def test_an_edited_config_says_what_the_weights_hold(
    legacy: dict[str, Any], legacy_file: Path
) -> None:
    ckptstore.convert(legacy_file, "checkpoints/new")
    path = Path("checkpoints/new/config.json")
    path.write_text(json.dumps({**legacy["config"], "n_layer": 8}))
    with pytest.raises(CorruptionError, match=r"config\.json says n_layer 8, model\.pt holds 2"):
        CheckpointManager.load_for_inference("new")

    path.write_text(json.dumps({**legacy["config"], "batch_size": 8}))
    assert CheckpointManager.load_for_inference("new").config.batch_size == 8
    assert ckptstore.open("checkpoints/new").edited == ("config.json",)


def test_missing_and_foreign_parameters_are_named(write: Write, legacy: dict[str, Any]) -> None:
    weights = dict(legacy["model_state_dict"])
    weights["blocks.0.rope"] = weights.pop("ln_f.bias")

    with pytest.raises(CorruptionError, match=r"'ln_f.bias' is absent; 'blocks.0.rope' is not of"):
        GPT.load(write({**legacy, "model_state_dict": weights}))


def test_weights_of_another_model_are_refused(write: Write, legacy: dict[str, Any]) -> None:
    foreign = {"layers.0.weight": torch.zeros(2, 2)}

    with pytest.raises(
        CorruptionError, match=r"'token_embedding_table.weight' is absent; .*layers"
    ):
        GPT.load(write({**legacy, "model_state_dict": foreign}))


def test_a_vocabulary_larger_than_the_model_is_refused(
    write: Write, legacy: dict[str, Any], make_config: Any
) -> None:
    chars = [chr(number) for number in range(65, 65 + 42)]
    state = {"token_kind": "char", "chars": chars}

    model = GPT.load(write({**legacy, "tokenizer": state}))[0]

    with pytest.raises(CorruptionError, match="'char' vocabulary has 42 ids, .* vocab_size 41"):
        model.encode("A")


def test_a_tokenizer_that_does_not_go_with_a_new_model_is_refused(make_config: Any) -> None:
    from ckptstore.tokenizers.char import CharTokenizer

    with pytest.raises(ValueError, match="'char' vocabulary has 3 ids, .* vocab_size 2"):
        GPT(make_config(vocab_size=2), CharTokenizer("abc"))
    with pytest.raises(ValueError, match="token_kind 'char' does not say which characters"):
        GPT(make_config(), token_kind="char")
    with pytest.raises(ValueError, match="token_kind is 'gpt2', the tokenizer is 'char'"):
        GPT(make_config(), CharTokenizer("abc"), token_kind="gpt2")
    with pytest.raises(ckptstore.UnsupportedError, match="'klingon' is not installed"):
        GPT(make_config(), token_kind="klingon")
