"""`python -m benchmarks.converting`: that it runs, and what it calls too much."""

from __future__ import annotations

import json
import os

import pytest

from benchmarks import converting

pytestmark = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="needs /proc to measure memory"
)


def test_a_conversion_is_measured_in_a_process_of_its_own(tmp_path, capsys):
    told = tmp_path / "found.json"
    arguments = ["--gib", "0.03", "--how", "bounded", "--only", "legacy"]

    assert converting.main([*arguments, "--folder", str(tmp_path), "--json", str(told)]) == 0

    (one,) = json.loads(told.read_text())
    assert (one["from"], one["to"]) == ("legacy", "bundle")
    assert one["above"] <= converting.BUDGET < one["base"]
    assert "| legacy to bundle | bounded |" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
