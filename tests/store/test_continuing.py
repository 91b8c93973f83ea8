"""A copy that was cut off goes on where it was; what it left is nobody's state, and goes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import ckptstore
from ckptstore import storage as storages
from ckptstore.testing import S3Proxy

CHUNK = 8 * 2**20
PROGRAM = """
import json, os, signal, sys
import ckptstore

source, destination, options = sys.argv[1:]


def die(event):
    if event.done >= 0.6 * event.total:
        os.kill(os.getpid(), signal.SIGKILL)


ckptstore.sync(source, destination, storage_options=json.loads(options), progress=die)
"""


def state(seed):
    generator = torch.Generator().manual_seed(seed)
    return {f"layer{n}.weight": torch.randn(500, 1000, generator=generator) for n in range(15)}


def save(folder, seed=0, **changed):
    optimizer = {"state": {0: {"exp_avg": state(seed)}}, "param_groups": []}
    return ckptstore.save(folder, model=state(seed) | changed, optimizer=optimizer, step=seed)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """60 MB."""
    folder = tmp_path_factory.mktemp("source")
    save(folder)
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """72 MB, most of it the optimizer, which comes last."""
    folder = tmp_path_factory.mktemp("large")
    more = {name: value for name, value in state(2).items() if name > "layer4"}
    optimizer = {"state": {0: {"exp_avg": state(0) | {"more": more}}}, "param_groups": []}
    ckptstore.save(folder, model=state(3), optimizer=optimizer, step=3)
    return folder


@pytest.fixture(params=["local", "moto", "rclone"])
def place(request, tmp_path):
    """A location where what was stored outlives the process, and its options."""
    if request.param == "local":
        return str(tmp_path / "copy"), None
    server = request.getfixturevalue(f"{request.param}_server")
    return server.url(), server.storage_options


def size_of(folder):
    return sum(file.stat().st_size for file in folder.glob("*.pt"))


def killed(source, url, options):
    program = [sys.executable, "-c", PROGRAM, str(source), str(url), json.dumps(options)]
    ended = subprocess.run(program, check=False, capture_output=True, timeout=120)
    assert ended.returncode == -9, ended.stderr.decode()


def only_what_is_committed_is_there(url, options):
    place = storages.connect(url, options)
    state = ckptstore.open(url, storage_options=options)._files.state
    listed = {*state.manifest.paths(), "manifest.json"}
    return {*place.list(state.folder).files} == listed and place.unfinished() == ()


def interrupted_at(share, by):
    def progress(event):
        if event.done >= share * event.total:
            raise by

    return progress


def large_ones(share):
    fail = interrupted_at(share, KeyboardInterrupt())
    return lambda event: fail(event) if event.total > 2**20 else None


def test_a_killed_copy_goes_on_and_leaves_nothing(place, large):
    url, options = place
    killed(large, url, options)
    with pytest.raises(ckptstore.NotFoundError):
        ckptstore.open(url, storage_options=options)

    done = ckptstore.sync(large, url, storage_options=options)

    assert done.copied_bytes < 0.45 * size_of(large)
    assert done.copied_bytes + done.spared_bytes > size_of(large)
    assert ckptstore.open(url, storage_options=options).verify().sound
    assert only_what_is_committed_is_there(url, options)
    assert not ckptstore.sync(large, url, storage_options=options).changed


def test_a_killed_copy_from_a_bucket_goes_on(place, large, tmp_path):
    url, options = place
    ckptstore.sync(large, url, storage_options=options)
    killed(url, tmp_path / "back", options)

    done = ckptstore.sync(url, tmp_path / "back", storage_options=options)

    assert done.copied_bytes < 0.45 * size_of(large)
    assert ckptstore.open(tmp_path / "back").verify().sound
    assert only_what_is_committed_is_there(tmp_path / "back", None)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ckptstore.StorageError("the way failed")])
def test_what_fails_on_its_way_is_kept_and_says_so(place, large, error, caplog):
    url, options = place
    with pytest.raises(type(error)):
        ckptstore.sync(large, url, storage_options=options, progress=interrupted_at(0.6, error))

    assert "sync again, and it goes on from there" in caplog.text
    done = ckptstore.sync(large, url, storage_options=options)
    assert done.copied_bytes < 0.5 * size_of(large)
    assert ckptstore.open(url, storage_options=options).verify().sound
    assert only_what_is_committed_is_there(url, options)


def test_what_is_small_is_not_kept(place, tmp_path, caplog):
    url, options = place
    ckptstore.save(tmp_path / "small", model={"w": torch.ones(9)})

    with pytest.raises(KeyboardInterrupt):
        ckptstore.sync(
            tmp_path / "small",
            url,
            storage_options=options,
            progress=interrupted_at(0.1, KeyboardInterrupt()),
        )

    assert caplog.text == ""
    assert storages.connect(url, options).list(".ckptstore/00000001").files == {}


def test_a_damaged_source_leaves_nothing(place, large, tmp_path):
    url, options = place
    ckptstore.sync(large, tmp_path / "damaged")
    with (tmp_path / "damaged" / "optimizer.pt").open("r+b") as file:
        file.seek(35 * 2**20)
        file.write(b"damage")

    with pytest.raises(ckptstore.CorruptionError, match=r"optimizer.pt .* is damaged: chunk 4"):
        ckptstore.sync(tmp_path / "damaged", url, storage_options=options)

    place = storages.connect(url, options)
    assert place.list(".ckptstore/00000001").files == {}
    assert place.unfinished() == ()


def test_what_was_begun_of_another_state_is_not_taken(place, large, tmp_path):
    url, options = place
    killed(large, url, options)
    save(tmp_path / "other", seed=8)

    done = ckptstore.sync(tmp_path / "other", url, storage_options=options)

    assert done.spared_bytes == 0
    assert ckptstore.open(url, storage_options=options).step == 8
    assert ckptstore.open(url, storage_options=options).verify().sound


def test_a_note_that_was_tampered_with_is_worth_nothing(place, large):
    url, options = place
    killed(large, url, options)
    storage, folder = storages.connect(url, options), ".ckptstore/00000001"
    (note,) = [name for name in storage.list(folder).files if name.startswith(".tmp-copy-")]
    said = json.loads(storage.read(f"{folder}/{note}"))
    storage.create("kept.txt", b"mine")
    said["copying"]["model.pt"]["path"] = "../../kept.txt"
    storage.replace(f"{folder}/{note}", json.dumps(said).encode())

    ckptstore.sync(large, url, storage_options=options)

    assert ckptstore.open(url, storage_options=options).verify().sound
    assert storage.read("kept.txt") == b"mine"


def test_a_copy_that_is_overtaken_by_another_knows_it(place, large):
    url, options = place
    overtaking = []

    def overtake(event):
        if event.done >= 0.6 * event.total and not overtaking:
            overtaking.append(ckptstore.sync(large, url, storage_options=options))

    with pytest.raises((ckptstore.ConflictError, ckptstore.StorageError)) as failed:
        ckptstore.sync(large, url, storage_options=options, progress=overtake)

    assert failed.value.committed is not True
    assert overtaking[0].generation == 1
    assert ckptstore.open(url, storage_options=options).verify().sound


def test_a_step_of_a_history_goes_on_too(place, large, tmp_path):
    url, options = place
    checkpoint, history = ckptstore.open(large), tmp_path / "history"
    with ckptstore.Store(history, keep=ckptstore.Keep()) as store:
        store.save(model={"w": torch.ones(9)}, step=1)
        store.save(model=checkpoint.load_model(), optimizer=checkpoint.load_optimizer(), step=2)

    def steps(**options):
        return {done.step: done for done in ckptstore.sync_steps(history, url, **options)}

    with pytest.raises(KeyboardInterrupt):
        steps(storage_options=options, progress=large_ones(0.6))

    done = steps(storage_options=options)

    assert not done[1].changed
    assert done[2].copied_bytes < 0.5 * size_of(large)
    copied = ckptstore.Store(url, storage_options=options).open(2)
    assert copied.verify().sound
    place = storages.connect(url, options)
    listed = {*copied._files.manifest.paths(), "manifest.json"}
    assert {*place.list("step-00000002").files} == listed
    assert place.unfinished() == ()


def test_only_the_chunks_that_changed_are_sent_where_the_service_copies_parts(
    moto_server, tmp_path
):
    url, options = moto_server.url(), moto_server.storage_options
    save(tmp_path / "source")
    ckptstore.sync(tmp_path / "source", url, storage_options=options)
    changed = state(0)["layer7.weight"] + 1
    save(tmp_path / "source", **{"layer7.weight": changed})

    done = ckptstore.sync(tmp_path / "source", url, storage_options=options)

    assert done.copied_bytes <= 3 * CHUNK
    checkpoint = ckptstore.open(url, storage_options=options)
    assert checkpoint.verify().sound
    assert torch.equal(checkpoint.load_model(["layer7.weight"])["layer7.weight"], changed)


def test_inside_one_service_nothing_passes_through_here(s3_server, source):
    url, options = s3_server.url(), s3_server.storage_options
    ckptstore.sync(source, url, storage_options=options)

    done = ckptstore.sync(url, f"{url}-other", storage_options=options)

    assert done.copied_bytes < 1000
    assert done.spared_bytes == size_of(source)
    assert ckptstore.open(f"{url}-other", storage_options=options).verify().sound


def test_inside_one_service_all_is_read_where_it_is_to_be_proved(s3_server, source):
    url, options = s3_server.url(), s3_server.storage_options
    ckptstore.sync(source, url, storage_options=options)

    done = ckptstore.sync(url, f"{url}-other", prove=True, storage_options=options)

    assert done.copied_bytes > size_of(source)
    assert ckptstore.open(f"{url}-other", storage_options=options).verify().sound


@pytest.fixture
def proxy(moto_server):
    with S3Proxy(moto_server.endpoint, moto_server.storage_options) as standing:
        yield standing


def test_a_chunk_that_arrives_damaged_is_fetched_once_more(moto_server, proxy, source, tmp_path):
    url = moto_server.url()
    ckptstore.sync(source, url, storage_options=moto_server.storage_options)
    proxy.harm("GET", "model.", "flip", times=2)

    ckptstore.sync(url, tmp_path / "back", storage_options=proxy.storage_options)

    assert ckptstore.open(tmp_path / "back").verify().sound


def test_a_chunk_that_is_damaged_there_is_no_copy(moto_server, proxy, source, tmp_path):
    url = moto_server.url()
    ckptstore.sync(source, url, storage_options=moto_server.storage_options)
    proxy.harm("GET", "model.", "flip", times=None)

    with pytest.raises(ckptstore.CorruptionError, match="chunk"):
        ckptstore.sync(url, tmp_path / "back", storage_options=proxy.storage_options)

    with pytest.raises(ckptstore.NotFoundError):
        ckptstore.open(tmp_path / "back")
