"""On every storage, in the background, converted, and in bounded memory."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch
from safetensors_trainings import trained

import ckptstore
from ckptstore.testing import Crash, Killed, Nothing, inject
from ckptstore.testing.servers import start_server

FORMAT = "safetensors"
README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    standing = start_server("moto", tmp_path_factory.mktemp("moto"))
    yield standing
    standing.stop()


@pytest.fixture(params=["local", "memory", "s3"])
def place(request, tmp_path):
    """Give a location and its options."""
    if request.param == "local":
        return str(tmp_path / "run"), None
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}", None
    standing = request.getfixturevalue("server")
    return standing.url("run"), standing.storage_options


def save(place, seed: int, **more):
    training = trained(seed)
    return ckptstore.save(
        place[0],
        model=training.model,
        optimizer=training.optimizer,
        config={"seed": seed},
        tokenizer={"token_kind": "char", "chars": ["a"]},
        state={"ema": {"w": torch.full((2,), float(seed))}},
        training_state={"note": "ä"},
        metrics_log=[{"step": 1, "loss": 2.5}],
        step=seed,
        format=FORMAT,
        storage_options=place[1],
        **more,
    )


def check(checkpoint, seed: int) -> None:
    training = trained(seed)
    model, optimizer = trained(seed + 1)
    checkpoint.restore(model=model, optimizer=optimizer)
    for name, tensor in training.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    moments = training.optimizer.state_dict()["state"][0]["exp_avg"]
    assert torch.equal(optimizer.state_dict()["state"][0]["exp_avg"], moments)
    assert checkpoint.config == {"seed": seed}
    assert checkpoint.load_state("ema")["w"].tolist() == [seed, seed]
    assert checkpoint.load_metrics_log() == ({"step": 1, "loss": 2.5},)
    assert (checkpoint.format, checkpoint.step, checkpoint.proved) == (FORMAT, seed, True)
    assert checkpoint.training_state["note"] == "ä"
    assert checkpoint.verify().sound


def test_a_checkpoint_comes_back_from_every_storage(place):
    save(place, 3)
    save(place, 4)

    check(ckptstore.open(place[0], storage_options=place[1]), 4)


def test_equal_states_are_equal_bytes_and_a_copy_is_one(place, tmp_path):
    first = save(place, 3)
    again = ckptstore.save(
        tmp_path / "again",
        model=first.load_model(),
        optimizer=first.load_optimizer(),
        config=first.config,
        tokenizer=first.tokenizer_state,
        state={"ema": first.load_state("ema")},
        training_state=first.training_state,
        metrics_log=first.load_metrics_log(),
        step=first.step,
        format=FORMAT,
    )

    assert {n: f.sha256 for n, f in again.files().items()} == {
        n: f.sha256 for n, f in first.files().items()
    }
    assert ckptstore.sync(place[0], tmp_path / "copy", storage_options=place[1]).changed
    assert not ckptstore.sync(place[0], tmp_path / "copy", storage_options=place[1]).changed
    check(ckptstore.open(tmp_path / "copy"), 3)


def test_an_inference_copy_has_model_config_and_tokenizer(tmp_path):
    save((tmp_path / "run", None), 3)

    ckptstore.sync(tmp_path / "run", tmp_path / "copy", optimizer=False)

    copy = ckptstore.open(tmp_path / "copy")
    assert set(copy.files()) == {"model.safetensors", "config.json", "tokenizer.json"}
    assert (copy.config, copy.has_optimizer) == ({"seed": 3}, False)


@pytest.mark.parametrize("size", [1000, 5 * 2**20])
def test_saves_in_the_background_are_of_their_moment(tmp_path, size):
    weights = {"w": torch.zeros(size), "turned": torch.arange(6.0).reshape(2, 3).t()}
    keep = ckptstore.Keep(last=2)
    with ckptstore.Store(tmp_path / "run", keep=keep, format=FORMAT) as store:
        for step in (1, 2, 3):
            weights["w"].fill_(step)
            done = store.save_async(model=weights, step=step)
        weights["w"].fill_(7)

    assert done.result().load_model()["w"].unique().tolist() == [3]
    assert torch.equal(store.open(2).load_model()["turned"], weights["turned"])


def test_a_save_that_dies_at_any_moment_leaves_the_old_state_or_the_new_one():
    root = f"memory://{uuid.uuid4().hex}"
    save((f"{root}/whole", None), 1)
    with inject(Nothing()) as seen:
        save((f"{root}/whole", None), 2)
    for k in range(1, len(seen.operations) + 1):
        place = (f"{root}/{k}", None)
        save(place, 1)
        with pytest.raises(Killed), inject(Crash(k)):
            save(place, 2)
        checkpoint = ckptstore.open(place[0])
        check(checkpoint, checkpoint.config["seed"])


def test_a_bundle_is_converted_there_and_back_and_every_tensor_is_proved(tmp_path):
    training = trained()
    base = torch.arange(12.0).reshape(3, 4)
    model = {**training.model.state_dict(), "turned": base.t(), "row": base[1]}
    bundle = ckptstore.save(
        tmp_path / "bundle",
        model={**model, "tied": model["0.weight"]},
        optimizer=training.optimizer,
        config={"n": 1},
        state={"ema": {"state_dict": {"w": torch.ones(2)}, "decay": 0.9}},
        metrics_log=[{"step": 1}],
        step=3,
    )

    there = ckptstore.convert(tmp_path / "bundle", tmp_path / "st", FORMAT)
    back = ckptstore.convert(tmp_path / "st", tmp_path / "back")

    for done in (there, back):
        assert done.left_out == ()
        assert {part: len(found) for part, found in done.proofs.items()} == {
            "model": 7,
            "optimizer": 12,
            "ema": 1,
        }
    again = ckptstore.open(tmp_path / "back")
    assert again.load_state("ema")["decay"] == 0.9
    assert again.structure()["model"].ties == (("0.weight", "tied"),)
    for name, tensor in bundle.load_model().items():
        assert torch.equal(again.load_model([name])[name], tensor)


def test_an_edit_by_hand_is_what_opens(tmp_path):
    save((tmp_path / "run", None), 3)
    (tmp_path / "run/config.json").write_text('{"seed": 9}')

    checkpoint = ckptstore.open(tmp_path / "run")

    assert (checkpoint.config, checkpoint.edited) == ({"seed": 9}, ("config.json",))


def test_a_folder_without_a_manifest_is_a_checkpoint_too(tmp_path):
    checkpoint = save((tmp_path / "run", None), 3)
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in checkpoint.files():
        (plain / name).write_bytes((tmp_path / "run" / name).read_bytes())

    found = ckptstore.open(plain)

    assert (found.format, found.proved, found.step) == (FORMAT, False, 3)
    assert found.load_optimizer()["state"].keys() == {0, 1, 2, 3}
    (plain / "model.pt").write_bytes(b"")
    with pytest.raises(ckptstore.UnsupportedError, match="looks like bundle and safetensors"):
        ckptstore.open(plain)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"config": {"x": object()}}, "config.json: this cannot be written as JSON"),
        ({"config": [1]}, "config.json has to be a JSON object, not a list"),
        ({"training_state": {"a": "x" * 1024}}, "training_state.json would have .* field is 'a'"),
        ({"metrics_log": [{"a": object()}]}, "metrics.jsonl: row 1 cannot be written"),
    ],
)
def test_what_is_no_json_is_refused(tmp_path, more, message):
    with pytest.raises(ckptstore.UnsupportedError, match=message):
        ckptstore.save(tmp_path / "run", model={"w": torch.ones(1)}, format=FORMAT, **more)


MEMORY = """
import resource, sys
import torch
import ckptstore

