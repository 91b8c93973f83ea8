"""What thousands of steps cost: pages of one listing and a few manifests, never one of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from benchmarks.speed.counting import Counting
from ckptstore import Keep
from ckptstore.commit.layout import step_folder
from ckptstore.manifest import MANIFEST
from ckptstore.storage import connect
from ckptstore.testing import Nothing, Seen, inject

MODEL = {"w": torch.ones(2)}
LOCAL, BUCKET = 10_000, 2_000
PAGE = 1_000
SAVE = 16
"""What a save takes by itself, and a removal, at the most."""


def manifests(count: int, url: str) -> Iterator[tuple[str, bytes]]:
    """Give the folder and the manifest of each of many steps, all made of one that was saved."""
    with ckptstore.Store(url, keep=Keep()) as store:
        store.save(model=MODEL, step=1, metrics={"val_loss": 1.0})
    one = json.loads(connect(url).read(f"{step_folder(1)}/{MANIFEST}"))
    del one["sha256"]  # The first release wrote none, and so need this not for each.
    text = json.dumps(one)
    for step in range(1, count + 1):
        own = {'"step": 1,': f'"step": {step},', '"val_loss": 1.0': f'"val_loss": {1 / step}'}
        each = text
        for old, new in own.items():
            assert old in text
            each = each.replace(old, new)
        yield step_folder(step), each.encode()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a history of ten thousand steps, as far as anybody looks at them."""
    root = tmp_path_factory.mktemp("many")
    for folder, data in manifests(LOCAL, "memory://many-on-disk"):
        (root / folder).mkdir()
        (root / folder / MANIFEST).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[str, dict[str, Any]]]:
    """Give a URL of two thousand steps of two files in S3, put there without requests."""
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    backend = s3_backends["123456789012"]["aws"]
    try:
        backend.create_bucket("many-steps", "us-east-1")
        for folder, data in manifests(BUCKET, "memory://many-in-s3"):
            backend.put_object("many-steps", f"run/{folder}/{MANIFEST}", data)
            backend.put_object("many-steps", f"run/{folder}/model.pt", b"")
        host, port = server.get_host_and_port()
        yield (
            "s3://many-steps/run",
            {
                "key": "key",
                "secret": "secret",
                "endpoint_url": f"http://{host}:{port}",
                "client_kwargs": {"region_name": "us-east-1"},
            },
        )
    finally:
        backend.reset()
        server.stop()


def newest(location: Any, **options: Any) -> int:
    manifest = ckptstore.open(location, **options).source.manifest
    assert manifest is not None
    assert manifest.step is not None
    return manifest.step


def counts(seen: Seen, name: str, of: str = "") -> int:
    return sum(op.name == name and op.path.endswith(of) for op in seen.operations)


def test_on_a_disk_the_newest_is_found_by_one_manifest(disk):
    with inject(Nothing()) as seen:
        assert newest(disk) >= LOCAL

    assert counts(seen, "read") == 1
    assert counts(seen, "list") == 2
    assert len(seen.operations) < 8


def test_on_a_disk_the_steps_are_told_without_a_manifest(disk):
    with inject(Nothing()) as seen:
        store = ckptstore.Store(disk)
        assert len(store.steps()) >= LOCAL
        assert store.pinned() == ()

    assert counts(seen, "read") == 0
    assert len(seen.operations) == 2


def test_on_a_disk_a_save_reads_what_counts_and_what_goes(disk):
    with inject(Nothing()) as seen:
        there = ckptstore.Store(disk).steps()
        store = ckptstore.Store(disk, keep=Keep(last=len(there)), durable=False)
        store.save(model=MODEL, step=LOCAL + 1)
        first = len(seen.operations)
        store.save(model=MODEL, step=LOCAL + 2)

    assert [*there[2:]] == [step for step in store.steps() if step in there]
    assert first < LOCAL + 50, "with last=10,000 these are what counts, and each is read once"
    assert len(seen.operations) - first < 50


def test_on_a_disk_a_save_by_the_metric_reads_each_manifest_once(disk):
    with inject(Nothing()) as seen:
        store = ckptstore.Store(disk, keep=Keep(every=1, best="val_loss"), durable=False)
        store.save(model=MODEL, step=LOCAL + 11, metrics={"val_loss": 1.0})
        first = counts(seen, "read", MANIFEST)
        store.save(model=MODEL, step=LOCAL + 12, metrics={"val_loss": 1.0})

    assert LOCAL <= first < LOCAL + 10
    assert counts(seen, "read", MANIFEST) - first < 10


def pages(files: int) -> int:
    """Return the most pages of a listing of so many names, and of a few that tests have added."""
    return -(-(files + 20) // PAGE)


def test_in_a_bucket_the_newest_costs_the_pages_of_its_folders_and_one_manifest(bucket):
    url, options = bucket
    with Counting(options["endpoint_url"]) as counting:
        own = {**options, "endpoint_url": counting.url}

        assert newest(url, storage_options=own) >= BUCKET

        assert counting.requests <= pages(BUCKET) + 1


def test_in_a_bucket_the_steps_cost_the_pages_of_one_listing(bucket):
    url, options = bucket
    with Counting(options["endpoint_url"]) as counting:
        own = {**options, "endpoint_url": counting.url}

        assert len(ckptstore.Store(url, storage_options=own).steps()) >= BUCKET

        assert counting.requests <= pages(2 * BUCKET) + pages(BUCKET)


def test_in_a_bucket_retention_costs_pages_and_then_those_of_the_folders_alone(bucket):
    url, options = bucket
    with Counting(options["endpoint_url"]) as counting:
        own = {**options, "endpoint_url": counting.url}
        store = ckptstore.Store(url, keep=Keep(last=3, every=1), storage_options=own)
        store.save(model=MODEL, step=BUCKET + 1)
        first = counting.requests
        store.save(model=MODEL, step=BUCKET + 2)
        second = counting.requests - first

    assert first <= pages(2 * BUCKET) + pages(BUCKET) + 3 + SAVE
    assert second <= pages(BUCKET) + 3 + SAVE
