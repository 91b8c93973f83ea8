"""Optimizers and further states come back exactly: types of keys and containers, and every bit."""

from __future__ import annotations

import math
import random
from collections import Counter, OrderedDict

import pytest
import torch
from safetensors import safe_open
from safetensors_trainings import trained

import ckptstore
from ckptstore import plugins, tensors
from ckptstore.formats.base import Contents
from ckptstore.testing import MemoryFiles, MemoryNewFiles

FORMAT = "safetensors"


def exactly(one: object, two: object) -> bool:
    """Whether two nested states are the same, in types and order too."""
    if type(one) is not type(two):
        return False
    if isinstance(one, torch.Tensor):
        return tensors.alike(one, two)
    if isinstance(one, dict):
        return len(one) == len(two) and all(
            exactly(a, b) for a, b in zip(one.items(), two.items(), strict=True)
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(exactly, one, two))
    if isinstance(one, float):
        return one == two or (math.isnan(one) and math.isnan(two))
    return one == two


def back(state: object) -> object:
    new = MemoryNewFiles()
    contents = Contents(model={"w": torch.ones(1)}, states={"mine": state})
    plugins.format_named(FORMAT).write(contents, new)
    return plugins.format_named(FORMAT).read(new.written()).load_state("mine")


SHARED = torch.arange(4.0)


@pytest.mark.parametrize(
    "state",
    [
        {"state": {0: {"step": torch.tensor(3.0)}, 10: {}}, "param_groups": [{"betas": (0.9, 1)}]},
        {"a": None, "b": True, "c": 0, "d": -1.5, "e": "ä 漢 \udc80", "f": [], "g": {}, "h": ()},
        {1: "int", "1": "text", 1.5: "float", None: "none", (1, "x"): "tuple", False: "bool"},
        {"$": ["tensor", "w"], "b": {"$": 1}},
        {"nan": math.nan, "inf": math.inf, "neg": -math.inf, "zero": -0.0, "tiny": 5e-324},
        {"big": 2**1900, "bytes": b"\x00\xff", "array": bytearray(b"x"), "complex": 1 - 2j},
        {"ordered": OrderedDict(b=1, a=torch.ones(2)), "count": Counter("hello"), "set": {1, "a"}},
        {"dtype": torch.bfloat16, "device": torch.device("cuda:1"), "size": torch.Size([2, 3])},
        {"tied": SHARED, "again": SHARED, "part": SHARED[1:3], "list": [SHARED, [SHARED]]},
        {"state_dict": {"w": torch.ones(2)}, "decay": 0.99, "w": torch.zeros(1)},
        {"a.b": torch.ones(1), "a": {"b": torch.zeros(2)}},
        {"": torch.ones(1), "__metadata__x": torch.ones(2), "format": torch.ones(1)},
        {"format": SHARED, "ckptstore": SHARED, "x": SHARED},
        [torch.ones(2), 3],
        torch.arange(3),
        7,
        {"long": list(range(100_000))},
    ],
    ids=lambda state: str(state)[:30],
)
def test_a_state_comes_back_exactly(state):
    assert exactly(back(state), state)


def test_what_was_tied_is_tied_again():
    found = back({"one": SHARED, "two": SHARED})

    assert found["one"].data_ptr() == found["two"].data_ptr()


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({"layout": torch.strided}, "UnsupportedError", "the state 'mine' holds a torch.layout at"),
        ({"s": torch.eye(2).to_sparse()}, "UnsupportedError", "a sparse_coo tensor at 's'"),
        ({"f": print}, "UnsafeError", "the state 'mine' holds a builtins.builtin_function"),
        ({"['a']['b']": SHARED, "a.b": SHARED, "a": {"b": SHARED}}, "UnsupportedError", "two tens"),
    ],
)
def test_what_has_no_place_is_refused(state, error, message):
    with pytest.raises(getattr(ckptstore, error), match=message):
        back(state)


def test_a_state_that_is_nested_too_deep_is_refused():
    state: list = []
    for _ in range(60):
        state = [(state,)]

    with pytest.raises(ckptstore.CkptstoreError, match="nested"):
        back(state)


@pytest.mark.parametrize(
    "name", ["model", "optimizer", "Model", ".hidden", "", "a/b", "..", "x" * 250]
)
def test_a_state_whose_file_would_be_another_is_refused(name):
    new = MemoryNewFiles()
    contents = Contents(model={"w": torch.ones(1)}, states={name: {}})

    with pytest.raises(ckptstore.UnsupportedError, match="a state cannot be called"):
        plugins.format_named(FORMAT).write(contents, new)


def optimizers():
    for kind, options in {
        "AdamW": {"amsgrad": True},
        "SGD": {"momentum": 0.9},
        "Adagrad": {},
        "RMSprop": {"centered": True},
        "Adafactor": {},
        "LBFGS": {"history_size": 3},
        "ASGD": {},
    }.items():
        yield pytest.param(getattr(torch.optim, kind), options, id=kind)


