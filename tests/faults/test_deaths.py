"""G2: whatever dies before or after any operation, a fresh process finds a whole state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ckptstore.manifest import MANIFEST
from ckptstore.testing import Operation
from ckptstore.testing.servers import S3Server
from tests.faults.acts import ACTS
from tests.faults.deaths import CHANGES, counted, dead_in_process, numbered
from tests.faults.zygote import Zygote

# By hand: that an operation was added has to be seen, and paid for by whoever adds it.
COUNTS = json.loads((Path(__file__).parent / "operations.json").read_text())
# On memory at every operation; the local disk has the others at every one that changes something.
MEMORY = ("first save", "replace", "overwrite", "remove")
UNSEEN = ("repair", "prune")
"""What opens is the same before and after."""
S3 = ("first save", "replace", "overwrite")


@pytest.mark.parametrize("name", ACTS)
def test_a_dead_process_leaves_a_whole_state(name: str, zygote: Zygote, fast_path: Path) -> None:
    result = zygote.run("tests.faults.deaths", "dead_processes", name, str(fast_path))

    assert result.wrong == []
    assert result.times >= 2
    assert len(result.seen) >= (1 if name in UNSEEN else 2), "it died before and after the change"


@pytest.mark.parametrize("name", MEMORY)
def test_a_death_at_every_operation_in_memory(name: str, memory_url: str) -> None:
    result = dead_in_process(ACTS[name], numbered(memory_url))

    assert result.wrong == []
    assert result.times > 15
    assert len(result.seen) >= 2


@pytest.mark.parametrize("name", S3)
def test_a_death_at_what_decides_on_s3(name: str, moto_server: S3Server) -> None:
    def decides(operation: Operation) -> bool:
        manifest = operation.path.endswith(MANIFEST) and operation.name in CHANGES
        freed = name == "overwrite" and operation.name == "delete"
        return manifest or freed or operation.name == "finish"

    places = numbered(moto_server.url(), moto_server.storage_options)
    result = dead_in_process(ACTS[name], places, decides)

    assert result.wrong == []
    assert result.times >= 2
    assert len(result.seen) == 2


@pytest.mark.parametrize("name", ACTS)
def test_no_operation_was_added(name: str, tmp_path: Path) -> None:
    assert counted(name, str(tmp_path)) == COUNTS[name]


def test_every_act_has_its_count() -> None:
    assert COUNTS.keys() == ACTS.keys()
