"""The config: unknown fields stay, wrong values are named, a device that is not here is the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gpt.config import GPTConfig, usable_device
from gpt.model import GPTConfig as FromModel

DOCUMENTED = {
    "batch_size": 32,
    "block_size": 256,
    "vocab_size": 50304,
    "n_embd": 384,
    "n_head": 6,
    "n_layer": 6,
    "dropout": 0.2,
    "bias": False,
    "device": "cuda",
}

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def test_the_defaults_are_those_of_the_format_document() -> None:
    assert FromModel is GPTConfig
    assert GPTConfig(device="cuda").to_dict() == DOCUMENTED


def test_unknown_fields_are_written_back_in_their_places() -> None:
    values = {"pos_encoding": "learned", **DOCUMENTED, "use_loss_mask": True}

    written = GPTConfig.from_dict(values).with_values(batch_size=8).to_dict()

    assert written == {**values, "batch_size": 8}
    assert list(written) == list(values)


def test_absent_fields_get_defaults_and_are_written_last() -> None:
    config = GPTConfig.from_dict({"n_embd": 12, "other": 1})

    assert list(config.to_dict())[:2] == ["n_embd", "other"]
    assert config.n_layer == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_embd": 100, "n_head": 3}, "n_embd 100 is not a multiple of n_head 3"),
        ({"n_layer": "6"}, "n_layer is '6', not a whole number"),
        ({"n_layer": 0}, "n_layer is 0"),
        ({"block_size": 2.5}, "block_size is 2.5"),
        ({"batch_size": True}, "batch_size is True"),
        ({"dropout": "0.2"}, "dropout is '0.2', not a number"),
        ({"dropout": 1.0}, "dropout is 1.0, not from 0 to below 1"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"bias": "no"}, "bias is 'no', not true or false"),
        ({"device": None}, "device is None"),
    ],
)
def test_a_wrong_value_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPTConfig.from_dict(changes)


@no_cuda
def test_a_device_that_is_not_here_is_the_cpu_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="device 'cuda:1' is not available here; using the CPU"):
        assert usable_device("cuda:1") == "cpu"
    assert usable_device("cpu") == "cpu"


def test_a_device_that_torch_does_not_know_is_named() -> None:
    with pytest.raises(ValueError, match="device is 'graphics', which torch does not know"):
        usable_device("graphics")