@pytest.mark.parametrize(("kind", "options"), [*optimizers()])
def test_an_optimizer_goes_on_as_it_would_have(tmp_path, kind, options):
    def make() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 4)
        return model, kind(model.parameters(), lr=0.1, **options)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            found = (model(torch.ones(4)) ** 2).sum()
            found.backward()
            return found

        optimizer.step(loss)

    model, optimizer = make()
    step(model, optimizer)
    checkpoint = ckptstore.save(tmp_path / "run", model=model, optimizer=optimizer, format=FORMAT)
    assert exactly(checkpoint.load_optimizer(), optimizer.state_dict())
    other, again = make()
    checkpoint.restore(model=other, optimizer=again)
    step(model, optimizer)
    step(other, again)

    assert torch.equal(other.weight, model.weight)
    assert exactly(again.state_dict(), optimizer.state_dict())


def test_schedulers_scalers_and_random_states_are_states(tmp_path):
    training = trained()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(training.optimizer, 10)
    states = {
        "scheduler": scheduler,
        "scaler": torch.amp.GradScaler("cpu"),
        "rng": {"torch": torch.get_rng_state(), "python": random.getstate()},
    }

    checkpoint = ckptstore.save(tmp_path / "run", model=training.model, state=states, format=FORMAT)

    assert exactly(checkpoint.load_state("scheduler"), scheduler.state_dict())
    assert exactly(checkpoint.load_state("scaler"), states["scaler"].state_dict())
    assert exactly(checkpoint.load_state("rng")["python"], random.getstate())
    assert set(checkpoint.tensors("rng")) == {"torch"}


def test_what_inspect_says_of_an_optimizer_is_what_it_says_of_a_bundles(tmp_path):
    training = trained()
    for name in ("bundle", FORMAT):
        ckptstore.save(
            tmp_path / name, model=training.model, optimizer=training.optimizer, format=name
        )
    bundle, ours = (ckptstore.open(tmp_path / name) for name in ("bundle", FORMAT))

    one, two = bundle.structure()["optimizer"], ours.structure()["optimizer"]
    assert (one.groups, one.slots) == (two.groups, two.slots)
    assert bundle.tensors("optimizer").keys() == ours.tensors("optimizer").keys()


def test_the_tensors_of_an_optimizer_are_there_for_other_programs(tmp_path):
    training = trained()
    ckptstore.save(
        tmp_path / "run", model=training.model, optimizer=training.optimizer, format=FORMAT
    )

    with safe_open(tmp_path / "run/optimizer.safetensors", "pt") as file:
        found = file.get_tensor("state.0.exp_avg")
    assert torch.equal(found, training.optimizer.state_dict()["state"][0]["exp_avg"])


def test_a_file_of_somebody_else_is_its_tensors(tmp_path):
    from safetensors.torch import save

    files = {
        "model.safetensors": save({"w": torch.ones(1)}),
        "ema.safetensors": save({"w": torch.zeros(3)}),
        "training_state.json": b'{"ema_file": "ema.safetensors", "step": 3}',
    }

    reader = plugins.format_named(FORMAT).read(MemoryFiles(files))

    assert reader.load_state("ema")["w"].tolist() == [0, 0, 0]
    assert reader.step == 3


@pytest.mark.parametrize(
    "tree",
    [
        "{",
        "[]",
        "{}",
        '{"tree":{"$":["tensor","nobody"]}}',
        '{"tree":{"$":["eval","1"]}}',
        '{"tree":{"$":1}}',
        '{"tree":{"$":["dict",[[[1],2]]]}}',
        '{"tree":{"$":["dict",[1]]}}',
        '{"tree":{"$":["dtype","load"]}}',
        '{"tree":{"$":["dtype","nobody"]}}',
        '{"tree":{"$":["device","moon"]}}',
        '{"tree":{"$":["bytes","%%"]}}',
        '{"tree":{"$":["float","x"]}}',
        '{"tree":{"$":["size",["x"]]}}',
        '{"tree":' + '{"a":' * 120 + "1" + "}" * 121,
    ],
)
def test_a_text_that_puts_nothing_together_is_damage(tree):
    from safetensors.torch import save

    files = {
        "model.safetensors": save({"w": torch.ones(1)}),
        "ema.safetensors": save({"w": torch.zeros(3)}, {"ckptstore": tree}),
        "training_state.json": b'{"ema_file": "ema.safetensors"}',
    }

    with pytest.raises(ckptstore.CorruptionError, match="in the header of ema.safetensors"):
        plugins.format_named(FORMAT).read(MemoryFiles(files)).load_state("ema")
