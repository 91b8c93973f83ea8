"""What one step of a history has, the next one does not store or send again."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import pytest
import torch

import ckptstore
from ckptstore.background import running
from ckptstore.commit.repair import repair
from ckptstore.storage import connect
from ckptstore.testing import Crash, Killed, S3Proxy, asked
from ckptstore.testing.injection import inject

BIG = 1_500_000  # Numbers in a tensor of 6 MB, more than a service copies in parts of less.


def weights(value: float, *, layers: int = 1) -> dict[str, torch.Tensor]:
    return {f"layer{n}": torch.full((BIG,), value + n) for n in range(layers)}


def state(step: int, *, frozen: float = 0.0) -> dict[str, Any]:
    """Return what to save: a model that trains beside a frozen optimizer and frozen weights."""
    return {
        "model": weights(float(step)),
        "optimizer": {"state": {0: weights(frozen)}, "param_groups": []},
        "state": {"base": weights(frozen + 1)},
        "config": {"layers": 1},
        "step": step,
    }


def keeping(url: Any, options: Any = None, *, last: int | None = None) -> ckptstore.Store:
    return ckptstore.Store(url, keep=ckptstore.Keep(last=last), storage_options=options)


def is_whole(checkpoint: ckptstore.Checkpoint, step: int, frozen: float = 0.0) -> bool:
    model, base = checkpoint.load_model(), checkpoint.load_state("base")
    moments = checkpoint.load_optimizer()["state"][0]
    return (
        checkpoint.verify().sound
        and set(model["layer0"].tolist()) == {float(step)}
        and set(moments["layer0"].tolist()) == {frozen}
        and set(base["layer0"].tolist()) == {frozen + 1}
    )


# -- stored once ---------------------------------------------------------------------------------


def test_a_file_that_did_not_change_is_another_name_of_the_same_bytes(tmp_path):
    with keeping(tmp_path / "run") as store:
        for step in (1, 2, 3):
            store.save(**state(step))

    folders = [tmp_path / "run" / f"step-0000000{step}" for step in (1, 2, 3)]
    for folder in folders:
        names = {path.name for path in folder.iterdir()}
        assert names >= {"model.pt", "optimizer.pt", "base.pt", "config.json", "manifest.json"}
        assert (folder / "optimizer.pt").stat().st_nlink == 3
        assert (folder / "base.pt").stat().st_nlink == 3
        assert (folder / "model.pt").stat().st_nlink == 1
    files = {s.st_ino: s.st_blocks * 512 for f in folders for s in map(_status, f.iterdir())}
    assert sum(files.values()) < 5 * 6_100_000, "three models, one optimizer, one base"
    assert torch.load(folders[2] / "base.pt", weights_only=True)["layer0"][0] == 1.0


def _status(path: Any) -> Any:
    return path.stat()


def test_the_steps_are_whole_and_what_they_took_is_told(location):
    url, options = location
    with keeping(url, options) as store:
        first = store.save(**state(1))
        second = store.save(**state(2))

    assert first.stored.spared == ()
    assert first.stored.written_bytes > 18_000_000
    assert second.stored.spared == ("optimizer.pt", "base.pt")
    assert second.stored.written == ("config.json", "training_state.json", "model.pt")
    assert 6_000_000 < second.stored.written_bytes < 6_100_000
    assert 12_000_000 < second.stored.spared_bytes < 12_100_000
    assert set(connect(url, options).list("step-00000002").files) == {
        *("config.json", "training_state.json", "model.pt", "optimizer.pt", "base.pt"),
        "manifest.json",
    }
    for step in (1, 2):
        opened = ckptstore.open(url, step=step, storage_options=options)
        assert is_whole(opened, step)
        assert opened.stored is None


def test_a_store_that_was_just_opened_goes_on_from_the_newest_step(location):
    url, options = location
    for step in (1, 2):
        with keeping(url, options) as store:
            saved = store.save(**state(step))

    assert saved.stored.spared == ("optimizer.pt", "base.pt")
    assert is_whole(saved, 2)


def test_the_bytes_that_go_to_a_bucket_are_those_that_changed(moto_server):
    with S3Proxy(moto_server.endpoint, moto_server.storage_options) as proxy:
        with keeping(moto_server.url("run"), proxy.storage_options) as store:
            store.save(**state(1))
            before = _asked(proxy, store)
            saved = store.save(**state(2))
        sent = _sent(proxy.requests[before:])

    assert sent < saved.stored.written_bytes + 20_000, "the manifest and requests, nothing else"
    assert saved.stored.written_bytes < 6_100_000, "the model changed"
    assert saved.stored.spared == ("optimizer.pt", "base.pt")


def test_frozen_layers_inside_a_file_that_changes_are_not_sent_to_a_bucket(moto_server):
    def layered(step: int) -> dict[str, torch.Tensor]:
        model = weights(0.0, layers=8)
        model["layer7"].fill_(float(step))
        return model

    with S3Proxy(moto_server.endpoint, moto_server.storage_options) as proxy:
        with keeping(moto_server.url("run"), proxy.storage_options) as store:
            store.save(model=layered(1), step=1)
            before = _asked(proxy, store)
            saved = store.save(model=layered(2), step=2)
        sent = _sent(proxy.requests[before:])

        assert saved.verify().sound
        assert torch.equal(saved.load_model()["layer7"], layered(2)["layer7"])

    assert saved.stored.written == ("training_state.json", "model.pt")
    assert saved.stored.spared_bytes > 0.8 * 48_000_000
    assert saved.stored.written_bytes <= sent < 0.2 * 48_000_000


def _asked(proxy: S3Proxy, store: ckptstore.Store) -> int:
    """Return how many requests there were until it was asked, once, what the service can copy."""
    assert connect(store.location, proxy.storage_options).composes()
    return len(proxy.requests)


def _sent(requests: list[tuple[str, str, dict[str, str]]]) -> int:
    """Return how many bytes the bodies of requests have."""
    sizes = []
    for method, _, headers in requests:
        if method in ("PUT", "POST"):
            lower = {name.lower(): value for name, value in headers.items()}
            sizes.append(int(lower.get("content-length", 0)))
    return sum(sizes)


# -- in the background, and in the log -------------------------------------------------------------


@pytest.mark.parametrize("apart", [False, True], ids=["thread", "process"])
def test_a_save_in_the_background_takes_over_what_did_not_change(tmp_path, monkeypatch, apart):
    if apart and sys.platform != "linux":
        pytest.skip("only Linux has such processes")
    monkeypatch.setattr(running, "_WORTH_A_PROCESS", 0 if apart else 2**60)
    with keeping(tmp_path / "one") as store:
        store.save(**state(1))
        second = store.save_async(**state(2)).result()
        third = store.save_async(**state(3)).result()
        assert (store._background._process._running is not None) == apart
    with keeping(tmp_path / "one") as store:
        fourth = store.save_async(**state(4)).result()

    for step, saved in ((2, second), (3, third), (4, fourth)):
        assert saved.stored.spared == ("optimizer.pt", "base.pt")
        assert saved.stored.written_bytes < 6_100_000
        assert is_whole(saved, step)


def test_what_a_save_took_is_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="ckptstore")
    with keeping(tmp_path / "run") as store:
        store.save(**state(1))
        store.save(**state(2))

    assert re.search(r"committed step 2 of .*: 6 MB written, 12 MB were there already", caplog.text)


def test_the_same_step_once_more_takes_nothing(tmp_path):
    with keeping(tmp_path / "run") as store:
        first = store.save(**state(1))
        again = store.save(**state(1))

    assert (again.stored.written, again.stored.written_bytes) == ((), 0)
    assert again.stored.spared_bytes == first.stored.written_bytes


def test_a_single_checkpoint_tells_it_too(tmp_path):
    ckptstore.save(tmp_path / "x", **state(1))
    saved = ckptstore.save(tmp_path / "x", **state(2))

    assert saved.stored.spared == ("optimizer.pt", "base.pt")
    assert ckptstore.open(tmp_path / "x").stored is None


def test_a_copied_history_shares_as_the_first_one_does(tmp_path):
    with keeping(tmp_path / "run") as store:
        for step in (1, 2, 3):
            store.save(**state(step))

    done = list(ckptstore.sync_steps(tmp_path / "run", tmp_path / "copy"))

    assert [{*transfer.spared} for transfer in done[1:]] == [{"base.pt", "optimizer.pt"}] * 2
    for step in (1, 2, 3):
        folder = tmp_path / "copy" / f"step-0000000{step}"
        assert (folder / "optimizer.pt").stat().st_nlink == 3
        assert is_whole(ckptstore.open(tmp_path / "copy", step=step), step)


# -- what the forerunner may have become -----------------------------------------------------------


def test_a_damaged_forerunner_is_not_taken_over(tmp_path):
    with keeping(tmp_path / "run") as store:
        store.save(**state(1))
        with (tmp_path / "run" / "step-00000001" / "base.pt").open("r+b") as file:
            file.seek(3_000_000)
            file.write(b"damage")

        saved = store.save(**state(2))

    assert saved.stored.spared == ("optimizer.pt",)
    assert is_whole(saved, 2)


def test_an_overwritten_step_keeps_what_it_shares_with_itself(tmp_path):
    with keeping(tmp_path / "run") as store:
        store.save(**state(1))
        saved = store.save(**{**state(2), "step": 1}, overwrite=True)

    assert saved.stored.spared == ("optimizer.pt", "base.pt")
    assert is_whole(saved, 2)
    assert len(list((tmp_path / "run" / "step-00000001").iterdir())) == 6


def test_after_going_back_the_step_that_is_left_is_the_forerunner(tmp_path):
    with keeping(tmp_path / "run") as store:
        for step in (1, 2, 3):
            store.save(**state(step))
        store.rewind(1)
        saved = store.save(**state(2, frozen=0.0))

    assert saved.stored.spared == ("optimizer.pt", "base.pt")
    assert store.steps() == (1, 2)
    assert is_whole(saved, 2)


@pytest.mark.parametrize(
    ("kind", "again"),
    [("local", False), ("local", True), ("memory", True), ("moto", True)],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_forerunner_that_goes_meanwhile_costs_time_and_nothing_else(
    kind, again, when, request, tmp_path
):
    """Another process removes it, and saves that step again with other content of the same size."""
    url, options = str(tmp_path / "run"), None
    if kind == "memory":
        url = request.getfixturevalue("memory_url")
    if kind == "moto":
        server = request.getfixturevalue("moto_server")
        url, options = server.url("run"), server.storage_options
    keeping(url, options).save(**state(1))
    other = keeping(url, options)
    done = []

    def meanwhile(operation: Any, act: Any) -> Any:
        def remove() -> None:
            done.append(operation)
            other.remove(1)
            if again:
                other.save(**state(1, frozen=5.0))

        ours = operation.name == "copy" and operation.path.startswith("step-00000002")
        if not ours or done:
            return act()
        if when == "before":
            remove()
            return act()
        found = act()
        remove()
        return found

    with inject(meanwhile):
        saved = keeping(url, options).save(**state(2))

    assert len(done) == 1
    assert is_whole(saved, 2)
    assert is_whole(ckptstore.open(url, step=2, storage_options=options), 2)
    if again:
        assert is_whole(ckptstore.open(url, step=1, storage_options=options), 1, frozen=5.0)


def test_a_rival_that_has_the_plain_name_keeps_it(tmp_path):
    with keeping(tmp_path / "run") as store:
        store.save(**state(1))
    beside = connect(tmp_path / "run")
    linked = []

    def before(operation: Any, act: Any) -> Any:
        if operation.name == "copy" and operation.path == "step-00000002/optimizer.pt":
            linked.append(operation)
            beside.copy("step-00000001/optimizer.pt", "step-00000002/optimizer.pt", only_new=True)
        return act()

    with inject(before):
        saved = keeping(tmp_path / "run").save(**state(2))

    folder = tmp_path / "run" / "step-00000002"
    assert len(linked) == 1
    assert (folder / "optimizer.pt").stat().st_nlink == 3, (
        "the rival's, and the saved one beside it"
    )
    assert is_whole(saved, 2)
    assert saved.stored.spared == ("optimizer.pt", "base.pt")


def test_a_save_that_loses_leaves_what_its_rival_linked(tmp_path):
    with keeping(tmp_path / "run") as store:
        store.save(**state(1))

    def before(operation: Any, act: Any) -> Any:
        if operation.name == "create" and operation.path == "step-00000002/manifest.json":
            keeping(tmp_path / "run").save(**state(2), metrics={"loss": 1.0})
        return act()

    with inject(before):
        loser = keeping(tmp_path / "run")
    with pytest.raises(ckptstore.ConflictError, match="step 2"):
        loser.save(**state(2))

    assert is_whole(ckptstore.open(tmp_path / "run", step=2), 2)


def test_what_killed_saves_linked_is_cleaned_up_at_once(tmp_path):
    """Each removal of a name changes the time of all other names of the same bytes."""
    with keeping(tmp_path / "run") as store:
        store.save(**state(1))
    for step in (2, 3, 4):
        with (
            inject(Crash(asked("create", f"step-0000000{step}/manifest.json"))),
            pytest.raises(Killed),
        ):
            keeping(tmp_path / "run").save(**state(step))

    repair(connect(tmp_path / "run"), older_than=-1.0)

    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step-00000001"]
    assert is_whole(ckptstore.open(tmp_path / "run"), 1)
