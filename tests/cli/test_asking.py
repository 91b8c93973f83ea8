"""What ``inspect`` asks of a bucket: a few answers and a few bytes, however large the file is."""

from __future__ import annotations

import pytest
import torch

import ckptstore
from benchmarks.speed.counting import Counting

LAYERS, WIDTH = 100, 64  # Four tensors each, and three times as many of the optimizer.
TENSORS = 4 * LAYERS * 4
REQUESTS, BYTES, OF_EACH = 6, 256_000, 200


@pytest.fixture(scope="module")
def trained():
    """A model of 400 tensors, and its AdamW after a step."""
    blocks = [
        torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.LayerNorm(WIDTH))
        for _ in range(LAYERS)
    ]
    model = torch.nn.Sequential(*blocks)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(WIDTH)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture(params=["moto", "rclone"])
def server(request):
    return request.getfixturevalue(f"{request.param}_server")


def asked(server, run, url, *options):
    """Run inspect by way of a proxy; return what it said, and requests and bytes."""
    with Counting(server.endpoint) as counting:
        given = {**server.storage_options, "endpoint_url": counting.url}
        pairs = [f"{key}={value}" for key, value in given.items() if isinstance(value, str)]
        result = run("inspect", url, *options, *(f"--storage-option={pair}" for pair in pairs))
        assert result.exit_code == 0, result.stderr
        return result.stdout, counting.requests, counting.received


@pytest.mark.parametrize("options", [(), ("--json",), ("--tensors",)])
def test_a_bundle(server, run, trained, options):
    model, optimizer = trained
    url = server.url("dante")
    ckptstore.save(
        url,
        model=model,
        optimizer=optimizer,
        config={"n": 1},
        step=3,
        storage_options=server.storage_options,
    )

    said, requests, received = asked(server, run, url, *options)

    assert "AdamW" in said
    assert requests <= REQUESTS
    assert received <= BYTES + OF_EACH * TENSORS


def test_a_step_of_a_history(server, run, trained):
    model, optimizer = trained
    url, options = server.url("steps"), server.storage_options
    with ckptstore.Store(url, keep=ckptstore.Keep(), storage_options=options) as store:
        for step in (1, 2, 3):
            store.save(model=model, optimizer=optimizer, step=step)

    for options in ((), ("--json",), ("--step", 2)):
        said, requests, received = asked(server, run, url, *options)

        assert "AdamW" in said
        assert "3 steps, 1 to 3" in said or '"count": 3' in said
        assert requests <= REQUESTS
        assert received <= BYTES + OF_EACH * TENSORS


def test_a_legacy_file(server, run, trained, tmp_path):
    import fsspec

    model, optimizer = trained
    whole = {"model_state_dict": model.state_dict(), "config": {}, "tokenizer": None, "step": 3}
    torch.save({**whole, "optimizer_state_dict": optimizer.state_dict()}, tmp_path / "latest.pt")
    url = server.url("old")
    files = fsspec.filesystem("s3", **server.storage_options)
    files.put_file(str(tmp_path / "latest.pt"), f"{url}/latest.pt")

    said, requests, received = asked(server, run, url)

    assert "AdamW" in said
    assert "legacy" in said
    assert requests <= REQUESTS
    assert received <= BYTES + OF_EACH * TENSORS
