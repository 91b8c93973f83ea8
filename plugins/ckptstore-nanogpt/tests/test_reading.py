"""What nanoGPT writes is read, as it was, whatever variant of it."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch

import ckptstore
from ckptstore.errors import CorruptionError, NotFoundError, UnsafeError, UnsupportedError

MASKS = [f"transformer.h.{number}.attn.bias" for number in range(2)]


def same(one, other):
    """Whether two nested values are equal, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_everything_that_train_py_writes_is_read(out, run, settings):
    saved = torch.load(out / "ckpt.pt", weights_only=True)

    checkpoint = ckptstore.open(out)

    assert (checkpoint.format, checkpoint.step) == ("nanogpt", 3)
    assert checkpoint.config == run.args
    assert same(checkpoint.load_model(), dict(run.model.state_dict()))
    assert same(checkpoint.load_optimizer(), saved["optimizer"])
    assert checkpoint.training_state == {"step": 3, "best_val_loss": saved["best_val_loss"].item()}
    assert checkpoint.states() == ("training_config",)
    assert checkpoint.load_state("training_config") == settings
    assert checkpoint.files().keys() == {"ckpt.pt"}
    assert not checkpoint.proved


def test_names_of_a_compiled_model_have_no_prefix(tmp_path, run):
    saved = run.save(tmp_path / "ckpt.pt", compiled=True)
    assert all(name.startswith("_orig_mod.") for name in saved["model"])

    checkpoint = ckptstore.open(tmp_path)

    assert list(checkpoint.tensors()) == list(run.model.state_dict())
    assert same(checkpoint.load_model(), dict(run.model.state_dict()))
    assert list(checkpoint.load_model(["lm_head.weight"])) == ["lm_head.weight"]


def test_the_head_and_the_embedding_stay_one_tensor(out):
    checkpoint = ckptstore.open(out)

    model = checkpoint.load_model()

    head, embedding = model["lm_head.weight"], model["transformer.wte.weight"]
    assert head.data_ptr() == embedding.data_ptr()
    ties = checkpoint.structure()["model"].ties
    assert [set(tie) for tie in ties] == [{"lm_head.weight", "transformer.wte.weight"}]


def test_an_optimizer_is_described_with_both_groups(out):
    described = ckptstore.open(out).structure()["optimizer"]

    assert [group.params for group in described.groups] == [10, 5]
    assert [group.values["weight_decay"] for group in described.groups] == [0.1, 0.0]
    assert set(ckptstore.open(out).tensors("optimizer")) >= {"state.0.exp_avg", "state.14.step"}


@pytest.mark.parametrize("compiled", [False, True])
def test_masks_of_old_files_are_left_out(tmp_path, new_run, compiled):
    run = new_run(mask=True)
    saved = run.save(tmp_path / "ckpt.pt", compiled=compiled)
    assert sum(name.endswith(".attn.bias") for name in saved["model"]) == 2

    checkpoint = ckptstore.open(tmp_path)

    assert not {*checkpoint.tensors()} & {*MASKS}
    assert not {*checkpoint.load_model()} & {*MASKS}
    new_run().model.load_state_dict(checkpoint.load_model())


def test_biases_of_the_attention_are_no_masks(tmp_path, new_run):
    run = new_run(bias=True)
    run.save(tmp_path / "ckpt.pt")

    assert same(ckptstore.open(tmp_path).load_model(), dict(run.model.state_dict()))


def test_a_bias_of_a_forks_own_attention_is_kept(tmp_path, run):
    own = {**run.model.state_dict(), MASKS[0]: torch.ones(8)}
    run.save(tmp_path / "ckpt.pt", model=own)

    assert MASKS[0] in ckptstore.open(tmp_path).tensors()


@pytest.mark.parametrize("best", [1e9, 2, torch.tensor(2.5, dtype=torch.bfloat16)])
def test_the_best_loss_is_a_float(tmp_path, run, best):
    run.save(tmp_path / "ckpt.pt", best_val_loss=best)

    found = ckptstore.open(tmp_path).training_state["best_val_loss"]

    assert type(found) is float
    assert found == float(best)


