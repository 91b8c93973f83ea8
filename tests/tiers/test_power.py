"""When a save returns, power may fail: what has to be copied is not forgotten by that."""

from __future__ import annotations

from pathlib import Path

import pytest

import ckptstore
from ckptstore import Keep, Store, Tier
from ckptstore.testing import PowerLoss
from tests.tiers.conftest import model, waiting_in


@pytest.mark.parametrize("keep", [None, Keep()], ids=["single", "history"])
def test_no_disk_after_a_loss_of_power_has_a_state_without_its_entry(tmp_path: Path, keep):
    disk = tmp_path / "disk"
    disk.mkdir()
    with PowerLoss(disk) as power:
        tier = Tier(tmp_path / "there", uploader="none")
        Store(disk / "dante", keep=keep, tier=tier).save(model=model(1), step=1)

    seen = set()
    for moment in range(0, len(power.calls) + 1):
        for which in ("synced", "names", "zeros", 0, 1):
            left = tmp_path / f"left-{moment}-{which}"
            power.left(moment, which).write_to(left)
            try:
                committed = ckptstore.open(left / "dante").step == 1
            except ckptstore.NotFoundError:
                committed = False
            waits = bool(waiting_in(left / "dante"))
            assert waits or not committed, f"after {power.calls[:moment]}, {which}"
            seen.add((committed, waits))

    assert seen == {(False, False), (False, True), (True, True)}


def test_what_is_not_durable_syncs_nothing_for_its_tier(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    with PowerLoss(disk) as power:
        tier = Tier(tmp_path / "there", uploader="none")
        store = Store(disk / "dante", keep=Keep(), tier=tier, durable=False)
        store.save(model=model(1), step=1)

    assert [call for call in power.calls if call.startswith("fsync")] == []
