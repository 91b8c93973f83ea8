"""What is loaded is what was saved: the same keys, order, types and bytes."""

from __future__ import annotations

import math
from argparse import Namespace
from collections import OrderedDict, defaultdict, deque
from datetime import date, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import numpy
import pytest
import torch
from ckptstore_lightning import StoreCheckpointIO

import ckptstore
from ckptstore import CorruptionError, UnsafeError, UnsupportedError


def same(one: object, two: object) -> bool:
    """Whether two objects are equal down to the types, the order of keys, and the bits."""
    if type(one) is not type(two):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, numpy.ndarray):
        return one.dtype == two.dtype and numpy.array_equal(one, two)
    if isinstance(one, dict):
        if getattr(one, "_metadata", None) != getattr(two, "_metadata", None):
            return False
        return [*map(repr, one)] == [*map(repr, two)] and all(same(one[k], two[k]) for k in one)
    if isinstance(one, (list, tuple, deque)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, (Namespace, SimpleNamespace)):
        return same(vars(one), vars(two))
    return one == two or (one != one and two != two)


def lightnings(**more: object) -> dict[str, object]:
    """Return a checkpoint such as Lightning makes, with more in it."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    return {
        "epoch": 1,
        "global_step": 10,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": model.state_dict(),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 2}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'val_loss'}": {
                "monitor": "val_loss",
                "best_k_models": {"elsewhere.ckpt": torch.tensor(0.5)},
                "best_model_score": None,
                "dirpath": Path("run"),
            }
        },
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [{"last_epoch": 1, "_last_lr": [0.1]}],
        **more,
    }


@pytest.fixture
def io() -> StoreCheckpointIO:
    return StoreCheckpointIO(durable=False)


def test_a_checkpoint_comes_back_as_it_was(io, folder):
    given = lightnings(
        hyper_parameters={"lr": 0.1, "betas": (0.9, 0.99), "sizes": [1, 2], "name": None},
        hparams_name="kwargs",
        MixedPrecision={"scale": 65536.0, "growth_factor": 2.0},
        ema=OrderedDict(w=torch.ones(2)),
        by_number={0: {1: "a"}, (2, "b"): (), None: {"c"}},
    )

    io.save_checkpoint(given, f"{folder}/epoch=1-step=10.ckpt")

    assert same(io.load_checkpoint(f"{folder}/epoch=1-step=10.ckpt"), given)


def test_what_is_given_stays_as_it_is(io, tmp_path):
    given = lightnings(hyper_parameters={"root": Path("x"), "betas": (0.9, 0.99)})
    parts = {name: given[name] for name in given}

    io.save_checkpoint(given, tmp_path / "a.ckpt")

    assert all(given[name] is parts[name] for name in given)
    assert given["hyper_parameters"] == {"root": Path("x"), "betas": (0.9, 0.99)}


def test_a_checkpoint_is_a_bundle_that_every_tool_reads(io, folder):
    location = f"{folder}/a.ckpt"
    given = lightnings(hyper_parameters={"lr": 0.1, "betas": (0.9, 0.99)})
    io.save_checkpoint(given, location)

    checkpoint = ckptstore.open(location)

    assert (checkpoint.step, checkpoint.config) == (10, {"lr": 0.1, "betas": [0.9, 0.99]})
    assert checkpoint.training_state["epoch"] == 1
    assert checkpoint.training_state["pytorch-lightning_version"] == "2.6.6"
    assert same(checkpoint.load_model(), given["state_dict"])
    assert same(checkpoint.load_optimizer(), given["optimizer_states"][0])
    assert checkpoint.states() == ("loops", "callbacks", "lr_schedulers", "lightning")
    assert checkpoint.load_state("lr_schedulers") == given["lr_schedulers"]
    assert checkpoint.verify().sound


def test_each_of_several_optimizers_has_a_file(io, tmp_path):
    given = lightnings()
    given["optimizer_states"] = given["optimizer_states"] * 2

    io.save_checkpoint(given, tmp_path / "gan.ckpt")

    checkpoint = ckptstore.open(tmp_path / "gan.ckpt")
    assert {"optimizer_0", "optimizer_1"} <= {*checkpoint.states()}
    assert not checkpoint.has_optimizer
    assert same(io.load_checkpoint(tmp_path / "gan.ckpt"), given)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "net._orig_mod."])
def test_names_that_ckptstore_repairs_come_back_as_they_were(io, tmp_path, prefix):
    weights = torch.nn.Linear(2, 2).state_dict()
    given = {"state_dict": OrderedDict((prefix + name, weights[name]) for name in weights)}
    given["state_dict"]._metadata = OrderedDict({"": {"version": 1}, prefix[:-1]: {"version": 1}})

    io.save_checkpoint(given, tmp_path / "a.ckpt")

    assert same(io.load_checkpoint(tmp_path / "a.ckpt"), given)


@pytest.mark.parametrize(
    "given",
    [
        {"model": {"w": torch.ones(2)}, "optimizer": {"state": {}, "param_groups": []}, "step": 3},
        {"a": {"w": torch.ones(2)}, "b": {"w": torch.zeros(2)}, "iteration": 3},
        torch.nn.Linear(2, 2).state_dict(),
        {"numbers": [1, 2, 3]},
        {"state_dict": {}},
        {f"state_{n}_{'x' * 30}": {"w": torch.tensor(n)} for n in range(40)},
        {"model": "resnet", "optimizer": [1], "Manifest": {"a": 1}, "lightning": {"b": 2}},
        {"x/y": {"a": 1}, 7: {"b": torch.ones(1)}, "é" * 200: [2]},
        {},
    ],
)
def test_any_dict_of_fabrics_comes_back_as_it_was(io, tmp_path, given):
    io.save_checkpoint(given, tmp_path / "a.ckpt")

    assert same(io.load_checkpoint(tmp_path / "a.ckpt"), given)


@pytest.mark.parametrize(
    "value",
    [
        Path("runs") / "a",
        PurePosixPath("/x"),
        numpy.float64(0.1),
        numpy.float16(0.1),
        numpy.int32(-5),
        numpy.bool_(True),
        numpy.complex64(1 + 2j),
        numpy.str_("a"),
        numpy.arange(6, dtype=">i4").reshape(2, 3).T,
        numpy.array(2.5),
        timedelta(days=-1, microseconds=3),
        datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2))),
        date(2026, 1, 2),
        Namespace(root=Path("x"), n=[Path("y")]),
        SimpleNamespace(a=(Path("x"),)),
        defaultdict(list, a=[1]),
        deque([1, Path("x")], maxlen=5),
        frozenset((1, 2)),
        OrderedDict(b=1, a=(1, OrderedDict(c=()))),
        math.nan,
        math.inf,
        -0.0,
        b"\xff",
        2**70,
        "\ud83d\ude00 as two halves",
        torch.float16,
        torch.Size((1, 2)),
        {1: 2},
        {"a": {"b": (1, (2, [3, ()]))}},
        complex(1, 2),
        torch.tensor([1.5]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("key", ["hyper_parameters", "callbacks", "mine"])
def test_a_plain_value_of_any_type_comes_back_with_its_type(io, key, value):
    given = {"state_dict": {}, key: {"before": 1, "it": value, "within": [(value,)]}}

    io.save_checkpoint(given, "memory://a.ckpt")

    assert same(io.load_checkpoint("memory://a.ckpt"), given)


def test_lightnings_attribute_dict_comes_back_as_one(io, tmp_path):
    from lightning.fabric.utilities.data import AttributeDict

    given = lightnings(hyper_parameters={"args": AttributeDict(lr=0.1, root=Path("x"))})

    io.save_checkpoint(given, tmp_path / "a.ckpt")

    found = io.load_checkpoint(tmp_path / "a.ckpt")["hyper_parameters"]["args"]
    assert type(found) is AttributeDict
    assert (found.lr, found.root) == (0.1, Path("x"))


def test_omegaconf_comes_back_as_containers_and_is_readable(io, tmp_path):
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create(
        {"lr": 0.1, "twice": "${lr}", "sizes": [1, {"a": None}], "todo": "???", "root": Path("x")}
    )
    given = lightnings(hyper_parameters=config, hparams_type=type(config))

    io.save_checkpoint(given, tmp_path / "a.ckpt")

    found = io.load_checkpoint(tmp_path / "a.ckpt")
    assert type(found["hyper_parameters"]) is omegaconf.DictConfig
    plain = omegaconf.OmegaConf.to_container(found["hyper_parameters"])
    sizes = [1, {"a": None}]
    wanted = {"lr": 0.1, "twice": 0.1, "sizes": sizes, "todo": "???", "root": Path("x")}
    assert same(plain, wanted)
    assert found["hparams_type"] is omegaconf.DictConfig
    assert ckptstore.open(tmp_path / "a.ckpt").config["twice"] == 0.1


def test_nothing_that_a_checkpoint_says_is_resolved(io, tmp_path):
    omegaconf = pytest.importorskip("omegaconf")
    called = []
    omegaconf.OmegaConf.register_resolver("call", called.append, replace=True)
    texts = ["${call:1}", r"\${call:2}", r"a\\${call:3}${call:4}", "${nothing.there}"]
    said = rest(
        checkpoint={"it": {"texts": texts, "within": {"it": texts}}},
        marks=[(("it",), "omegaconf", None)],
    )
    ckptstore.save(tmp_path / "a.ckpt", model={}, state={"lightning": said})

    found = io.load_checkpoint(tmp_path / "a.ckpt")["it"]

    assert type(found) is omegaconf.DictConfig
    assert [*found.texts] == [*found.within["it"]] == texts
    assert called == []


class Colour(Enum):
    RED = 1


class Own:
    pass


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Own(), r"\['hyper_parameters'\]\['net'\] is a .*Own, .*ignore=\['net'\]"),
        (torch.nn.Linear(1, 1), r"is a torch.nn.modules.linear.Linear, which cannot be read back"),
        (Colour.RED, "is a .*Colour, .*put its .value in its place"),
        (len, "is a builtins.builtin_function_or_method"),
        (torch.optim.Adam, "is a builtins.type"),
        (numpy.array([None]), "is a numpy.ndarray"),
    ],
)
def test_what_would_run_code_is_named_before_anything_is_written(io, folder, names, value, said):
    with pytest.raises(UnsafeError, match=said):
        io.save_checkpoint(lightnings(hyper_parameters={"net": value}), f"{folder}/a.ckpt")

    assert names(folder) == []


def test_an_object_in_a_callbacks_state_is_named(io, tmp_path):
    given = lightnings(callbacks={"Mine": {"a": [Own()]}})

    with pytest.raises(
        UnsafeError, match=r"\['callbacks'\]\['Mine'\]\['a'\]\[0\] is a .*plain values"
    ):
        io.save_checkpoint(given, tmp_path / "a.ckpt")


def test_what_holds_itself_is_named(io, tmp_path):
    own = []
    own.append(own)

    with pytest.raises(UnsupportedError, match="is nested deeper than 100, or holds itself"):
        io.save_checkpoint(lightnings(hyper_parameters={"own": own}), tmp_path / "a.ckpt")


def test_an_edited_config_is_what_is_loaded(io, tmp_path):
    given = lightnings(
        hyper_parameters={"lr": 0.1, "betas": (0.9, 0.99), "root": Path("x"), "nan": math.nan}
    )
    io.save_checkpoint(given, tmp_path / "a.ckpt")
    config = tmp_path / "a.ckpt" / "config.json"
    config.write_text('{"betas": [0.5, 0.6], "root": 7, "new": true}')

    found = io.load_checkpoint(tmp_path / "a.ckpt")["hyper_parameters"]

    assert found.pop("nan") != found.get("nan")
    assert found == {"betas": (0.5, 0.6), "root": 7, "new": True}


def test_map_location_is_what_torch_has(io, tmp_path):
    given = lightnings()
    io.save_checkpoint(given, tmp_path / "a.ckpt")

    for where in (None, "cpu", torch.device("cpu"), lambda storage, _: storage, {"cpu": "cpu"}):
        assert same(io.load_checkpoint(tmp_path / "a.ckpt", map_location=where), given)
    meta = io.load_checkpoint(tmp_path / "a.ckpt", map_location="meta")
    assert meta["state_dict"]["0.weight"].is_meta


def test_a_file_of_a_newer_release_says_what_to_install(io, tmp_path):
    ckptstore.save(tmp_path / "a.ckpt", model={}, state={"lightning": rest(version=2)})

    with pytest.raises(UnsupportedError, match="has version 2, .* reads up to 1; install a newer"):
        io.load_checkpoint(tmp_path / "a.ckpt")


def rest(**fields):
    """Return a lightning.pt, with something else in it."""
    sound = {"version": 1, "checkpoint": {"a": 1}, "places": [], "config": None, "marks": []}
    return {**sound, "model": {"ordered": False, "names": None, "metadata": None}, **fields}


@pytest.mark.parametrize(
    "malformed",
    [
        [],
        {"version": 1},
        rest(places=[(("a",), "loops")]),
        rest(places=[(("b", "c"), "model")]),
        rest(places=[(("a",), "model"), (("b",), "model")]),
        rest(config=["lr"]),
        rest(marks=[(("b",), "path", "Path")]),
        rest(marks=[(("a",), "path", "PosixPath")]),
        rest(marks=[(("a",), "os.system", None)]),
        rest(marks=[(("a",), "numpy number", "O")]),
        rest(marks=[(("a",), "timedelta", None)]),
        rest(marks=[(("a",) * 1000, "path", "Path")]),
        rest(marks=[(([],), "path", "Path")]),
        rest(checkpoint={"a": (10**400, 0, 0)}, marks=[(("a",), "timedelta", None)]),
    ],
    ids=str,
)
def test_a_malformed_rest_is_damage(io, malformed):
    ckptstore.save("memory://a.ckpt", model={}, state={"lightning": malformed})

    with pytest.raises((CorruptionError, ckptstore.NotFoundError), match="lightning.pt|'loops'"):
        io.load_checkpoint("memory://a.ckpt")
