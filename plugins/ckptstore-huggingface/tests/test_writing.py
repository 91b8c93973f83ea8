"""What is written is, in transformers, the very model: the logits say so."""

from __future__ import annotations

import json

import pytest
import torch
from nanogpt_model import Args, NanoGPT
from safetensors import safe_open
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

import ckptstore
from gpt.config import GPTConfig
from gpt.model import GPT

TO = "huggingface"


def logits(folder, ids: torch.Tensor) -> torch.Tensor:
    model, said = GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    assert {name: list(found) for name, found in said.items() if found} == {}
    with torch.no_grad():
        return model.eval()(ids).logits


def some_ids(vocabulary: int, tokens: int) -> torch.Tensor:
    return torch.randint(0, vocabulary, (2, tokens))


def same(one: torch.Tensor, two: torch.Tensor) -> bool:
    return torch.allclose(one, two, rtol=1e-5, atol=1e-5)


def converted(tmp_path, model: nn.Module, config: dict, **more) -> ckptstore.transfer.Transfer:
    state = model.state_dict() if isinstance(model, nn.Module) else model
    ckptstore.save(tmp_path / "ckpt", model=state, config=config, **more)
    return ckptstore.convert(tmp_path / "ckpt", tmp_path / "out", TO)


@pytest.mark.parametrize(
    "args",
    [
        Args(),
        Args(bias=False),
        Args(n_layer=1, n_head=1, n_embd=7, block_size=5, vocab_size=11),
        Args(n_layer=3, n_head=5, n_embd=35, block_size=9, bias=False, dropout=0.2),
        Args(n_embd=8, n_head=2, vocab_size=50304, block_size=4, bias=False),
    ],
    ids=str,
)
def test_the_logits_of_nanogpt_are_those_of_transformers(tmp_path, args):
    model = NanoGPT(args)
    ids = some_ids(args.vocab_size, args.block_size)

    done = converted(tmp_path, model, args._asdict(), step=5)

    with torch.no_grad():
        assert same(logits(tmp_path / "out", ids), model(ids))
    assert done.left_out == ()
    assert {part: len(found) for part, found in done.proofs.items()} == {
        "model": 5 + 12 * args.n_layer
    }
    checkpoint = ckptstore.open(tmp_path / "out")
    assert (checkpoint.format, checkpoint.step, checkpoint.proved) == (TO, 5, True)
    assert checkpoint.config["vocab_size"] == args.vocab_size
    assert checkpoint.config["resid_pdrop"] == args.dropout
    assert checkpoint.verify().sound


def test_the_test_itself_would_see_what_is_turned_or_left_out(tmp_path):
    args = Args()
    model = NanoGPT(args)
    ids = some_ids(args.vocab_size, 8)
    converted(tmp_path, model, args._asdict())
    right = logits(tmp_path / "out", ids)

    for name, harm in {
        "transformer.h.1.attn.c_proj.weight": lambda weight: weight.t(),
        "transformer.h.0.ln_1.bias": torch.zeros_like,
        "transformer.ln_f.weight": torch.ones_like,
    }.items():
        other = {**model.state_dict(), name: harm(model.state_dict()[name])}
        ckptstore.save(tmp_path / name, model=other, config=args._asdict(), format=TO)
        assert not same(logits(tmp_path / name, ids), right)


@pytest.mark.parametrize(
    ("activation", "called"),
    [(nn.GELU(approximate="tanh"), "gelu_new"), (nn.ReLU(), "relu"), (nn.GELU(), "gelu")],
)
def test_another_activation_is_said_in_the_config(tmp_path, activation, called):
    args = Args()
    model = NanoGPT(args, activation)
    ids = some_ids(args.vocab_size, 8)

    converted(tmp_path, model, {**args._asdict(), "activation_function": called})

    with torch.no_grad():
        assert same(logits(tmp_path / "out", ids), model(ids))


def test_logits_of_their_own_weights_stay_apart(tmp_path):
    args = Args()
    model = NanoGPT(args)
    model.lm_head.weight = nn.Parameter(torch.randn(args.vocab_size, args.n_embd))
    ids = some_ids(args.vocab_size, 8)

    converted(tmp_path, model, args._asdict())

    assert ckptstore.open(tmp_path / "out").config["tie_word_embeddings"] is False
    with torch.no_grad():
        assert same(logits(tmp_path / "out", ids), model(ids))