def test_a_loss_that_is_no_number_is_a_state(tmp_path, run):
    run.save(tmp_path / "ckpt.pt", best_val_loss=torch.tensor(float("nan")))

    checkpoint = ckptstore.open(tmp_path)

    assert "best_val_loss" not in checkpoint.training_state
    assert checkpoint.load_state("best_val_loss").isnan()


def test_files_of_the_first_versions_lack_keys(tmp_path, run):
    saved = run.checkpoint()
    for key in ("config", "best_val_loss", "optimizer"):
        del saved[key]
    torch.save(saved, tmp_path / "ckpt.pt")

    checkpoint = ckptstore.open(tmp_path)

    assert (checkpoint.step, checkpoint.load_optimizer()) == (3, None)
    assert checkpoint.training_state == {"step": 3}
    assert checkpoint.states() == ()
    assert not checkpoint.has_optimizer


def test_keys_of_a_fork_are_kept(tmp_path, run):
    more = {
        "scaler": {"scale": 65536.0, "_growth_tracker": 3},
        "rng_state": torch.arange(5, dtype=torch.uint8),
        "scheduler_state_dict": {"last_epoch": 3},
        "wandb_id": "abc",
    }
    run.save(tmp_path / "ckpt.pt", config={"dataset": "dante"}, **more)

    checkpoint = ckptstore.open(tmp_path)

    state = checkpoint.training_state
    assert (state["scaler"], state["wandb_id"]) == (more["scaler"], "abc")
    assert state["training_config"] == {"dataset": "dante"}
    assert set(checkpoint.states()) == {"rng_state", "scheduler"}
    assert same(checkpoint.load_state("rng_state"), more["rng_state"])
    assert checkpoint.load_state("scheduler") == {"last_epoch": 3}
    assert checkpoint.tensors("rng_state").keys() == {""}
    with pytest.raises(NotFoundError, match="no state 'x' in ckpt.pt in .*; it has 'rng_state'"):
        checkpoint.load_state("x")


def test_a_fork_with_a_training_config_of_its_own_keeps_both(tmp_path, run, settings):
    run.save(tmp_path / "ckpt.pt", training_config={"theirs": 1})

    checkpoint = ckptstore.open(tmp_path)

    assert checkpoint.training_state["training_config"] == {"theirs": 1}
    assert checkpoint.load_state("config") == settings


def test_a_step_may_be_a_tensor(tmp_path, run):
    run.save(tmp_path / "ckpt.pt", iter_num=torch.tensor(7))

    assert ckptstore.open(tmp_path).step == 7


class TestWhoseItIs:
    @pytest.mark.parametrize("name", ["ckpt.pt", "best.pth", "run 7.ckpt", "weights"])
    def test_a_file_that_is_named_may_be_called_anything(self, tmp_path, run, name):
        run.save(tmp_path / name)

        checkpoint = ckptstore.open(tmp_path / name)

        assert (checkpoint.format, checkpoint.step) == ("nanogpt", 3)
        assert checkpoint.files().keys() == {name}

    def test_a_legacy_file_stays_one(self, tmp_path, run):
        legacy = {"model_state_dict": run.model.state_dict(), "config": {}, "step": 1}
        torch.save(legacy, tmp_path / "ckpt.pt")

        assert ckptstore.open(tmp_path / "ckpt.pt").format == "legacy"

    def test_a_file_with_the_keys_of_both_is_a_legacy_one(self, tmp_path, run):
        run.save(tmp_path / "ckpt.pt", model_state_dict=run.model.state_dict())

        assert ckptstore.open(tmp_path / "ckpt.pt").format == "legacy"

    def test_a_bare_state_dict_is_none_of_nanogpts(self, tmp_path, run):
        torch.save(run.model.state_dict(), tmp_path / "ckpt.pt")

        assert ckptstore.open(tmp_path / "ckpt.pt").format == "legacy"
        with pytest.raises(
            NotFoundError, match="it holds ckpt.pt, and no model.pt; .* name a file"
        ):
            ckptstore.open(tmp_path)

    def test_a_bundle_in_the_same_folder_wins(self, out, run):
        ckptstore.convert(out)

        assert ckptstore.open(out).format == "bundle"
        assert ckptstore.open(out / "ckpt.pt").format == "nanogpt"

    def test_beside_a_legacy_checkpoint_nobody_can_tell(self, out, run):
        torch.save({"model_state_dict": run.model.state_dict()}, out / "latest.pt")

        with pytest.raises(UnsupportedError, match="looks like legacy and nanogpt; move one"):
            ckptstore.open(out)


