"""What pickles say beside their tensors: read without torch, noted in manifests, checked there."""

from __future__ import annotations

import json

import pytest
import torch

import ckptstore
from ckptstore.manifest import Manifest
from ckptstore.structure import Structure, dump_structure, load_structure


@pytest.fixture
def trained():
    """A model with a tied weight, and its optimizer with two groups after a step."""
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3), "b": torch.nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    optimizer = torch.optim.AdamW(
        [
            {"params": [model["a"].weight], "weight_decay": 0.1},
            {"params": [model["a"].bias, model["b"].bias], "weight_decay": 0.0},
        ],
        lr=0.25,
    )
    model["b"](model["a"](torch.ones(3))).sum().backward()
    optimizer.step()
    return model, optimizer


def legacy_file(path, model, optimizer):
    whole = {"model_state_dict": model.state_dict(), "config": {}, "step": 3}
    torch.save({**whole, "optimizer_state_dict": optimizer.state_dict()}, path)


@pytest.fixture(params=["committed", "plain folder", "legacy"])
def checkpoint(request, tmp_path, trained):
    model, optimizer = trained
    if request.param == "legacy":
        legacy_file(tmp_path / "latest.pt", model, optimizer)
        return ckptstore.open(tmp_path)
    ckptstore.save(tmp_path / "x", model=model, optimizer=optimizer, step=3)
    if request.param == "plain folder":
        (tmp_path / "y").mkdir()
        for name in ("model.pt", "optimizer.pt", "training_state.json"):
            (tmp_path / "y" / name).write_bytes((tmp_path / "x" / name).read_bytes())
        return ckptstore.open(tmp_path / "y")
    return ckptstore.open(tmp_path / "x")


def test_tied_tensors_are_named(checkpoint):
    assert checkpoint.structure()["model"].ties == (("a.weight", "b.weight"),)


def test_an_optimizers_groups_and_what_it_keeps_are_known(checkpoint):
    found = checkpoint.structure()["optimizer"]

    assert [group.params for group in found.groups] == [1, 2]
    assert [group.values["weight_decay"] for group in found.groups] == [0.1, 0.0]
    assert found.groups[0].values["lr"] == 0.25
    assert found.groups[0].values["betas"] == (0.9, 0.999)
    assert found.slots == {"step": 3, "exp_avg": 3, "exp_avg_sq": 3}


def test_what_the_pickles_refer_to_is_named(checkpoint):
    for said in checkpoint.structure().values():
        assert "torch._utils._rebuild_tensor_v2" in said.refers_to
        assert list(said.refers_to) == sorted(said.refers_to)


def test_the_tensors_of_every_part_are_known(checkpoint):
    assert set(checkpoint.tensors()) == {"a.weight", "a.bias", "b.weight", "b.bias"}
    assert checkpoint.tensors("optimizer")["state.0.exp_avg"].shape == (3, 3)
    assert checkpoint.tensors("nothing of that name") == {}


def test_a_view_of_something_larger_is_seen(tmp_path):
    table = torch.zeros(100, 10)
    torch.save({"model_state_dict": {"row": table[3], "other": table[5]}}, tmp_path / "latest.pt")

    assert ckptstore.open(tmp_path).structure()["model"].unseen == {"row": 98 * 10 * 4}


def test_a_manifest_of_an_older_release_has_none_and_the_files_are_asked(tmp_path, trained):
    model, optimizer = trained
    ckptstore.save(tmp_path, model=model, optimizer=optimizer, step=3)
    before = ckptstore.open(tmp_path).structure()
    folder = tmp_path / ".ckptstore" / "00000001"
    raw = json.loads((folder / "manifest.json").read_text())
    manifest = Manifest.from_json((folder / "manifest.json").read_text(), "it")
    for name in raw["files"]:
        object.__setattr__(manifest.files[name], "structure", None)
    (folder / "manifest.json").write_text(manifest.to_json())

    assert "structure" not in manifest.to_json()
    assert ckptstore.open(tmp_path).structure() == before


def test_what_json_lacks_and_what_is_long_is_left_out(tmp_path):
    group = {"lr": float("nan"), "big": 2**70, "text": "x" * 200, "t": torch.ones(1), "n": None}
    state = {"state": {}, "param_groups": [{**group, "params": [0, 1]}]}
    ckptstore.save(tmp_path, model={"w": torch.ones(1)}, optimizer=state)

    (found,) = ckptstore.open(tmp_path).structure()["optimizer"].groups

    assert (found.params, dict(found.values)) == (2, {"lr": "nan", "n": None})


def test_it_is_the_same_after_json(checkpoint):
    for said in checkpoint.structure().values():
        assert load_structure(json.loads(json.dumps(dump_structure(said)))) == said


@pytest.mark.parametrize(
    "change",
    [
        {"refers_to": "os"},
        {"refers_to": [1]},
        {"ties": [["a", 2]]},
        {"unseen": {"a": -1}},
        {"groups": [{"params": True, "values": {}}]},
        {"groups": [{"params": 1, "values": {"lr": {}}}]},
        {"groups": [{"params": 1, "values": {"lr": [[1]]}}]},
        {"slots": {"a": "b"}},
        {"slots": []},
    ],
)
def test_anything_else_in_a_manifest_is_refused(change):
    with pytest.raises((TypeError, AttributeError)):
        load_structure({**dump_structure(Structure()), **change})
