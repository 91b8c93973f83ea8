"""G1, G2, G7: each rule of the commit is needed, and what no rule prevents is known."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from .limits import HELPED, LIMITS
from .needed import NEEDED
from .rules import Rules, without
from .search import explore


def with_rules(scenario, rules):
    return replace(scenario, setting=scenario.setting._replace(rules=rules))


def test_every_rule_that_the_code_keeps_has_a_scenario_that_needs_it():
    kept = {field.name for field in fields(Rules) if getattr(Rules(), field.name)}

    assert NEEDED.keys() == kept
    assert all(scenario.setting.rules == without(name) for name, scenario in NEEDED.items())


@pytest.mark.parametrize("name", NEEDED)
def test_without_this_rule_a_promise_is_broken(name):
    result = explore(NEEDED[name])

    assert NEEDED[name].finds in (result.broken or "nothing is broken")
    assert result.trace, "how it comes about"


@pytest.mark.parametrize("name", NEEDED)
def test_with_this_rule_it_is_not(name):
    result = explore(with_rules(NEEDED[name], Rules()))

    assert result.broken is None, result.trace
    assert result.finished


@pytest.mark.parametrize("name", LIMITS)
def test_this_is_not_prevented(name):
    result = explore(LIMITS[name])

    assert LIMITS[name].finds in (result.broken or "nothing is broken")


@pytest.mark.parametrize("name", HELPED)
def test_a_delete_on_condition_would_prevent_it(name):
    result = explore(with_rules(LIMITS[name], Rules(delete_if=True)))

    assert result.broken is None, result.trace
    assert result.finished
