"""A format that renames, turns or leaves out something says so, and is held to what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ckptstore
from ckptstore import tensors
from ckptstore.errors import CorruptionError
from ckptstore.transfer.proving import proved_same
from tests.plugins.conftest import Install

WEIGHTS = {"up": torch.arange(6.0).reshape(2, 3), "down": torch.arange(8.0).reshape(4, 2) / 7}

TURNED = """
    from dataclasses import replace

    from ckptstore import TensorInfo, hookimpl
    from ckptstore.formats.base import Format, Reader
    from ckptstore.texts import dump_json, parse_json

    class TurnedReader(Reader):
        def __init__(self, files):
            self.saved = parse_json(files.text("turned.json"), "turned.json")
            self.config = self.saved["config"]

        def tensors(self):
            shapes = {n: (len(v), len(v[0])) for n, v in self.saved["model"].items()}
            return {n: TensorInfo("float32", s, 4 * s[0] * s[1]) for n, s in shapes.items()}

        def load_model(self, names=None, map_location="cpu"):
            import torch
            model = self.saved["model"]
            return {n: torch.tensor(model[n]) for n in (model if names is None else names)}

        def files(self):
            return ("turned.json",)

    class Turned(Format):
        name = "turned"
        writable = True

        def matches(self, files):
            return "turned.json" in files.names()

        def read(self, files):
            return TurnedReader(files)

        def stored(self, contents):
            model = {f"the {n}": tensor.t() for n, tensor in contents.model.items()}
            config = {"kind": "turned", **(contents.config or {})}
            return replace(contents, model=model, config=config, tokenizer_state=None,
                           optimizer=None, states={})

        def write(self, contents, files):
            stored = self.stored(contents)
            model = {name: tensor.tolist() for name, tensor in stored.model.items()}
            files.write_text("turned.json", dump_json({"config": stored.config, "model": model}))

    @hookimpl
    def ckptstore_formats():
        return [Turned]
