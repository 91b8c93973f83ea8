"""G5: hostile checkpoints run nothing, reach nothing, stay within bounds and are refused clearly.

The corpus is made by `corpus.py` and its parts, the functions are those of `actions.py`; what has
to be true of each pair is in `judging.py`. ``python -m benchmarks.attacks`` runs every pair.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Attack = Callable[[str], list[dict[str, Any]]]

_SPEC = importlib.util.spec_from_file_location("judging", Path(__file__).with_name("judging.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
judging = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(judging)

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="watches processes as Linux lets it"
)


def check(outcomes: list[dict[str, Any]], at_least: int) -> None:
    """Check a group: as many items as there should be, and nothing wrong with any of them."""
    assert len(outcomes) >= at_least
    assert [fault for outcome in outcomes for fault in judging.faults(outcome)] == []


def test_no_function_that_a_pickle_names_is_called(attack: Attack) -> None:
    check(attack("globals"), 120)


def test_no_opcode_makes_or_changes_an_object(attack: Attack) -> None:
    check(attack("opcodes"), 60)


def test_what_is_no_pt_is_refused_unread(attack: Attack) -> None:
    check(attack("other streams"), 30)


def test_a_gadget_is_found_in_every_file_and_field(attack: Attack) -> None:
    check(attack("hidden"), 30)


def test_small_files_take_no_large_memory(attack: Attack) -> None:
    check(attack("bombs"), 35)


def test_zips_that_lie_are_refused(attack: Attack) -> None:
    check(attack("archives"), 140)


def test_tensors_that_claim_what_they_lack_take_nothing(attack: Attack) -> None:
    check(attack("tensors"), 100)


def test_manifests_lead_nowhere_else(attack: Attack) -> None:
    check(attack("manifests"), 180)


def test_names_in_json_lead_nowhere_else(attack: Attack) -> None:
    check(attack("names"), 80)


def test_links_and_what_is_no_file(attack: Attack) -> None:
    check(attack("links"), 35)


def test_json_that_is_none_is_damage(attack: Attack) -> None:
    check(attack("texts"), 140)


def test_tokenizer_states_that_are_none(attack: Attack) -> None:
    check(attack("tokenizers"), 60)
