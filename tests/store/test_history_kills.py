"""G2: a history whose steps share bytes loses nothing when trainings are killed and resumed.

The same machinery as ``python -m benchmarks.runs --only history``, which kills many more.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCENARIO = """
import json, random
from benchmarks.runs import history
from benchmarks.runs.counting import Counts

counts = Counts("history")
chance = random.Random(3)
history.run(5, chance, counts, lambda event: None, storages={"local": 1.0})
print(json.dumps({"rows": counts.rows, "found": counts.found}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
def test_trainings_that_are_killed_go_on_from_the_newest_step_and_lose_none() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCENARIO], cwd=ROOT, capture_output=True, text=True, timeout=250
    )

    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["found"] == []
    assert counts["rows"]["deaths"] == 5
    assert counts["rows"]["resumed"] >= 2
    assert counts["rows"]["saves acknowledged"] > 2
    assert counts["rows"]["MB that were there already"] > counts["rows"].get("MB written", 0)
