"""``ls``: for people, and as JSON for programs; what cannot be read is a row like any other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import ckptstore
from ckptstore.testing import S3Proxy

Run = Callable[..., Result]
Save = Callable[..., None]


def rows(run: Run, location: object, *options: object) -> list[dict[str, Any]]:
    """Return what ``ls --json`` lists."""
    result = run("ls", location, "--json", *options)
    assert result.exit_code == 0, result.stderr
    listed: list[dict[str, Any]] = json.loads(result.stdout)
    return listed


def history(location: object, losses: dict[int, dict[str, float]], **options: Any) -> None:
    """Save a step for each entry, with its metrics."""
    import torch

    with ckptstore.Store(str(location), keep=ckptstore.Keep(), **options) as store:
        for step, metrics in losses.items():
            store.save(model={"w": torch.ones(2)}, step=step, metrics=metrics)


def break_manifest(folder: Path) -> None:
    """Flip a letter of a manifest."""
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"writer": "ckptstore', '"writer": "ckptstars'))


# -- one location -------------------------------------------------------------------------


def test_ls_of_a_single_checkpoint_shows_its_state(run: Run, dante: Path) -> None:
    (row,) = rows(run, dante)

    assert list(row) == [
        "location",
        "format",
        "generation",
        "step",
        "created",
        "nbytes",
        "proved",
        "error",
        "metrics",
        "newest",
        "steps",
        "pinned",
    ]
    assert (row["location"], row["format"]) == (str(dante), "bundle")
    assert (row["generation"], row["step"], row["proved"], row["error"]) == (1, 100, True, None)
    assert row["nbytes"] > 0


def test_ls_of_a_history_shows_every_step(run: Run, tmp_path: Path, save_history: Save) -> None:
    save_history(tmp_path / "h", 500, 1000, 1500)

    assert [row["step"] for row in rows(run, tmp_path / "h")] == [500, 1000, 1500]


def test_ls_of_a_folder_shows_the_checkpoints_below_it(
    run: Run, dante: Path, save: Save, save_legacy: Save
) -> None:
    folder = dante.parent
    save(folder / "beatrice", step=3)
    save_legacy(folder / "virgil" / "latest.pt")
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_text("not a checkpoint")
    (folder / "broken").mkdir()
    (folder / "broken" / "latest.pt").write_bytes(b"not a zip at all")

    listed = {Path(row["location"]).name: row for row in rows(run, folder)}

    assert list(listed) == ["beatrice", "broken", "dante", "virgil"]
    assert listed["beatrice"]["step"] == 3
    assert listed["virgil"]["format"] == "legacy"
    assert listed["broken"]["error"]
    text = run("ls", folder).stdout
    assert len({line.index("step") for line in text.splitlines() if "step" in line[:60]}) <= 1
    assert "not verified" in text


def test_ls_of_an_empty_folder_finds_nothing(run: Run, tmp_path: Path) -> None:
    result = run("ls", tmp_path)

    assert result.exit_code == 3
    assert result.stdout == ""


def test_ls_of_a_history_has_columns_for_what_was_measured_and_marks_the_newest(
    run: Run, tmp_path: Path
) -> None:
    history(tmp_path / "h", {500: {"val_loss": 2.5}, 1000: {"val_loss": 1.25, "bleu": 0.5}})

    text = run("ls", tmp_path / "h").stdout.splitlines()

    assert text[0] == str(tmp_path / "h")
    heads, first, second = (line.split() for line in text[1:])
    assert heads == ["step", "format", "saved", "size", "val_loss", "bleu"]
    assert (first[0], first[-1], second[0], second[-3:]) == (
        "500",
        "2.5",
        "1000",
        ["1.25", "0.5", "newest"],
    )
    listed = rows(run, tmp_path / "h")
    assert [row["metrics"] for row in listed] == [
        {"val_loss": 2.5},
        {"val_loss": 1.25, "bleu": 0.5},
    ]
    assert [row["newest"] for row in listed] == [False, True]


def test_ls_tells_the_age_of_what_is_older_than_a_minute(run: Run, tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "guarantees" / "format_1"

    text = run("ls", golden).stdout

    assert re.search(r"\d+ days? ago", text)


@pytest.mark.parametrize("columns", [40, 200])
def test_ls_leaves_out_columns_before_it_wraps(run: Run, columns: int) -> None:
    golden = Path(__file__).parents[1] / "guarantees" / "format_1"

    lines = run("ls", golden, env={"COLUMNS": str(columns)}).stdout.splitlines()

    assert ("saved" in lines[0].split()) == (columns == 200)
    assert {"step", "age", "size"} < {*lines[0].split()}


def test_ls_last_lists_the_highest_steps(run: Run, tmp_path: Path, save_history: Save) -> None:
    save_history(tmp_path / "h", 500, 1000, 1500)

    assert [row["step"] for row in rows(run, tmp_path / "h", "--last", 2)] == [1000, 1500]
    assert [row["step"] for row in rows(run, tmp_path / "h", "--last", 9)] == [500, 1000, 1500]
    assert run("ls", tmp_path / "h", "--last", 0).exit_code == 2


def test_ls_steps_prints_the_numbers_and_nothing_else(
    run: Run, tmp_path: Path, save_history: Save, dante: Path
) -> None:
    save_history(tmp_path / "h", 500, 1000, 1500)

    assert run("ls", tmp_path / "h", "--steps").stdout == "500\n1000\n1500\n"
    assert run("ls", tmp_path / "h", "--steps", "--last", 1).stdout == "1500\n"
    assert rows(run, tmp_path / "h", "--steps") == [500, 1000, 1500]
    single = run("ls", dante, "--steps")
    assert single.exit_code == 3
    assert "it is no history; ckptstore ls" in single.stderr


def test_a_step_whose_manifest_is_damaged_is_listed_as_such(
    run: Run, tmp_path: Path, save_history: Save
) -> None:
    save_history(tmp_path / "h", 500, 1000, 1500)
    for step in (500, 1500):
        break_manifest(tmp_path / "h" / f"step-{step:08d}")

    listed = rows(run, tmp_path / "h")

    assert [row["step"] for row in listed] == [500, 1000, 1500]
    assert [row["error"] is None for row in listed] == [False, True, False]
    assert "manifest.json" in listed[0]["error"]
    assert [row["newest"] for row in listed] == [False, False, True]
    assert "is damaged" in run("ls", tmp_path / "h").stdout


def test_ls_of_a_history_with_nothing_that_can_be_read_is_that_error(
    run: Run, tmp_path: Path, save_history: Save
) -> None:
    save_history(tmp_path / "h", 500)
    break_manifest(tmp_path / "h" / "step-00000500")

    result = run("ls", tmp_path / "h")

    assert result.exit_code == 4
    assert result.stderr.startswith("error: ")


def test_a_single_checkpoint_beside_steps_is_listed_and_the_higher_step_is_the_newest(
    run: Run, tmp_path: Path, save: Save, save_history: Save
) -> None:
    for name, single in (("lower", 700), ("higher", 1700)):
        save(tmp_path / name, step=single)
        save_history(tmp_path / name, 500, 1000)

    lower, higher = rows(run, tmp_path / "lower"), rows(run, tmp_path / "higher")

    assert [(row["step"], row["generation"], row["newest"]) for row in lower] == [
        (500, None, False),
        (1000, None, True),
        (700, 1, False),
    ]
    assert [row["newest"] for row in higher] == [False, False, True]
    assert higher[2]["step"] == 1700


def test_a_listing_reads_each_manifest_once_and_no_weights(run: Run, moto_server: Any) -> None:
    url, options = moto_server.url("steps"), moto_server.storage_options
    history(url, {step: {} for step in range(1, 41)}, storage_options=options)

    with S3Proxy(moto_server.endpoint, options) as proxy:
        given = [f"--storage-option={key}={value}" for key, value in proxy.storage_options.items()]
        listed = rows(run, url, *given)
        of_all = len(proxy.requests)
        last = rows(run, url, "--last", 3, *given)
        of_last = len(proxy.requests) - of_all
        numbers = rows(run, url, "--steps", *given)
        of_numbers = len(proxy.requests) - of_all - of_last

    assert [row["step"] for row in listed] == numbers == list(range(1, 41))
    assert [row["step"] for row in last] == [38, 39, 40]
    assert (of_all, of_last, of_numbers) == (3 + 40, 3 + 3, 1)


def test_a_service_that_fails_ends_the_listing(run: Run, moto_server: Any) -> None:
    url, options = moto_server.url("steps"), moto_server.storage_options
    history(url, {step: {} for step in range(1, 6)}, storage_options=options)

    with S3Proxy(moto_server.endpoint, options) as proxy:
        proxy.harm("GET", "manifest.json", "AccessDenied", times=None)
        given = [f"--storage-option={key}={value}" for key, value in proxy.storage_options.items()]
        result = run("ls", url, *given)

    assert result.exit_code == 1
    assert "access denied" in result.stderr


# -- a folder of locations ----------------------------------------------------------------


def test_ls_of_a_prefix_shows_the_newest_of_each_location_and_how_many_steps_it_has(
    run: Run, s3_server: Any
) -> None:
    import torch

    folder, options = s3_server.url("runs"), s3_server.storage_options
    history(f"{folder}/history", {10: {}, 20: {"val_loss": 1.5}}, storage_options=options)
    ckptstore.save(f"{folder}/single", model={"w": torch.ones(2)}, step=7, storage_options=options)
    given = [f"--storage-option={key}={value}" for key, value in options.items()]

    for written in (folder, f"{folder}/"):
        listed = rows(run, written, *given)

        assert [row["location"] for row in listed] == [f"{folder}/history", f"{folder}/single"]
        assert [(row["step"], row["steps"]) for row in listed] == [(20, 2), (7, None)]
        assert [row["metrics"] for row in listed] == [{"val_loss": 1.5}, {}]
    text = run("ls", folder, *given).stdout
    assert text.splitlines()[0].split()[:3] == ["location", "step", "steps"]


def test_progress_is_a_line_on_a_terminal_that_goes_again(tmp_path: Path) -> None:
    """Every manifest takes a moment: a thousand steps last for longer than a second."""
    script = (
        "import sys, time\n"
        "from ckptstore.testing import inject\n"
        "from ckptstore.cli import main\n"
        "def slow(operation, perform):\n"
        "    time.sleep(0.12 if operation.name == 'read' else 0)\n"
        "    return perform()\n"
        "with inject(slow):\n"
        "    main(['ls', sys.argv[1]])\n"
    )
    history(tmp_path / "h", {step: {} for step in range(1, 21)})
    ours, theirs = os.openpty()

    process = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "h")],
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=False,
        timeout=120,
    )
    said = os.read(ours, 10_000).decode()
    os.close(theirs)
    os.close(ours)

    assert process.returncode == 0
    assert re.search(r"\d+ of 20 read", said)
    assert said.rpartition("read")[2].strip(" \r") == ""
    assert b" of 20" not in process.stdout
