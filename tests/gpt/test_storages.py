"""The whole path on S3, with processes that are killed, and in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from gpt.checkpoint import CheckpointManager
from gpt.data import GPTDataLoader

SIZES = ["--batch_size", "2", "--block_size", "8", "--n_embd", "8", "--n_head", "2"]
SIZES += ["--n_layer", "1", "--eval_iters", "1", "--eval_interval", "5", "--seed", "1"]


def _gpt(*arguments: str, environ: dict[str, str]) -> list[Any]:
    command = [sys.executable, "-u", "-m", "gpt", *arguments]
    return [command, {**os.environ, "OMP_NUM_THREADS": "1", **environ}]


def test_memory_holds_a_checkpoint_like_any_other(
    text: str, make_config: Any, memory_url: str
) -> None:
    manager = CheckpointManager("dante", memory_url)
    model, optimizer, _ = manager.initialize_for_training(make_config(), "char", text)
    loader = GPTDataLoader(model.config, model)
    loader.prepare_data(text)
    model.fit(loader, optimizer, 2, eval_iters=1, checkpoint_dir=manager.checkpoint_dir)

    loaded = CheckpointManager.load_for_inference("dante", memory_url)

    assert manager.exists()
    model.eval()
    assert loaded.generate("Nel", 9, seed=1) == model.generate("Nel", 9, seed=1)
    assert manager.initialize_for_training(make_config(), "char", text)[2] == 2


@pytest.mark.slow
def test_a_run_into_a_bucket_is_killed_and_ends_as_one_that_was_not(
    rclone_server: Any, tmp_path: Path
) -> None:
    base = f"s3://{rclone_server.bucket()}/checkpoints"
    train = ["train", "--model_name", "dante", "--base_dir", base, *SIZES]
    long_run, environ = _gpt(*train, "--max_iters", "100000", environ=rclone_server.environ)
    with subprocess.Popen(long_run, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.endswith("saved\n"))
        process.kill()
    killed_at = ckptstore.open(f"{base}/dante", storage_options=rclone_server.storage_options).step
    assert killed_at is not None
    last = str(killed_at + 7)

    results = []
    for command in (
        [*train, "--max_iters", last],
        ["train", "--model_name", "whole", "--base_dir", "here", *SIZES, "--max_iters", last],
        ["generate", "--model_name", "dante", "--base_dir", base, "--prompt", "Nel mezzo"],
        ["inspect", "--model_name", "dante", "--base_dir", base],
    ):
        run, environ = _gpt(*command, environ=rclone_server.environ)
        results.append(
            subprocess.run(run, env=environ, capture_output=True, text=True, check=False)
        )

    assert [result.returncode for result in results] == [0, 0, 0, 0], results
    assert f"going on at step {killed_at}" in results[0].stdout
    assert results[2].stdout.startswith("Nel mezzo")
    assert f"Last recorded training step: {last}" in results[3].stdout
    options = rclone_server.storage_options
    one = ckptstore.open(f"{base}/dante", storage_options=options).load_model()
    other = ckptstore.open("here/whole").load_model()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_an_absent_bucket_is_an_error_before_any_training(s3_server: Any) -> None:
    train = ["train", "--model_name", "dante", "--base_dir", "s3://no-such-bucket/x", *SIZES]
    run, environ = _gpt(*train, environ=s3_server.environ)

    result = subprocess.run(run, env=environ, capture_output=True, text=True, check=False)

    assert result.returncode == 3, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "no-such-bucket" in result.stderr


def test_a_server_that_is_down_is_one_line(s3_server: Any) -> None:
    environ = {**s3_server.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    generate = ["generate", "--model_name", "dante", "--base_dir", "s3://bucket", "--prompt", "x"]
    run, environ = _gpt(*generate, environ=environ)

    result = subprocess.run(run, env=environ, capture_output=True, text=True, check=False)

    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_wrong_credentials_are_one_line_without_them(rclone_server: Any) -> None:
    environ = {**rclone_server.environ, "AWS_SECRET_ACCESS_KEY": "open-sesame-not"}
    base = f"s3://{rclone_server.bucket()}/x"
    generate = ["generate", "--model_name", "dante", "--base_dir", base, "--prompt", "x"]
    run, environ = _gpt(*generate, environ=environ)

    result = subprocess.run(run, env=environ, capture_output=True, text=True, check=False)

    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "sesame" not in result.stderr
