"""From nanoGPT into the store and back: nothing is lost, and nanoGPT goes on where it was."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import ckptstore_nanogpt
import pytest
import torch

import ckptstore
from ckptstore.errors import ConflictError, UnsupportedError

README = Path(__file__).parents[1] / "README.md"
CKPTSTORE = [sys.executable, "-m", "ckptstore"]


def loaded(path):
    return torch.load(path, map_location="cpu", weights_only=True)


def alike(one, other):
    """Whether two nested values are equal; a tensor without dimensions equals its number."""
    if isinstance(one, torch.Tensor) and not one.dim() and isinstance(other, float):
        return one.item() == other
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and all(map(alike, one, other))
    return one == other


@pytest.fixture(params=["disk", "s3"])
def dante(request, tmp_path):
    """Give where a bundle is to be, and its storage options, on disk and on S3."""
    if request.param == "disk":
        return str(tmp_path / "dante"), None
    server = request.getfixturevalue("server")
    return server.url("dante"), server.storage_options


@pytest.mark.parametrize("compiled", [False, True])
def test_there_and_back_nanogpt_has_its_file_again(tmp_path, run, dante, compiled):
    url, options = dante
    saved = run.save(tmp_path / "ckpt.pt", compiled=compiled)

    there = ckptstore.convert(tmp_path / "ckpt.pt", url, destination_options=options)
    back = ckptstore.convert(
        url,
        tmp_path / "back" / "ckpt.pt",
        "nanogpt",
        storage_options=options,
        destination_options={},
    )

    assert (there.left_out, back.left_out) == ((), ())
    found = loaded(tmp_path / "back" / "ckpt.pt")
    saved["model"] = {n.removeprefix("_orig_mod."): v for n, v in saved["model"].items()}
    assert alike(saved, {**found, "model": dict(found["model"])})
    assert type(found["best_val_loss"]) is float
    head, embedding = found["model"]["lm_head.weight"], found["model"]["transformer.wte.weight"]
    assert head.data_ptr() == embedding.data_ptr()


def test_a_training_goes_on_as_if_nothing_had_been(out, tmp_path, run, new_run):
    ckptstore.convert(out, tmp_path / "dante")
    ckptstore.convert(tmp_path / "dante", tmp_path / "ckpt.pt", "nanogpt")

    resumed = new_run.resumed(tmp_path / "ckpt.pt")

    assert torch.equal(resumed.logits(), run.logits())
    assert resumed.steps(4) == run.steps(4)
    assert torch.equal(resumed.logits(), run.logits())


def test_a_training_goes_on_from_the_bundle_itself(out, tmp_path, run, new_run):
    ckptstore.convert(out, tmp_path / "dante")
    checkpoint = ckptstore.open(tmp_path / "dante")

    resumed = new_run(**checkpoint.config)
    checkpoint.restore(model=resumed.model, optimizer=resumed.optimizer)
    resumed.iter_num = checkpoint.step

    assert resumed.steps(4) == run.steps(4)


def test_what_a_fork_adds_comes_back_too(tmp_path, run):
    more = {
        "scaler": {"scale": 65536.0, "_growth_tracker": 3},
        "rng_state": torch.arange(5, dtype=torch.uint8),
        "wandb_id": "abc",
        "losses": [1.5] * 400,
        "scheduler_state_dict": {"last_epoch": 3},
    }
    saved = run.save(tmp_path / "ckpt.pt", **more)

    ckptstore.convert(tmp_path / "ckpt.pt", tmp_path / "dante")
    done = ckptstore.convert(tmp_path / "dante", tmp_path / "back.pt", "nanogpt")

    assert done.left_out == ()
    found = loaded(tmp_path / "back.pt")
    assert found.keys() == saved.keys()
    assert alike({key: saved[key] for key in more}, {key: found[key] for key in more})


def test_written_twice_it_is_the_same_and_another_is_never_replaced(out, tmp_path, run):
    ckptstore.convert(out, tmp_path / "dante")

    assert ckptstore.convert(tmp_path / "dante", tmp_path / "x.pt", "nanogpt").changed
    assert not ckptstore.convert(tmp_path / "dante", tmp_path / "x.pt", "nanogpt").changed
    run.steps(1)
    run.save(tmp_path / "ckpt.pt")
    with pytest.raises(ConflictError, match="ckpt.pt in .* is there already, and another file"):
        ckptstore.convert(tmp_path / "dante", tmp_path / "ckpt.pt", "nanogpt", overwrite=True)


def test_an_inference_copy_becomes_a_file_for_sampling(out, tmp_path, run):
    ckptstore.convert(out, tmp_path / "dante", optimizer=False)
    ckptstore.convert(tmp_path / "dante", tmp_path / "ckpt.pt", "nanogpt")

    found = loaded(tmp_path / "ckpt.pt")

    assert (found["optimizer"], found["iter_num"], found["best_val_loss"]) == (None, None, 1e9)
    assert (found["model_args"], "config" in found) == (run.args, False)


def test_a_legacy_file_becomes_nanogpts_too(tmp_path, run):
    legacy = {"model_state_dict": run.model.state_dict(), "config": run.args, "step": 3}
    torch.save(legacy, tmp_path / "latest.pt")

    with pytest.raises(UnsupportedError, match="'legacy', and with ckpt.pt beside it nobody"):
        ckptstore.convert(tmp_path / "latest.pt", tmp_path / "ckpt.pt", "nanogpt")
    ckptstore.convert(tmp_path / "latest.pt", tmp_path / "out" / "ckpt.pt", "nanogpt")

    assert loaded(tmp_path / "out" / "ckpt.pt")["iter_num"] == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"training_state": {"tokenizer": {"token_kind": "x"}}},
            "the field 'tokenizer' of the training state would stand under",
        ),
        ({"training_state": {"iter_num": 1}}, "the field 'iter_num' of the training state would"),
        ({"state": {"model_args": torch.ones(1)}}, "the state 'model_args' would stand under"),
    ],
)
def test_a_name_of_nanogpts_own_is_refused(tmp_path, run, more, message):
    ckptstore.save(tmp_path / "dante", model=run.model, config=run.args, **more)

    with pytest.raises(UnsupportedError, match=message):
        ckptstore.convert(tmp_path / "dante", tmp_path / "ckpt.pt", "nanogpt")

    assert not (tmp_path / "ckpt.pt").exists()


def test_a_config_that_is_more_than_json_is_refused(tmp_path, run):
    from ckptstore.formats.base import Contents
    from ckptstore.testing import MemoryNewFiles

    with pytest.raises(UnsupportedError, match="the config holds more than JSON has"):
        ckptstore_nanogpt.NanogptFormat().write(
            Contents(model={}, config={"x": {1}}), MemoryNewFiles()
        )


class TestCommands:
    @pytest.fixture
    def call(self, tmp_path, server):
        """Give a function that runs a command in a folder that holds ``out``."""
        client = server.client()
        if "bucket" not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket="bucket")
        client.close()
        scripts = str(Path(sys.executable).parent)
        environ = {
            **os.environ,
            **server.environ,
            "PATH": os.pathsep.join([scripts, os.environ["PATH"]]),
            "PYTHONWARNINGS": "error",
        }

        def run(*words):
            done = subprocess.run(
                words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        return run

    def test_inspect_shows_it(self, out, call, run):
        found = json.loads(call(*CKPTSTORE, "inspect", "out", "--json"))

        assert (found["format"], found["step"], found["config"]) == ("nanogpt", 3, run.args)
        assert found["training_state"].keys() == {"step", "best_val_loss"}
        assert found["tensors"]["count"] == 16

    def test_sync_without_the_optimizer_makes_an_inference_copy_of_the_bundle(self, out, call, run):
        call(*CKPTSTORE, "convert", "out/ckpt.pt", "dante")
        call(*CKPTSTORE, "sync", "--no-optimizer", "dante", "copy")

        copied = ckptstore.open(out.parent / "copy")

        assert not copied.has_optimizer
        assert torch.equal(
            copied.load_model()["lm_head.weight"], run.model.state_dict()["lm_head.weight"]
        )

    def test_the_readme_is_true(self, out, call, meta):
        meta(out)
        text = README.read_text("utf-8")
        commands = re.findall(r"^\$ (ckptstore .*)$", text, re.MULTILINE)
        (out.parent / "resumed").mkdir()
        assert len(commands) == 5
        for command in commands:
            call("sh", "-c", command)
        blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        assert len(blocks) == 2

        call(sys.executable, "-c", "\n".join(blocks))

        assert (out.parent / "meta.pkl").read_bytes() == (out / "meta.pkl").read_bytes()