class TestDamage:
    def test_a_file_that_is_cut_off_is_damage(self, out):
        path = out / "ckpt.pt"
        path.write_bytes(path.read_bytes()[:-100])

        for location in (out, path):
            with pytest.raises(CorruptionError, match="ckpt.pt in .* is truncated"):
                ckptstore.open(location)

    def test_one_flipped_bit_is_found(self, out, run):
        data = bytearray((out / "ckpt.pt").read_bytes())
        at = data.find(run.model.transformer.wpe.weight.detach().numpy().tobytes())
        data[at] ^= 1
        (out / "ckpt.pt").write_bytes(bytes(data))

        checkpoint = ckptstore.open(out)

        with pytest.raises(CorruptionError, match="its record 'data/"):
            checkpoint.load_model()
        assert not checkpoint.verify().sound

    def test_what_would_run_code_is_refused(self, tmp_path, run):
        import argparse

        run.save(tmp_path / "ckpt.pt", config=argparse.Namespace(dataset="dante"))

        for location in (tmp_path, tmp_path / "ckpt.pt"):
            with pytest.raises(UnsafeError, match=r"argparse.Namespace at 'config'"):
                ckptstore.open(location)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"iter_num": "three"}, "has the iter_num 'three', not a whole number"),
            ({"iter_num": True}, "has the iter_num True, not a whole number"),
            ({"iter_num": torch.tensor(2.5)}, "has the iter_num 2.5, not a whole number"),
            ({"model_args": [1]}, "has a 'model_args' that is no JSON object but a list"),
            ({"model_args": {"x": torch.ones(1)}}, "'model_args' that is no JSON object"),
        ],
    )
    def test_a_key_that_is_something_else_is_named(self, tmp_path, run, changes, message):
        run.save(tmp_path / "ckpt.pt", **changes)

        with pytest.raises(CorruptionError, match=f"ckpt.pt in .* {message}"):
            ckptstore.open(tmp_path)

    def test_a_file_without_its_keys_says_what_it_holds(self, tmp_path, run):
        from ckptstore_nanogpt import NanogptFormat

        from ckptstore.testing import MemoryFiles

        torch.save({"net": 1, "epoch": 2}, tmp_path / "ckpt.pt")
        files = MemoryFiles({"ckpt.pt": (tmp_path / "ckpt.pt").read_bytes()})

        with pytest.raises(CorruptionError, match="no checkpoint of nanoGPT.*holds 'net', 'epoch'"):
            NanogptFormat().read(files)
        with pytest.raises(NotFoundError, match="memory has no ckpt.pt"):
            NanogptFormat().read(MemoryFiles())


def test_it_is_opened_without_torch(out):
    code = f"""
import sys, ckptstore
checkpoint = ckptstore.open({str(out)!r})
checkpoint.tensors(), checkpoint.tensors("optimizer"), checkpoint.structure()
assert checkpoint.training_state["best_val_loss"] > 0
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_model_is_restored_in_place(out, run, new_run):
    other = new_run()
    other.model.lm_head.weight.data.fill_(0)

    ckptstore.open(out).restore(model=other.model, optimizer=other.optimizer)

    assert same(dict(other.model.state_dict()), dict(run.model.state_dict()))
    assert torch.equal(other.logits(), run.logits())
    other.iter_num = run.iter_num
    assert other.steps(2) == run.steps(2)


def test_tensors_look_into_the_mapped_file(out, run):
    mapped = ckptstore.open(out).load_model(mmap=True)

    assert same(mapped, dict(run.model.state_dict()))


def test_reading_changes_nothing(out):
    before = (out / "ckpt.pt").read_bytes()
    checkpoint = ckptstore.open(out)
    copy.deepcopy(checkpoint.load_model())
    checkpoint.verify()

    assert (out / "ckpt.pt").read_bytes() == before
    assert [path.name for path in out.iterdir()] == ["ckpt.pt"]