MiB = 2**20
tensors = {f"w{i}": torch.ones(64 * MiB // 4) for i in range(4)}
tensors["turned"] = torch.ones(4096, 4096).t()
ckptstore.save(sys.argv[1] + "/small", model={"w": torch.ones(8).t()}, format="safetensors")
ckptstore.open(sys.argv[1] + "/small").load_model()

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

if sys.argv[2] == "save":
    before = most()
    ckptstore.save(sys.argv[1], model=tensors, format="safetensors", durable=False)
    print(most() - before)
else:
    del tensors
    before = most()
    model = torch.nn.ParameterDict({f"w{i}": torch.zeros(64 * MiB // 4) for i in range(4)})
    model["turned"] = torch.zeros(4096, 4096).t()
    ckptstore.open(sys.argv[1]).restore(model=model)
    print(most() - before)
    assert model["w3"].min() == 1 and model["turned"].min() == 1
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is in KiB there")
def test_memory_is_bounded_whatever_the_size(tmp_path):
    for act in ("save", "restore"):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(tmp_path / "run"), act],
            capture_output=True,
            text=True,
            check=True,
        )
        assert float(done.stdout) < 128, act


def fences(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    exec("\n".join(fences("python")), {})

    assert (tmp_path / "run/model.safetensors").exists()


def test_the_commands_of_the_readme_run(tmp_path):
    ckptstore.save(tmp_path / "checkpoints/dante", model={"lm_head.weight": torch.ones(2)})

    said = {}
    for command in "".join(fences("console")).replace("$ ", "").splitlines():
        if not command.startswith("pip"):
            words = [sys.executable, "-m", *command.replace("'", "").split()]
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            said[words[3]] = done.stdout

    assert "lm_head.weight" in said["inspect"]
    assert "pickles" not in said["inspect"]
    assert "sound, proved against its manifest" in said["verify"]


def test_what_a_tokenizer_needs_beside_its_state_is_carried(place, tmp_path):
    files = {"tokenizer.words": b"a\nb\n"}
    saved = ckptstore.save(
        place[0],
        model={"w": torch.ones(2)},
        tokenizer={"token_kind": "char", "chars": ["a"]},
        vocabulary=files,
        state={"tokenizer": {"ids": torch.arange(3)}},  # tokenizer.safetensors, which is a state
        format=FORMAT,
        storage_options=place[1],
    )

    assert dict(saved.tokenizer_files()) == files
    assert "tokenizer.words" in saved.files()
    assert torch.equal(saved.load_state("tokenizer")["ids"], torch.arange(3))
    ckptstore.sync(place[0], tmp_path / "share", optimizer=False, storage_options=place[1])
    copied = ckptstore.open(tmp_path / "share")
    assert dict(copied.tokenizer_files()) == files
    assert copied.states() == ()


def test_files_of_a_tokenizer_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(ckptstore.UnsupportedError, match="saved without a tokenizer; pass tokeniz"):
        ckptstore.save(
            tmp_path / "run",
            model={"w": torch.ones(2)},
            vocabulary={"tokenizer.words": b"a"},
            format=FORMAT,
        )
    assert not (tmp_path / "run").exists()
