"""G2, G3: SIGKILL at any moment leaves the whole old state or the whole new one.

The same machinery as ``python -m benchmarks.faults``, which kills a thousand times.
"""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("storage", "events"),
    [
        ("local", {"kill": 25, "stop": 2, "young": 1}),
        ("moto", {"kill": 2, "stop": 1, "cut": 1}),
        ("rclone", {"kill": 3, "young": 1, "restart": 1}),
    ],
)
def test_real_processes_are_killed_stopped_and_cut_off(storage, events, faults):
    planned = ",".join(f"{name}={count}" for name, count in events.items())

    counts = faults("--storage", storage, "--events", planned, "--races", 0)

    assert counts["kills"] >= events["kill"]
    assert counts["stops"] == events.get("stop", 0)
    assert counts["servers restarted"] == events.get("restart", 0)
    assert counts["connections cut"] >= events.get("cut", 0)
    assert counts["saves"] > 2, "they got somewhere between the kills"
    found = counts["leftovers found"]
    assert counts["leftovers cleaned"] + counts["uploads left alone"] == found
