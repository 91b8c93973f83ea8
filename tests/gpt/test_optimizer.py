"""An optimizer state that does not fit is an error that names what differs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from gpt.model import GPT


@pytest.fixture
def model(make_config: Any) -> GPT:
    return GPT(make_config())


@pytest.fixture
def state(model: GPT) -> dict[str, Any]:
    optimizer = model.configure_optimizer(1e-3)
    model(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long))[1].backward()
    optimizer.step()
    return copy.deepcopy(optimizer.state_dict())


def test_it_is_adamw_over_all_parameters_in_order(model: GPT) -> None:
    optimizer = model.configure_optimizer(1e-3)

    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.AdamW)
    assert group["lr"] == 1e-3
    assert group["weight_decay"] == 0.01
    assert [id(each) for each in group["params"]] == [id(each) for each in model.parameters()]


def test_a_state_is_continued_with_its_learning_rate(model: GPT, state: dict[str, Any]) -> None:
    optimizer = model.configure_optimizer(optimizer_state=state)

    assert optimizer.param_groups[0]["lr"] == 1e-3
    first = next(model.parameters())
    assert torch.equal(optimizer.state[first]["exp_avg"], state["state"][0]["exp_avg"])


def test_a_run_goes_on_with_the_kernels_that_it_began_with(
    model: GPT, state: dict[str, Any]
) -> None:
    assert model.configure_optimizer().param_groups[0]["fused"] is True

    state["param_groups"][0]["fused"] = None  # as in all older checkpoints

    assert model.configure_optimizer(optimizer_state=state).param_groups[0]["fused"] is None


def _of_more_layers(state: dict[str, Any], make_config: Any) -> dict[str, Any]:
    return GPT(make_config(n_layer=3)).configure_optimizer().state_dict()


def _of_another_width(state: dict[str, Any], make_config: Any) -> dict[str, Any]:
    state["state"][1]["exp_avg"] = torch.zeros(9, 9)
    return state


def _of_another_algorithm(state: dict[str, Any], make_config: Any) -> dict[str, Any]:
    return torch.optim.SGD(GPT(make_config()).parameters(), lr=1.0, momentum=0.9).state_dict()


def _with_other_moments(state: dict[str, Any], make_config: Any) -> dict[str, Any]:
    state["state"][0] = {"momentum_buffer": torch.zeros(1)}
    return state


def _of_two_groups(state: dict[str, Any], make_config: Any) -> dict[str, Any]:
    return {**state, "param_groups": state["param_groups"] * 2}


def _of_nothing(state: dict[str, Any], make_config: Any) -> dict[str, Any]:
    return {"weights": torch.zeros(1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_of_more_layers, "it is of 54 parameters, the model has 38"),
        (
            _of_another_width,
            r"'position_embedding_table.weight' has shape \(9, 9\), not \(16, 16\)",
        ),
        (_of_another_algorithm, "it is not of AdamW, for it has no betas and no eps"),
        (_with_other_moments, "'token_embedding_table.weight' it has .'momentum_buffer'."),
        (_of_two_groups, "it has 2 parameter groups, not 1"),
        (_of_nothing, "it is no optimizer's state_dict but holds .'weights'."),
    ],
)
def test_a_state_that_does_not_fit_says_what_differs(
    model: GPT, state: dict[str, Any], make_config: Any, change: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model.configure_optimizer(optimizer_state=change(state, make_config))
