"""``sync``: what it says, what it leaves, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]
Save = Callable[..., None]
Shell = Callable[..., Any]


def inspected(run: Run, location: object) -> dict[str, Any]:
    """Return what ``inspect --json`` says."""
    document: dict[str, Any] = json.loads(run("inspect", location, "--json").stdout)
    return document


def contents(document: dict[str, Any]) -> dict[str, Any]:
    """Return what two copies of one state have in common."""
    fields = ("format", "step", "config", "tokenizer", "training_state", "files")
    return {field: document[field] for field in fields}


def test_sync_copies_a_checkpoint_and_says_what_it_moved(
    run: Run, dante: Path, tmp_path: Path
) -> None:
    result = run("sync", dante, tmp_path / "copy")

    assert result.exit_code == 0
    assert result.stderr == ""
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"{dante} -> {tmp_path / 'copy'}: copied 5 files (")
    assert line.endswith("step 100")
    assert contents(inspected(run, tmp_path / "copy")) == contents(inspected(run, dante))


def test_sync_of_equal_checkpoints_changes_nothing(run: Run, dante: Path, tmp_path: Path) -> None:
    run("sync", dante, tmp_path / "copy")
    before = inspected(run, tmp_path / "copy")

    result = run("sync", dante, tmp_path / "copy")

    assert result.exit_code == 0
    assert "the same already, spared 5 files (" in result.stdout
    assert inspected(run, tmp_path / "copy") == before


def test_sync_copies_only_what_differs(run: Run, dante: Path, tmp_path: Path, save: Save) -> None:
    run("sync", dante, tmp_path / "copy")
    save(dante, config={"n_embd": 8, "dropout": 0.0})

    result = run("sync", dante, tmp_path / "copy")

    assert "copied 3 files (" in result.stdout
    assert "spared 2 files (" in result.stdout
    assert inspected(run, tmp_path / "copy")["config"] == {"n_embd": 8, "dropout": 0.0}


def test_sync_without_the_optimizer_makes_a_copy_for_inference(
    run: Run, dante: Path, tmp_path: Path
) -> None:
    result = run("sync", "--no-optimizer", dante, tmp_path / "copy")

    assert result.exit_code == 0
    assert inspected(run, tmp_path / "copy")["has_optimizer"] is False
    assert not (tmp_path / "copy" / "optimizer.pt").exists()


def test_a_dry_run_of_sync_does_nothing(run: Run, dante: Path, tmp_path: Path) -> None:
    result = run("sync", "--dry-run", dante, tmp_path / "copy")

    assert "would copy 5 files (" in result.stdout
    assert not (tmp_path / "copy").exists()


def test_sync_carries_a_hand_edit_over_and_says_so(run: Run, dante: Path, tmp_path: Path) -> None:
    config = json.loads((dante / "config.json").read_text())
    (dante / "config.json").write_text(json.dumps({**config, "batch_size": 5}))

    result = run("sync", dante, tmp_path / "copy")

    assert "hand edits of config.json carried over" in result.stdout
    assert inspected(run, tmp_path / "copy")["config"]["batch_size"] == 5


@pytest.mark.parametrize("command", ["sync", "convert"])
def test_quiet_prints_nothing(run: Run, dante: Path, tmp_path: Path, command: str) -> None:
    before = run("--quiet", command, dante, tmp_path / "one")
    after = run(command, dante, tmp_path / "two", "--quiet")

    assert before.output == after.output == ""
    assert inspected(run, tmp_path / "two")["step"] == 100


def test_verbose_says_more_and_on_stderr_only(run: Run, dante: Path, tmp_path: Path) -> None:
    result = run("sync", "-vv", dante, tmp_path / "copy")

    assert len(result.stdout.splitlines()) == 1


def test_a_checkpoint_goes_to_s3_and_back(
    run: Run, shell: Shell, s3_server: Any, dante: Path
) -> None:
    url = s3_server.url()

    there = shell("sync", "checkpoints/dante", url, env=s3_server.environ)
    look = shell("inspect", url, "--json", env=s3_server.environ)
    back = shell("sync", url, "copy", env=s3_server.environ)
    again = shell("sync", "copy", url, env=s3_server.environ)

    for done in (there, look, back, again):
        assert done.returncode == 0, done.stderr
        assert s3_server.secret not in done.stdout + done.stderr
    assert "copied 5 files (" in there.stdout
    assert "copied 5 files (" in back.stdout
    assert "the same already" in again.stdout
    original = inspected(run, dante)
    assert contents(json.loads(look.stdout)) == contents(original)
    copy = dante.parent.parent / "copy"
    assert contents(inspected(run, copy)) == contents(original)
    for name in ("model.pt", "optimizer.pt", "config.json"):
        assert (copy / name).read_bytes() == (dante / name).read_bytes()


def test_storage_options_reach_the_server(run: Run, s3_server: Any, dante: Path) -> None:
    url = s3_server.url()
    options = [
        *("--storage-option", f"key={s3_server.key}"),
        *("--storage-option", f"secret={s3_server.secret}"),
        *("--storage-option", f'client_kwargs={{"endpoint_url": "{s3_server.endpoint}"}}'),
    ]

    there = run("sync", dante, url, *options)
    listed = run("ls", url, "--json", *options)

    assert there.exit_code == 0, there.stderr
    (row,) = json.loads(listed.stdout)
    assert row["step"] == 100