@pytest.mark.parametrize("copied", [True, False])
def test_tied_weights_are_written_once_however_they_were_saved(tmp_path, copied):
    args = Args()
    state = NanoGPT(args).state_dict()
    if copied:
        state["lm_head.weight"] = state["lm_head.weight"].clone()

    converted(tmp_path, state, args._asdict())

    with safe_open(tmp_path / "out/model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "lm_head.weight": "transformer.wte.weight"}
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
    found = ckptstore.open(tmp_path / "out").load_model()
    assert found["lm_head.weight"].data_ptr() == found["transformer.wte.weight"].data_ptr()


def test_masks_and_prefixes_of_older_and_compiled_models_go(tmp_path):
    args = Args()
    state = NanoGPT(args).state_dict()
    mask = torch.ones(1, 1, 16, 16).tril()
    old = {f"_orig_mod.{name}": tensor for name, tensor in state.items()}
    old |= {"_orig_mod.transformer.h.0.attn.bias": mask}
    old |= {"_orig_mod.transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}

    checkpoint = ckptstore.save(tmp_path / "out", model=old, config=args._asdict(), format=TO)

    assert set(checkpoint.tensors()) == set(state)


def test_fields_that_gpt2_has_no_word_for_are_kept_in_their_place(tmp_path):
    args = Args()

    converted(tmp_path, NanoGPT(args), {**args._asdict(), "learning_rate": 3e-4, "device": "cuda"})

    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["ckptstore"] == {"learning_rate": 3e-4, "device": "cuda"}
    assert GPT2Config.from_pretrained(tmp_path / "out").n_head == args.n_head


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_is_kept(tmp_path, dtype):
    args = Args(bias=False)

    converted(tmp_path, NanoGPT(args).to(dtype), args._asdict())

    model = GPT2LMHeadModel.from_pretrained(tmp_path / "out", dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_what_has_no_room_is_named_and_not_refused(tmp_path):
    args = Args()
    model = NanoGPT(args)
    optimizer = torch.optim.AdamW(model.parameters())
    model(some_ids(args.vocab_size, 8)).sum().backward()
    optimizer.step()

    done = converted(
        tmp_path,
        model,
        args._asdict(),
        optimizer=optimizer,
        state={"scheduler": {"last_epoch": 1}},
        tokenizer={"token_kind": "char", "chars": ["a"]},
        training_state={"best_val_loss": 1.5},
        metrics={"val_loss": 1.5},
        metrics_log=[{"step": 1, "loss": 2.0}],
        step=1,
    )

    assert done.left_out == (
        *("tokenizer", "metrics.jsonl", "optimizer"),
        *("the field best_val_loss", "the state scheduler"),
    )


def own(lm_bias: float = 0.0, **more) -> GPT:
    sizes = {"n_embd": 24, "n_head": 3, "n_layer": 2, "block_size": 16, "vocab_size": 40}
    model = GPT(GPTConfig(**{**sizes, "dropout": 0.0, **more}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
        model.lm_head.bias.fill_(lm_bias)
    return model.eval()


@pytest.mark.parametrize("bias", [True, False])
def test_the_logits_of_ckptstores_own_gpt_are_those_of_transformers(tmp_path, bias):
    model = own(bias=bias)
    ids = some_ids(40, 16)
    model.save_checkpoint_bundle(str(tmp_path / "ckpt"), step=3)

    done = ckptstore.convert(tmp_path / "ckpt", tmp_path / "out", TO)

    with torch.no_grad():
        assert same(logits(tmp_path / "out", ids), model(ids)[0])
    config = ckptstore.open(tmp_path / "out").config
    assert (config["activation_function"], config["tie_word_embeddings"]) == ("relu", False)
    assert "batch_size" in config["ckptstore"]
    assert "config" not in done.left_out


def test_a_bias_of_the_logits_is_refused_by_its_name(tmp_path):
    model = own(lm_bias=0.01)
    model.save_checkpoint_bundle(str(tmp_path / "ckpt"), step=3)

    with pytest.raises(ckptstore.UnsupportedError, match="'lm_head.bias' .* is not zero, and GPT2"):
        ckptstore.convert(tmp_path / "ckpt", tmp_path / "out", TO)

    assert not (tmp_path / "out").exists()


def test_the_persistent_masks_of_old_files_go(tmp_path):
    model = own()
    state = dict(model.state_dict())
    state["blocks.0.sa.heads.1.tril"] = torch.ones(16, 16).tril()

    checkpoint = ckptstore.save(
        tmp_path / "out", model=state, config={"n_head": 3, "dropout": 0.1}, format=TO
    )

    assert "transformer.h.1.mlp.c_proj.bias" in checkpoint.tensors()
    assert not any("tril" in name for name in checkpoint.tensors())


def theirs() -> GPT2Config:
    return GPT2Config(
        vocab_size=50, n_positions=16, n_embd=12, n_layer=2, n_head=3, bos_token_id=None
    )


@pytest.mark.parametrize("kind", [GPT2LMHeadModel, GPT2Model])
def test_gpt2_of_transformers_is_written_as_it_was_read(tmp_path, kind):
    model = kind(theirs()).eval()
    model.save_pretrained(tmp_path / "theirs")
    before = ckptstore.open(tmp_path / "theirs")

    done = ckptstore.convert(tmp_path / "theirs", tmp_path / "out", TO)

    after = ckptstore.open(tmp_path / "out")
    assert done.changed
    assert (after.config, after.tensors()) == (before.config, before.tensors())
    ids = some_ids(50, 16)
    again = kind.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        assert torch.equal(again(ids)[0], model(ids)[0])


def test_a_model_in_training_is_saved_for_transformers_as_it_is(tmp_path):
    model = GPT2LMHeadModel(theirs()).eval()
    ids = some_ids(50, 16)
    keep = ckptstore.Keep(last=2)
    with ckptstore.Store(tmp_path / "run", keep=keep, format=TO) as store:
        store.save_async(model=model, config=model.config.to_dict(), step=1)
        store.save_async(model=model, config=model.config.to_dict(), step=2)

    with torch.no_grad():
        assert torch.equal(logits(tmp_path / "run/step-00000002", ids), model(ids).logits)
    other = GPT2LMHeadModel(theirs())
    ckptstore.open(tmp_path / "run").restore(model=other)
    with torch.no_grad():
        assert torch.equal(other.eval()(ids).logits, model(ids).logits)


def test_the_masks_of_openais_own_files_are_kept_too(tmp_path):
    model = GPT2Model(theirs())
    state = dict(model.state_dict())
    state["h.0.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
    state["h.0.attn.masked_bias"] = torch.tensor(-1e4)

    checkpoint = ckptstore.save(
        tmp_path / "out", model=state, config=model.config.to_dict(), format=TO
    )

    assert checkpoint.load_model().keys() == state.keys()


NANO, OWN = NanoGPT(Args()).state_dict(), own().state_dict()
ARGS = Args()._asdict()


def without(state: dict, *names: str) -> dict:
    return {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(
    ("state", "config", "message"),
    [
        ({"w": torch.ones(2)}, ARGS, "writes nanoGPT's models, .* its first tensors are w; save"),
        ({}, ARGS, "its first tensors are none"),
        (NANO, {"model_type": "llama"}, "its config says model_type 'llama'; save it in 'safeten"),
        (NANO, without(ARGS, "n_head"), "has None as its 'n_head', and it cannot be told"),
        (NANO, {**ARGS, "n_head": 5}, "5 heads cannot share 24 values; correct n_head"),
        (NANO, {**ARGS, "n_layer": 8}, "says n_layer 8, its tensors 2; correct the config"),
        (NANO, {**ARGS, "vocab_size": 8}, "says vocab_size 8, its tensors 65"),
        (NANO, {**ARGS, "n_embd": 8}, "says n_embd 8, its tensors 24"),
        (NANO, {**ARGS, "block_size": 8}, "says block_size 8, its tensors 16"),
        (NANO, {**ARGS, "dropout": "x"}, "the config says dropout 'x', not a share"),
        (NANO, {**ARGS, "activation_function": 3}, "says activation_function 3, not what transf"),
        (
            without(NANO, "transformer.h.1.mlp.c_fc.weight"),
            ARGS,
            "has no 'transformer.h.1.mlp.c",
        ),
        (without(NANO, "transformer.wpe.weight"), ARGS, "has no 'transformer.wpe.weight', so it"),
        (
            {**NANO, "extra": torch.ones(1)},
            ARGS,
            "holds 'extra', which GPT2LMHead",
        ),
        (
            {**NANO, "transformer.ln_f.weight": torch.ones(3)},
            ARGS,
            r"'transformer.ln_f.weight' .* is \[3\], and would have to be a dense tensor of \[24\]",
        ),
        (
            {**NANO, "transformer.ln_f.weight": torch.ones(24).to_sparse()},
            ARGS,
            "is a Tensor, and would have to be a dense",
        ),
        (
            GPT2LMHeadModel(theirs()).state_dict(),
            None,
            "it is transformers' GPT-2 without its config; pass its config.json in config=",
        ),
        (GPT2Model(theirs()).state_dict(), None, "it is transformers' GPT-2 without its config"),
        (NANO, {**theirs().to_dict(), "n_layer": 2}, "would have to be a dense tensor of .24, 72"),
        (OWN, {"n_head": 5}, "5 heads cannot share 24 values; correct n_head"),
        (OWN, {}, "has None as its 'n_head'"),
        (
            without(OWN, "blocks.1.sa.heads.2.key.weight"),
            {"n_head": 3},
            "has no 'blocks.1.sa",
        ),
        (
            without(NANO, "transformer.wte.weight"),
            {**theirs().to_dict()},
            "this model of transformers' GPT-2 has no 'transformer.wte.weight'",
        ),
    ],
)
def test_what_is_no_such_model_is_refused_and_nothing_written(tmp_path, state, config, message):
    with pytest.raises(ckptstore.UnsupportedError, match=message):
        ckptstore.save(tmp_path / "out", model=state, config=config, format=TO)

    assert not (tmp_path / "out/model.safetensors").exists()


def test_some_biases_of_heads_and_not_others_are_refused(tmp_path):
    state = without(dict(own(bias=True).state_dict()), "blocks.0.sa.heads.0.key.bias")

    with pytest.raises(ckptstore.UnsupportedError, match="only some heads of blocks.0 have a bias"):
        ckptstore.save(tmp_path / "out", model=state, config={"n_head": 3}, format=TO)


def test_beside_its_source_nothing_is_written(tmp_path):
    ckptstore.save(tmp_path / "ckpt", model=NANO, config=ARGS)

    with pytest.raises(ckptstore.UnsupportedError, match="wants a folder of its own, .* say which"):
        ckptstore.convert(tmp_path / "ckpt", format=TO)
