"""A restore reads straight into the parameters' memory; what that changes, and what it does not."""

from __future__ import annotations

import copy

import pytest
import torch

import ckptstore

CHUNK = 8 * 2**20


class Model(torch.nn.Module):
    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.first = torch.nn.Linear(1500, 1500, bias=bias)
        self.norm = torch.nn.BatchNorm1d(1500)
        self.second = torch.nn.Linear(1500, 1500)
        self.head = torch.nn.Linear(1500, 1500, bias=False)
        self.head.weight = self.second.weight
        self.register_buffer("turned", torch.randn(20, 30).T)


def equal(one, other) -> bool:
    pairs = [(one.state_dict(), other.state_dict())]
    return all(torch.equal(a[name], b[name]) for a, b in pairs for name in a)


@pytest.fixture(params=["{tmp}/x", "memory://restore-in-place"])
def location(request, tmp_path):
    return request.param.format(tmp=tmp_path)


def test_restore_overwrites_the_parameters_own_memory(location):
    saved, model = Model(), Model()
    ckptstore.save(location, model=saved)
    addresses = {name: value.data_ptr() for name, value in model.state_dict().items()}
    versions = {name: value._version for name, value in model.named_parameters()}

    ckptstore.open(location).restore(model=model)

    assert equal(model, saved)
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == addresses
    assert model.head.weight is model.second.weight
    assert all(value._version > versions[name] for name, value in model.named_parameters())


@pytest.mark.parametrize("change", ["dtype", "stride", "untied", "frozen", "compiled", "half"])
def test_a_model_that_differs_in_more_than_values_is_restored_all_the_same(tmp_path, change):
    saved, model = Model(), Model()
    if change == "dtype":
        model.double()
    if change == "half":
        saved.half()
    if change == "stride":
        model.first.weight.data = model.first.weight.data.T.contiguous().T
    if change == "untied":
        model.head.weight = torch.nn.Parameter(torch.zeros(1500, 1500))
    if change == "frozen":
        model.requires_grad_(False)
    target = torch.compile(model, backend="eager") if change == "compiled" else model
    ckptstore.save(tmp_path / "x", model=saved)

    ckptstore.open(tmp_path / "x").restore(model=target)

    expected = copy.deepcopy(model)
    expected.load_state_dict(saved.state_dict())
    assert equal(model, expected)


def test_a_model_tied_where_the_file_is_not_takes_the_last(tmp_path):
    saved, model = Model(), Model()
    saved.head.weight = torch.nn.Parameter(torch.zeros(1500, 1500))
    ckptstore.save(tmp_path / "x", model=saved)

    ckptstore.open(tmp_path / "x").restore(model=model)

    expected = Model()
    expected.load_state_dict(saved.state_dict())
    assert equal(model, expected)


def damage(folder, place: int) -> None:
    with (folder / "model.pt").open("r+b") as file:
        file.seek(place)
        file.write(b"damage")


def test_damage_found_half_way_says_that_the_model_holds_a_part(tmp_path):
    ckptstore.save(tmp_path / "x", model=Model())
    damage(tmp_path / "x", CHUNK + 100)

    with pytest.raises(
        ckptstore.CorruptionError,
        match=r"model\.pt in .* is damaged: chunk \d+ is .*; the model holds a part of what was "
        r"read by now, so restore it from a good checkpoint .*\(atomic=True",
    ):
        ckptstore.open(tmp_path / "x").restore(model=Model())


@pytest.mark.parametrize("manifest", [True, False], ids=["proved", "by CRC"])
def test_an_atomic_restore_leaves_a_model_alone_where_there_is_damage(tmp_path, manifest):
    folder, model = tmp_path / "x", Model()
    ckptstore.save(folder, model=Model())
    if not manifest:
        plain = tmp_path / "plain"
        plain.mkdir()
        (plain / "model.pt").write_bytes((folder / "model.pt").read_bytes())
        folder = plain
    damage(folder, CHUNK + 100)
    before = copy.deepcopy(model)

    with pytest.raises(ckptstore.CorruptionError, match="is damaged") as caught:
        ckptstore.open(folder).restore(model=model, atomic=True)

    assert "holds a part" not in str(caught.value)
    assert equal(model, before)


@pytest.mark.parametrize("atomic", [False, True])
def test_what_does_not_fit_changes_nothing(tmp_path, atomic):
    ckptstore.save(tmp_path / "x", model=Model(bias=False))
    model = Model()
    before = copy.deepcopy(model)

    with pytest.raises(ckptstore.UnsupportedError, match=r"it lacks first\.bias"):
        ckptstore.open(tmp_path / "x").restore(model=model, atomic=atomic)

    assert equal(model, before)


def test_an_optimizer_that_does_not_fit_leaves_the_model_alone(tmp_path):
    saved, model = Model(), Model()
    ckptstore.save(
        tmp_path / "x", model=saved, optimizer=torch.optim.SGD(saved.parameters(), lr=1.0)
    )
    before = copy.deepcopy(model)

    with pytest.raises(ckptstore.UnsupportedError, match="optimizer"):
        ckptstore.open(tmp_path / "x").restore(
            model=model, optimizer=torch.optim.AdamW(model.parameters())
        )

    assert equal(model, before)


def test_a_model_with_a_hand_in_its_loading_is_asked_itself(tmp_path):
    class Doubling(Model):
        def _load_from_state_dict(self, state_dict, *args):
            state_dict["turned"] = state_dict["turned"] * 2
            super()._load_from_state_dict(state_dict, *args)

    saved, model = Model(), Doubling()
    ckptstore.save(tmp_path / "x", model=saved)

    ckptstore.open(tmp_path / "x").restore(model=model)

    assert torch.equal(model.turned, saved.turned * 2)


def test_a_state_with_more_than_tensors_is_loaded_by_the_model(tmp_path):
    class Extra(Model):
        extra = 0

        def get_extra_state(self):
            return {"count": self.extra}

        def set_extra_state(self, state):
            self.extra = state["count"]

    saved, model = Extra(), Extra()
    saved.extra = 5
    ckptstore.save(tmp_path / "x", model=saved)

    ckptstore.open(tmp_path / "x").restore(model=model)

    assert model.extra == 5
    assert torch.equal(model.first.weight, saved.first.weight)
