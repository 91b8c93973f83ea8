"""Models and optimizers are restored in place, wrapped or not, or not at all."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ckptstore import tensors
from ckptstore.errors import UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def model(width=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def trained(net, kind=torch.optim.AdamW, **options):
    optimizer = kind(net.parameters(), lr=1e-3, **options)
    net(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    return optimizer


class Compiled(nn.Module):
    """What torch.compile puts around a module, as far as names go."""

    def __init__(self, inner):
        super().__init__()
        self._orig_mod = inner

    def forward(self, *args):
        return self._orig_mod(*args)


WRAPPERS = [
    lambda net: net,
    nn.DataParallel,
    Compiled,
    lambda net: nn.DataParallel(Compiled(net)),
    lambda net: Compiled(nn.DataParallel(net)),
    lambda net: nn.Sequential(Compiled(net[0]), net[1]),
]
NAMES = ["plain", "parallel", "compiled", "parallel compiled", "compiled parallel", "inner"]


@pytest.mark.parametrize("wrap", WRAPPERS, ids=NAMES)
def test_a_wrapped_models_names_are_the_models_own(wrap):
    assert list(tensors.state_dict_of(wrap(model()))) == list(model().state_dict())


@pytest.mark.parametrize("saver", WRAPPERS, ids=NAMES)
@pytest.mark.parametrize("loader", WRAPPERS, ids=NAMES)
def test_a_state_of_any_wrapper_fits_any_other(saver, loader):
    source = model()
    nn.init.constant_(source[0].weight, 5.0)
    target = loader(model())
    before = list(target.parameters())

    tensors.restore_model(target, saver(source).state_dict())

    assert [id(p) for p in target.parameters()] == [id(p) for p in before], "in place"
    for one, other in zip(target.parameters(), source.parameters(), strict=True):
        assert torch.equal(one, other)


def test_torchs_own_compile_is_seen_through():
    net = model()
    compiled = torch.compile(net, backend="eager")

    assert list(tensors.state_dict_of(compiled)) == list(net.state_dict())


def test_state_dicts_and_objects_that_have_one_are_taken():
    state = {"w": torch.ones(1)}
    net = model()

    assert tensors.state_dict_of(state) is state
    assert "param_groups" in tensors.state_dict_of(trained(net))
    assert tensors.state_of(3) == 3
    assert set(tensors.state_of(net)) == set(net.state_dict())
    with pytest.raises(UnsupportedError, match=r"a list has no state_dict\(\)"):
        tensors.state_dict_of([1])


def test_a_model_of_another_shape_is_refused_unchanged():
    target = model(width=4)
    before = copy.deepcopy(target.state_dict())
    state = {**model().state_dict(), "extra.weight": torch.ones(1)}
    del state["1.running_mean"]

    with pytest.raises(
        UnsupportedError,
        match=r"dante does not fit the model: it lacks 1\.running_mean; the model lacks "
        r"extra\.weight; shapes differ: 0\.weight is \[3, 2\] there and \[4, 2\] in the model",
    ):
        tensors.restore_model(target, state, where="dante")

    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_names_may_differ_where_that_is_asked_for():
    target = model()

    tensors.restore_model(target, {"0.bias": torch.full((3,), 9.0), "x": 1}, strict=False)

    assert torch.equal(target[0].bias, torch.full((3,), 9.0))


def test_a_module_that_renames_old_keys_is_asked_itself():
    class Renamed(nn.Linear):
        def __init__(self):
            super().__init__(1, 1)
            self.register_load_state_dict_pre_hook(self.rename)

        @staticmethod
        def rename(module, state, prefix, *rest):
            if prefix + "old" in state:
                state[prefix + "weight"] = state.pop(prefix + "old")

    target = Renamed()

    tensors.restore_model(target, {"old": torch.full((1, 1), 3.0), "bias": torch.zeros(1)})

    assert target.weight.item() == 3.0
    with pytest.raises(UnsupportedError, match="does not fit the model: Error"):
        tensors.restore_model(target, {"older": torch.ones(1, 1), "bias": torch.zeros(1)})


def test_an_optimizer_is_restored():
    net = model()
    state = trained(net).state_dict()
    fresh = torch.optim.AdamW(net.parameters(), lr=9.0)

    tensors.restore_optimizer(fresh, state)

    assert fresh.param_groups[0]["lr"] == 1e-3
    assert torch.equal(fresh.state_dict()["state"][0]["exp_avg"], state["state"][0]["exp_avg"])


def split(net):
    return torch.optim.AdamW([{"params": net[0].parameters()}, {"params": net[1].parameters()}])


def renamed(net):
    return torch.optim.AdamW([("other." + n, p) for n, p in net.named_parameters()])


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (split, None, "it has 1 parameter groups, the optimizer 2"),
        (
            lambda net: torch.optim.AdamW(net[0].parameters()),
            None,
            "its group 0 has 4 parameters, the optimizer's 2",
        ),
        (
            lambda net: torch.optim.AdamW(model(width=4).parameters()),
            None,
            r"exp_avg of parameter 0 is \[3, 2\] there, the parameter \[4, 2\]",
        ),
        (None, lambda state: state.pop("param_groups"), "it has no param_groups and state"),
        (None, lambda state: state["state"].update({9: {}}), "state 9 belongs to no parameter"),
        (None, lambda state: state["param_groups"][0].pop("params"), "group 0 lists no parameters"),
        (
            renamed,
            lambda state: state["param_groups"][0].update(
                param_names=["0.weight", "0.bias", "1.weight", "1.bias"]
            ),
            "its group 0 has '0.weight' where the optimizer has 'other.0.weight'",
        ),
    ],
)
def test_an_optimizer_state_that_does_not_fit_is_refused_unchanged(make, change, message):
    net = model()
    state = trained(net).state_dict()
    if change:
        change(state)
    optimizer = (make or (lambda net: torch.optim.AdamW(net.parameters())))(net)
    before = copy.deepcopy(optimizer.state_dict())

    with pytest.raises(UnsupportedError, match=f"does not fit the optimizer: .*{message}"):
        tensors.restore_optimizer(optimizer, state)

    assert optimizer.state_dict() == before


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.AdamW, {"amsgrad": True}),
        (torch.optim.Adam, {}),
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.RMSprop, {"momentum": 0.9, "centered": True}),
        (torch.optim.Adagrad, {}),
        (torch.optim.Adadelta, {}),
        (torch.optim.Adamax, {}),
        (torch.optim.NAdam, {}),
        (torch.optim.RAdam, {}),
        (torch.optim.Rprop, {}),
        (torch.optim.ASGD, {}),
        (torch.optim.Adafactor, {}),
    ],
)
def test_every_optimizer_of_torchs_fits_itself(saved, loaded, kind, options):
    net = model()
    optimizer = trained(net, kind, **options)

    state = loaded(saved(optimizer.state_dict()))

    tensors.restore_optimizer(kind(net.parameters(), lr=1.0, **options), state)


def test_a_restore_compares_both_before_it_changes_either():
    source, target = model(), model()
    nn.init.constant_(source[0].weight, 5.0)
    before = copy.deepcopy(target.state_dict())

    with pytest.raises(UnsupportedError, match="does not fit the optimizer"):
        tensors.restore(
            target,
            source.state_dict(),
            split(target),
            trained(source).state_dict(),
            where="dante",
        )

    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_the_model_is_compared_before_the_optimizer_changes():
    source, target = model(), model(width=4)
    optimizer = torch.optim.AdamW(target.parameters())

    with pytest.raises(UnsupportedError, match="does not fit"):
        tensors.restore(
            target, source.state_dict(), optimizer, trained(source).state_dict(), where="dante"
        )

    assert not optimizer.state
