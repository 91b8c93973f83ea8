"""Names as the model has them, whatever wrapped it when it was saved."""

from __future__ import annotations

from collections import OrderedDict

import pytest

from ckptstore.errors import NotFoundError
from ckptstore.ptfile import chosen, repaired, repaired_names, unwrapped


@pytest.mark.parametrize(
    ("given", "clean"),
    [
        (["a.w", "b.w"], ["a.w", "b.w"]),
        (["module.a.w", "module.b"], ["a.w", "b"]),
        (["_orig_mod.a.w", "_orig_mod.b"], ["a.w", "b"]),
        (["module._orig_mod.a", "module._orig_mod.b"], ["a", "b"]),
        (["_orig_mod.module.a", "_orig_mod.module.b"], ["a", "b"]),
        (["module.module.a", "module.module.b"], ["a", "b"]),
        (["blocks.0._orig_mod.w", "head.w"], ["blocks.0.w", "head.w"]),
        (["module.a", "b"], ["module.a", "b"]),
        (["a", "_orig_mod.a"], ["a", "_orig_mod.a"]),
        ([], []),
    ],
)
def test_prefixes_come_off_where_every_name_has_them(given, clean):
    assert repaired_names(given) == dict(zip(given, clean, strict=True))


def test_later_writers_wrapper_comes_off():
    wrapped = {"state_dict": {"module.w": 1}, "checkpoint_dtype": "bf16", "model_dtype": "fp32"}

    assert repaired(wrapped) == {"w": 1}


def test_a_tensor_called_state_dict_is_no_wrapper():
    state = {"state_dict": 1, "w": 2}

    assert unwrapped(state) is state


def test_module_versions_follow_their_modules():
    state = OrderedDict({"module._orig_mod.bn.weight": 1})
    state._metadata = OrderedDict(
        {"": {"version": 1}, "module": {"version": 2}, "module._orig_mod.bn": {"version": 3}}
    )

    assert repaired(state)._metadata == {"": {"version": 2}, "bn": {"version": 3}}


def test_an_unknown_name_is_an_error_that_names_near_ones():
    state = {"blocks.0.weight": 1, "blocks.0.bias": 2}

    with pytest.raises(NotFoundError, match=r"no tensor 'blocks\.0\.wieght' in x; there are 'blo"):
        chosen(state, ["blocks.0.wieght"], "x")


def test_chosen_names_keep_the_order_asked_for():
    assert list(chosen({"a": 1, "b": 2}, ["b", "a"], "x")) == ["b", "a"]
