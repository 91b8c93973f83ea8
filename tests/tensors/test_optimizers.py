"""A state goes into an optimizer of its own kind, whichever torch wrote it, and into no other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ckptstore import tensors
from ckptstore.errors import UnsupportedError


def model():
    torch.manual_seed(0)
    return nn.Linear(2, 3)


def trained(net, kind=torch.optim.AdamW, **options):
    optimizer = kind(net.parameters(), lr=1e-3, **options)
    net(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    return optimizer


KINDS = {
    "ASGD": {},
    "Adadelta": {},
    "Adagrad": {},
    "Adamax": {},
    "AdamW": {},
    "NAdam": {},
    "RMSprop": {},
    "Rprop": {},
    "SGD": {"momentum": 0.9},
}


@pytest.mark.parametrize("saver", KINDS)
@pytest.mark.parametrize("loader", KINDS)
def test_the_state_of_another_kind_of_optimizer_is_refused_unchanged(saver, loader):
    net = model()
    state = trained(net, getattr(torch.optim, saver), **KINDS[saver]).state_dict()
    kind = getattr(torch.optim, loader)
    optimizer = kind(net.parameters(), lr=1.0, **KINDS[loader])
    before = copy.deepcopy(optimizer.state_dict()["param_groups"])

    if saver == loader:
        tensors.restore_optimizer(optimizer, state)
        optimizer.step()
    elif (saver, loader) != ("NAdam", "AdamW"):  # AdamW could go on from there.
        with pytest.raises(UnsupportedError, match=f"it is not of {loader}: its .* has .*no "):
            tensors.restore_optimizer(optimizer, state)
        assert optimizer.state_dict()["param_groups"] == before


def test_what_another_kind_of_optimizer_lacks_is_named():
    net = model()
    adam, sgd = trained(net), torch.optim.SGD(net.parameters(), momentum=0.9)

    with pytest.raises(
        UnsupportedError, match="it is not of SGD: its group 0 has no momentum, dampening"
    ):
        tensors.restore_optimizer(sgd, adam.state_dict())

    state = adam.state_dict()
    state["state"] = {0: {"momentum_buffer": torch.ones(3, 2)}}
    with pytest.raises(
        UnsupportedError,
        match="its parameter 0 has momentum_buffer and no step and no exp_avg and no exp_avg_sq",
    ):
        tensors.restore_optimizer(torch.optim.AdamW(net.parameters()), state)


# What the groups of torch 1.0 held.
FIRST = {
    "Adadelta": ("lr", "rho", "eps", "weight_decay"),
    "Adam": ("lr", "betas", "eps", "weight_decay"),
    "AdamW": ("lr", "betas", "eps", "weight_decay"),
    "Adamax": ("lr", "betas", "eps", "weight_decay"),
    "Adagrad": ("lr", "lr_decay", "eps", "weight_decay"),
    "ASGD": ("lr", "lambd", "alpha", "t0", "weight_decay"),
    "RMSprop": ("lr", "alpha", "eps", "weight_decay"),
    "Rprop": ("lr", "etas", "step_sizes"),
    "SGD": ("lr", "momentum", "dampening", "weight_decay"),
}


@pytest.mark.parametrize("name", FIRST)
def test_a_state_of_an_old_torch_fits_the_same_optimizer_of_a_new_one(name):
    net = model()
    state = trained(net, getattr(torch.optim, name)).state_dict()
    for group in state["param_groups"]:
        for key in set(group) - {*FIRST[name], "params"}:
            del group[key]
    for values in state["state"].values():
        if isinstance(values.get("step"), torch.Tensor):
            values["step"] = int(values["step"])
    optimizer = getattr(torch.optim, name)(net.parameters(), lr=1.0)

    tensors.restore_optimizer(optimizer, state)

    optimizer.step()


def test_what_schedulers_and_people_add_to_groups_is_no_other_kind():
    net = model()
    state = trained(net).state_dict()
    groups = [{"params": net.parameters(), "name": "all"}]
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=10)

    tensors.restore_optimizer(optimizer, state)


def test_an_optimizer_that_fills_in_what_it_lacks_is_asked_itself():
    class Later(torch.optim.SGD):
        def __init__(self, parameters):
            super().__init__(parameters, lr=1.0)
            for group in self.param_groups:
                group["warm"] = True
            self.defaults["warm"] = True

        def __setstate__(self, state):
            super().__setstate__(state)
            for group in self.param_groups:
                group.setdefault("warm", False)

    class Own(Later):
        def load_state_dict(self, state_dict):
            self.loaded = state_dict

    net = model()
    state = trained(net, torch.optim.SGD).state_dict()
    later, own = Later(net.parameters()), Own(net.parameters())

    tensors.restore_optimizer(later, state)
    tensors.restore_optimizer(own, trained(net).state_dict())

    assert later.param_groups[0]["warm"] is False
    assert own.loaded["state"]
