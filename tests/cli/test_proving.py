"""``verify --all``: every step of a history, a line each, whatever the others are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import ckptstore
from ckptstore.testing import S3Proxy, inject

Run = Callable[..., Result]
Save = Callable[..., None]


def flip(path: Path) -> None:
    """Change a byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.fixture
def steps(tmp_path: Path, save_history: Save) -> Path:
    """Give a history of three steps."""
    save_history(tmp_path / "h", 500, 1000, 1500)
    return tmp_path / "h"


def test_every_step_has_a_line_and_there_is_a_sum(run: Run, steps: Path) -> None:
    result = run("verify", steps, "--all")

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "step 500: sound, proved against its manifest",
        "step 1000: sound, proved against its manifest",
        "step 1500: sound, proved against its manifest",
        f"{steps}: 3 of 3 states sound",
    ]


def test_damage_names_step_file_and_chunk_and_the_others_are_proved_all_the_same(
    run: Run, steps: Path
) -> None:
    flip(steps / "step-00000500" / "model.pt")
    flip(steps / "step-00001000" / "manifest.json")

    person = run("verify", steps, "--all")
    program = run("verify", steps, "--all", "--json")

    assert person.exit_code == program.exit_code == 4
    first, detail, second, third, total = person.stdout.splitlines()
    assert first == "step 500: damaged"
    assert detail.startswith("  model.pt  damaged  ")
    assert "chunk 0" in detail
    assert second.startswith("step 1000: damaged: step-00001000/manifest.json in ")
    assert third == "step 1500: sound, proved against its manifest"
    assert total == f"{steps}: 1 of 3 states sound; damaged: step 500, step 1000"
    document = json.loads(program.stdout)
    assert (document["location"], document["sound"]) == (str(steps), False)
    assert [state["called"] for state in document["states"]] == [
        "step 500",
        "step 1000",
        "step 1500",
    ]
    assert [state["error"] is None for state in document["states"]] == [True, False, True]
    assert document["states"][0]["report"]["sound"] is False
    assert document["states"][1]["report"] is None
    assert document["states"][2]["report"]["sound"] is True


def test_a_sample_reads_of_every_step(run: Run, steps: Path) -> None:
    result = run("verify", steps, "--all", "--sample", "5%", "--seed", 7)

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    assert all("--seed 7 reads the same" in line for line in lines[:3])


def test_a_single_checkpoint_beside_steps_is_proved_too(
    run: Run, dante: Path, save_history: Save
) -> None:
    save_history(dante, 500)
    flip(next((dante / ".ckptstore" / "00000001").glob("optimizer.*.pt")))

    result = run("verify", dante, "--all")

    assert result.exit_code == 4
    lines = result.stdout.splitlines()
    assert lines[0] == "step 500: sound, proved against its manifest"
    assert lines[1] == "generation 1: damaged"
    assert lines[-1] == f"{dante}: 1 of 2 states sound; damaged: generation 1"


def test_what_is_no_history_is_one_state(run: Run, dante: Path, legacy: Path) -> None:
    single = run("verify", dante, "--all")
    plain = run("verify", legacy, "--all")

    assert single.stdout.splitlines() == [
        "generation 1: sound, proved against its manifest",
        f"{dante}: 1 of 1 state sound",
    ]
    assert plain.exit_code == 0
    assert plain.stdout.startswith("plain files: not verified")


def test_a_step_that_goes_meanwhile_is_left_out(run: Run, steps: Path) -> None:
    store = ckptstore.Store(str(steps))

    def removing(operation: Any, perform: Callable[..., Any]) -> Any:
        found = perform()
        if operation.name == "holding" and (steps / "step-00000500").exists():
            store.remove(500)
        return found

    with inject(removing):
        result = run("verify", steps, "--all")

    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith("step 1000: sound")
    assert result.stdout.splitlines()[-1] == f"{steps}: 2 of 2 states sound"


def test_a_service_that_fails_ends_it(run: Run, moto_server: Any) -> None:
    import torch

    url, options = moto_server.url("steps"), moto_server.storage_options
    with ckptstore.Store(url, keep=ckptstore.Keep(), storage_options=options) as store:
        for step in (1, 2):
            store.save(model={"w": torch.ones(2)}, step=step)

    with S3Proxy(moto_server.endpoint, options) as proxy:
        proxy.harm("GET", "model.pt", "AccessDenied", times=None)
        given = [f"--storage-option={key}={value}" for key, value in proxy.storage_options.items()]
        result = run("verify", url, "--all", *given)

    assert result.exit_code == 1
    assert "access denied" in result.stderr


def test_all_and_a_step_exclude_each_other(run: Run, steps: Path) -> None:
    result = run("verify", steps, "--all", "--step", 500)

    assert result.exit_code == 2
    assert "exclude each other" in result.stderr