"""


@pytest.fixture
def dante(tmp_path: Path) -> Path:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    ckptstore.save(
        tmp_path / "dante",
        model=WEIGHTS,
        config={"n": 1},
        tokenizer={"token_kind": "char", "chars": ["a"]},
        optimizer=optimizer,
        state={"ema": {"w": torch.ones(2)}},
        training_state={"note": "x"},
        step=5,
    )
    return tmp_path / "dante"


def test_a_conversion_is_proved_against_what_the_format_stores(
    install: Install, dante: Path, tmp_path: Path
) -> None:
    install("turned", TURNED)

    done = ckptstore.convert(dante, tmp_path / "turned", "turned")

    assert {part: [p.name for p in found] for part, found in done.proofs.items()} == {
        "model": ["the up", "the down"]
    }
    assert done.proofs["model"][0].after.shape == (3, 2)
    checkpoint = ckptstore.open(tmp_path / "turned")
    assert checkpoint.config == {"kind": "turned", "n": 1}
    assert torch.equal(checkpoint.load_model()["the up"], WEIGHTS["up"].t())


def test_what_the_format_leaves_out_is_named_and_what_it_rewrites_is_not(
    install: Install, dante: Path, tmp_path: Path
) -> None:
    install("turned", TURNED)

    done = ckptstore.convert(dante, tmp_path / "turned", "turned")

    assert done.left_out == ("tokenizer", "optimizer", "the field note", "the state ema")


@pytest.mark.parametrize(
    ("said", "done"),
    [
        ("tensor.tolist()", "(tensor + 1).tolist()"),
        ("{name: tensor.tolist()", "{name[1:]: tensor.tolist()"),
        ("in stored.model.items()}", "in [*stored.model.items()][1:]}"),
    ],
    ids=["values", "names", "one is missing"],
)
def test_a_format_that_stores_something_else_is_found_out(
    install: Install, dante: Path, tmp_path: Path, said: str, done: str
) -> None:
    assert said in TURNED
    install("turned", TURNED.replace(said, done))

    with pytest.raises(CorruptionError, match="tensors of its model differ") as caught:
        ckptstore.convert(dante, tmp_path / "turned", "turned")

    assert caught.value.committed is True


def test_a_config_that_is_not_what_the_format_says_is_named(
    install: Install, dante: Path, tmp_path: Path
) -> None:
    install("turned", TURNED.replace('{"config": stored.config', '{"config": {"kind": "lost"}'))

    done = ckptstore.convert(dante, tmp_path / "turned", "turned")

    assert done.left_out is not None
    assert done.left_out[0] == "config"


def test_the_fingerprint_is_that_of_the_tokenizer_that_is_stored(
    install: Install, tmp_path: Path
) -> None:
    other = """{"token_kind": "char", "chars": ["b"]}"""
    source = TURNED.replace("tokenizer_state=None", f"tokenizer_state={other}")
    kept = "self.config = self.saved"
    install("turned", source.replace(kept, f"self.tokenizer_state = {other}\n            {kept}"))
    mine = {"token_kind": "char", "chars": ["a"]}

    saved = ckptstore.save(tmp_path / "x", model=WEIGHTS, tokenizer=mine, format="turned")

    assert saved.load_tokenizer().encode("b") == [0]
    bundle = ckptstore.save(tmp_path / "y", model=WEIGHTS, tokenizer=mine)
    assert saved.fingerprint != bundle.fingerprint
    done = ckptstore.convert(tmp_path / "y", tmp_path / "z", "turned")
    assert done.left_out == ()
    assert ckptstore.open(tmp_path / "z").fingerprint == saved.fingerprint


def test_what_a_format_does_not_store_is_refused_before_anything_is_written(
    install: Install, tmp_path: Path
) -> None:
    said = "from ckptstore import UnsupportedError\n            raise UnsupportedError('not these')"
    source = TURNED.replace('model = {f"the {n}"', f'{said}\n            model = {{f"the {{n}}"')
    install("turned", source)

    with pytest.raises(ckptstore.UnsupportedError, match="not these"):
        ckptstore.save(tmp_path / "x", model=WEIGHTS, format="turned")

    assert not (tmp_path / "x").exists()


def test_a_format_that_says_nothing_is_given_back_what_it_is_given() -> None:
    from ckptstore import plugins
    from ckptstore.formats.base import Contents

    contents = Contents(model=WEIGHTS)

    assert plugins.format_named("bundle").stored(contents) is contents
    assert plugins.format_named("legacy").stored(contents) is contents


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (torch.tensor([0.0, float("nan")]), torch.tensor([0.0, float("nan")]), True),
        (torch.tensor([0.0]), torch.tensor([-0.0]), False),
        (torch.ones(2), torch.ones(2).double(), False),
        (torch.ones(0, 3), torch.ones(0, 2), False),
        (torch.ones(()), torch.ones(1), False),
        (torch.arange(12.0).reshape(3, 4).t(), torch.arange(12.0).reshape(3, 4).t(), True),
        (torch.ones(1).expand(4), torch.ones(4), True),
        (torch.ones(1).expand(3, 2**21), torch.ones(3, 2**21), True),
        (torch.eye(2).to_sparse(), torch.eye(2).to_sparse(), True),
        (torch.eye(2).to_sparse(), torch.eye(2), False),
        ({"a": [1, (2,), float("nan")]}, {"a": [1, (2,), float("nan")]}, True),
        ({"a": 1}, {"b": 1}, False),
    ],
)
def test_imprints_are_alike_where_the_objects_are(one: object, two: object, same: bool) -> None:
    assert tensors.alike(tensors.imprint(one), tensors.imprint(two)) is same
    assert tensors.alike(one, two) is same


def test_an_imprint_looks_once_at_what_repeats() -> None:
    many, others = torch.ones(1).expand(2**50), torch.zeros(1).expand(2**50)

    assert tensors.alike(tensors.imprint(many, once=True), tensors.imprint(many, once=True))
    assert not tensors.alike(tensors.imprint(many, once=True), tensors.imprint(others, once=True))
    few, written_out = torch.ones(1).expand(4), torch.ones(4)
    assert not tensors.alike(
        tensors.imprint(few, once=True), tensors.imprint(written_out, once=True)
    )


def test_an_optimizer_that_repeats_and_one_that_was_written_out_are_proved_alike(
    tmp_path: Path,
) -> None:
    """A format may write out what a state repeats; that is no difference."""
    source = tmp_path / "source"
    shown = {"state": {0: {"m": torch.ones(1).expand(3, 2)}}, "param_groups": []}
    ckptstore.save(source, model=WEIGHTS, optimizer=shown)
    before = ckptstore.open(source)
    written = {"state": {0: {"m": torch.ones(3, 2)}}, "param_groups": []}
    after = ckptstore.save(tmp_path / "after", model=WEIGHTS, optimizer=written)

    assert "optimizer" in proved_same(before, after, ("optimizer",))

    other = {"state": {0: {"m": torch.zeros(3, 2)}}, "param_groups": []}
    wrong = ckptstore.save(tmp_path / "wrong", model=WEIGHTS, optimizer=other)
    with pytest.raises(ckptstore.CorruptionError, match="its optimizer differ"):
        proved_same(before, wrong, ("optimizer",))
