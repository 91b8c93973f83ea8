"""A short, seeded share of ``python -m benchmarks.runs --only tiers``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.runs.counting import ZERO


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such processes")
def test_trainings_uploaders_and_servers_die_and_nothing_is_lost():
    words = ["-m", "benchmarks.runs", "--only", "tiers", "--deaths", "4", "--seed", "5", "--json"]
    done = subprocess.run(
        [sys.executable, *words], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + done.stdout
    counts = json.loads(done.stdout)["scenarios"]["tiers"]

    assert counts["deaths"] >= 4
    assert counts["acknowledged saves"] >= 4
    assert not any(counts.get(row) for row in ZERO)
