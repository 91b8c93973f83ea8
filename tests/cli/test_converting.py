"""``convert``: what it says, what it leaves, and how it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

Run = Callable[..., Result]
Save = Callable[..., None]
Shell = Callable[..., Any]


def inspected(run: Run, location: object) -> dict[str, Any]:
    """Return what ``inspect --json`` says."""
    document: dict[str, Any] = json.loads(run("inspect", location, "--json").stdout)
    return document


def below(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_convert_puts_the_bundle_beside_the_old_file(run: Run, legacy: Path) -> None:
    old = sha256((legacy / "latest.pt").read_bytes()).hexdigest()

    result = run("convert", legacy)

    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
    assert "wrote 5 files (" in result.stdout
    document = inspected(run, legacy)
    assert (document["format"], document["step"]) == ("bundle", 7)
    assert sha256((legacy / "latest.pt").read_bytes()).hexdigest() == old


def test_convert_of_a_single_file_to_a_destination(run: Run, legacy: Path, tmp_path: Path) -> None:
    result = run("convert", legacy / "latest.pt", tmp_path / "new")

    assert result.exit_code == 0, result.stderr
    assert inspected(run, tmp_path / "new")["format"] == "bundle"
    assert sorted(path.name for path in legacy.iterdir()) == ["latest.pt"]


def test_convert_refuses_a_destination_that_differs(run: Run, legacy: Path, dante: Path) -> None:
    refused = run("convert", legacy, dante)
    assert refused.exit_code == 6
    assert "--overwrite" in refused.stderr or "overwrite" in refused.stderr
    assert inspected(run, dante)["step"] == 100

    allowed = run("convert", legacy, dante, "--overwrite")
    assert allowed.exit_code == 0, allowed.stderr
    assert inspected(run, dante)["step"] == 7


def test_a_dry_run_of_convert_does_nothing(run: Run, legacy: Path) -> None:
    result = run("convert", legacy, "--dry-run")

    assert "would write 5 files (" in result.stdout
    assert sorted(path.name for path in legacy.iterdir()) == ["latest.pt"]


def test_convert_to_an_unknown_format_names_those_that_there_are(run: Run, legacy: Path) -> None:
    result = run("convert", legacy, "--to", "bundel")

    assert result.exit_code == 1
    assert result.stderr.rstrip().endswith("; did you mean 'bundle'?")


def test_convert_all_goes_on_after_a_failure_and_exits_with_the_worst_code(
    run: Run, legacy: Path, tmp_path: Path, save_legacy: Save, save: Save
) -> None:
    old = legacy.parent
    save_legacy(old / "deep" / "er" / "final.pt", step=9)
    save(old / "new")
    (old / "notes").mkdir()
    (old / "notes" / "readme.txt").write_text("nothing to convert")
    (old / "broken").mkdir()
    (old / "broken" / "latest.pt").write_bytes((legacy / "latest.pt").read_bytes()[:900])

    result = run("convert", "--all", old)

    assert result.exit_code == 4
    assert len(result.stdout.splitlines()) == 2
    (error,) = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert str(old / "broken") in error
    assert inspected(run, legacy)["format"] == "bundle"
    assert inspected(run, old / "deep" / "er")["step"] == 9
    assert inspected(run, old / "new")["generation"] == 1


def test_convert_all_a_second_time_finds_nothing(run: Run, legacy: Path) -> None:
    run("convert", "--all", legacy.parent)

    result = run("convert", "--all", legacy.parent)

    assert result.exit_code == 0
    assert "there is no legacy checkpoint to convert" in result.stdout


def test_convert_all_ends_though_a_link_leads_back_up(run: Run, legacy: Path) -> None:
    (legacy / "loop").symlink_to(legacy.parent, target_is_directory=True)

    result = run("convert", "--all", legacy.parent, "--dry-run")

    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1


def test_convert_all_takes_the_one_legacy_file_of_another_name(
    run: Run, tmp_path: Path, save_legacy: Save
) -> None:
    save_legacy(tmp_path / "dante" / "dante-final.pt", step=9)
    torch.save({"w": torch.ones(2)}, tmp_path / "dante" / "weights.pt")
    torch.save([torch.ones(2)], tmp_path / "dante" / "data.pt")

    result = run("convert", "--all", tmp_path)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{tmp_path}/dante/dante-final.pt -> {tmp_path}/dante: wrote 5")
    assert inspected(run, tmp_path / "dante")["step"] == 9


def test_convert_all_refuses_several_in_one_folder_and_names_them(
    run: Run, tmp_path: Path, save_legacy: Save, legacy: Path
) -> None:
    for name in ("a.pt", "b.pth"):
        save_legacy(tmp_path / "old" / "both" / name)
    before = below(tmp_path / "old" / "both")

    result = run("convert", "--all", tmp_path / "old")

    assert result.exit_code == 6
    (error,) = result.stderr.splitlines()
    assert "both holds 2 legacy files" in error
    assert "both/a.pt" in error
    assert "both/b.pth" in error
    assert below(tmp_path / "old" / "both") == before
    assert inspected(run, legacy)["format"] == "bundle"


def test_convert_all_names_the_files_that_it_leaves(
    run: Run, legacy: Path, save_legacy: Save
) -> None:
    save_legacy(legacy / "final.pt", step=8)

    result = run("convert", "--all", legacy.parent)

    first, second = result.stdout.splitlines()
    assert "step 7" in first
    assert second == (
        f"{legacy}: final.pt stays as it is, for latest.pt is taken; "
        "to convert it too name it and a destination"
    )


def test_convert_all_of_nothing_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()

    absent = run("convert", "--all", tmp_path / "absent")
    empty = run("convert", "--all", tmp_path)

    assert (absent.exit_code, empty.exit_code) == (3, 0)
    assert f"nothing is in {tmp_path / 'absent'}" in absent.stderr
    assert "there is no legacy checkpoint to convert" in empty.stdout


def test_convert_all_in_a_bucket(
    shell: Shell, rclone_server: Any, tmp_path: Path, save_legacy: Save
) -> None:
    from ckptstore import storage

    save_legacy(tmp_path / "latest.pt")
    data = (tmp_path / "latest.pt").read_bytes()
    url = rclone_server.url()
    place = storage.connect(url, rclone_server.storage_options)
    for name in ("a/latest.pt", "b/c/virgil.pt"):
        place.create(name, data)

    dry = shell("convert", "--all", url, "--dry-run", env=rclone_server.environ)
    assert place.list("a").files.keys() == {"latest.pt"}
    done = shell("convert", "--all", url, env=rclone_server.environ)

    for result, verb in ((dry, "would write"), (done, "wrote")):
        assert result.returncode == 0, result.stderr
        assert len(result.stdout.splitlines()) == 2
        assert all(verb in line for line in result.stdout.splitlines())
    assert {"model.pt", "latest.pt"} <= place.list("a").files.keys()
    assert {"model.pt", "virgil.pt"} <= place.list("b/c").files.keys()


@pytest.mark.parametrize(
    "words",
    [["--all", "x", "y"], [], ["--all", "x", "--to", "legacy"]],
    ids=["all and a source", "neither", "all to legacy"],
)
def test_convert_refuses_what_makes_no_sense(run: Run, words: list[str]) -> None:
    result = run("convert", *words)

    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


# -- to one file --------------------------------------------------------------------------


def test_convert_to_one_file_says_what_it_did_and_what_it_left(
    run: Run, dante: Path, tmp_path: Path
) -> None:
    before = below(dante)

    result = run("convert", dante, tmp_path / "dante.pt", "--to", "legacy")

    assert (result.exit_code, result.stderr) == (0, "")
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"{dante} -> {tmp_path / 'dante.pt'}: wrote 1 file (")
    assert line.endswith(
        "8 tensors proved the same, step 100, left out: the tokenizer's fingerprint, metrics"
    )
    assert below(dante) == before
    found = torch.load(tmp_path / "dante.pt", weights_only=True)
    assert found["step"] == 100
    assert found["optimizer_state_dict"]["state"].keys() == {0, 1}


def test_the_report_of_one_file_lists_every_tensor(run: Run, dante: Path, tmp_path: Path) -> None:
    result = run("convert", dante, tmp_path / "dante.pt", "--to", "legacy", "--report")

    assert "tensors of the model" in result.stdout
    assert "tensors of the optimizer" in result.stdout
    (row,) = [line for line in result.stdout.splitlines() if "head.bias" in line]
    _, dtype, shape, before, arrow, after = row.split()
    assert (dtype, shape, arrow, before) == ("float32", "2", "->", after)


def test_one_file_goes_to_a_bucket_and_back(
    shell: Shell, rclone_server: Any, dante: Path, tmp_path: Path, run: Run
) -> None:
    url = f"{rclone_server.url()}/dante.pt"

    there = shell("convert", "checkpoints/dante", url, "--to", "legacy", env=rclone_server.environ)
    again = shell("convert", "checkpoints/dante", url, "--to", "legacy", env=rclone_server.environ)
    back = shell("convert", url, "back", env=rclone_server.environ)

    for done in (there, again, back):
        assert done.returncode == 0, done.stderr
        assert rclone_server.secret not in done.stdout + done.stderr
    assert "the same already, spared 1 file (" in again.stdout
    for name in ("optimizer.pt", "config.json", "tokenizer.json", "training_state.json"):
        assert (tmp_path / "back" / name).read_bytes() == (dante / name).read_bytes()


def test_a_single_file_is_not_replaced_whatever_is_said(
    run: Run, dante: Path, legacy: Path
) -> None:
    before = (legacy / "latest.pt").read_bytes()

    for more in ([], ["--overwrite"], ["--dry-run"]):
        result = run("convert", dante, legacy / "latest.pt", "--to", "legacy", *more)
        assert result.exit_code == 6
        assert "choose another name, or move that file away" in result.stderr

    assert below(legacy) == {str(legacy / "latest.pt"): before}


def test_a_dry_run_to_one_file_says_what_would_be_left_out(
    run: Run, dante: Path, tmp_path: Path
) -> None:
    result = run("convert", dante, tmp_path / "dante.pt", "--to", "legacy", "--dry-run")

    assert "would write 1 file (" in result.stdout
    assert "left out: the tokenizer's fingerprint, metrics" in result.stdout
    assert os.listdir(tmp_path) == ["checkpoints"]


def test_convert_without_the_optimizer_names_what_it_leaves(
    run: Run, dante: Path, tmp_path: Path
) -> None:
    for name, more in (("dante.pt", ["--to", "legacy"]), ("copy", [])):
        result = run("convert", "--no-optimizer", dante, tmp_path / name, *more)

        assert result.exit_code == 0, result.stderr
        left_out = result.stdout.partition("left out: ")[2].strip().split(", ")
        assert {"step", "optimizer"} <= {*left_out}
        document = inspected(run, tmp_path / name)
        assert (document["has_optimizer"], document["training_state"]) == (False, None)
        assert document["tokenizer"] == {"token_kind": "char", "chars": ["\n", "a", "b"]}


@pytest.mark.parametrize(("harm", "code"), [("damaged", 4), ("unsafe", 5), ("absent", 3)], ids=str)
def test_a_harmed_source_writes_no_file(
    run: Run, dante: Path, tmp_path: Path, harm: str, code: int
) -> None:
    if harm == "damaged":
        data = bytearray((dante / "optimizer.pt").read_bytes())
        data[len(data) // 2] ^= 1
        (dante / "optimizer.pt").write_bytes(data)
    if harm == "unsafe":
        dante = tmp_path / "theirs"
        dante.mkdir()
        torch.save({"w": torch.ones(2), "where": tmp_path}, dante / "model.pt")
    source = tmp_path / "absent" if harm == "absent" else dante

    result = run("convert", source, tmp_path / "dante.pt", "--to", "legacy")

    assert result.exit_code == code
    (error,) = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert not list(tmp_path.glob("*.pt")) + list(tmp_path.glob(".tmp-*"))
