"""``ckptstore report``: a checkpoint as one HTML file, whole or not at all."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

import ckptstore

from .conftest import Run, Save, Shell, weights

HEAD = "<!doctype html>\n"


def damage(where: Path) -> None:
    path = next(where.glob(".ckptstore/*/model*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_report_is_written_and_said(run: Run, dante: Path, tmp_path: Path) -> None:
    result = run("report", dante, "--html", tmp_path / "x.html")

    page = (tmp_path / "x.html").read_text("utf-8")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"wrote {tmp_path / 'x.html'}, {len(page.encode()) / 1000:.3g} kB\n"
    assert page.startswith(HEAD)
    assert page.endswith("</html>\n")


def test_quiet_says_nothing(run: Run, dante: Path, tmp_path: Path) -> None:
    assert run("report", "-q", dante, "--html", tmp_path / "x.html").output == ""


def test_a_dash_is_stdout(shell: Shell, dante: Path) -> None:
    done = shell("report", dante, "--html", "-", env={"PYTHONIOENCODING": "ascii"})

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(HEAD)
    assert done.stdout.endswith("</html>\n")


def test_a_file_is_required(run: Run, dante: Path) -> None:
    result = run("report", dante)

    assert result.exit_code == 2
    assert "missing option '--html'" in result.stderr


def test_another_checkpoint_is_compared(run: Run, dante: Path, save: Save, tmp_path: Path) -> None:
    save(tmp_path / "later", step=200)

    plain = run("report", dante, "--html", "-").stdout
    both = run("report", tmp_path / "later", dante, "--html", "-").stdout

    assert "What changed" not in plain
    assert "What changed" in both
    assert "100 → 200" in both


def test_an_earlier_report_is_replaced(run: Run, dante: Path, tmp_path: Path) -> None:
    first = run("report", dante, "--html", tmp_path / "x.html", "--no-weights")
    small = (tmp_path / "x.html").stat().st_size

    second = run("report", dante, "--html", tmp_path / "x.html")

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert (tmp_path / "x.html").stat().st_size > small


@pytest.mark.parametrize("content", ["", "<!doctype html>\n<html><body>mine</body></html>"])
def test_another_file_is_replaced_only_when_asked(
    run: Run, dante: Path, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "x.html"
    path.write_text(content)

    refused = run("report", dante, "--html", path)
    kept = path.read_text()
    done = run("report", dante, "--html", path, "--overwrite")

    assert refused.exit_code == 6
    assert "is there already, and is no report of ckptstore" in refused.stderr
    assert kept == content
    assert done.exit_code == 0
    assert path.read_text("utf-8").startswith(HEAD)


def test_it_is_refused_before_anything_is_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.html").write_text("mine")

    assert run("report", tmp_path / "nobody", "--html", tmp_path / "x.html").exit_code == 6


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_a_folder_is_no_file(run: Run, dante: Path, options: list[str]) -> None:
    result = run("report", dante, "--html", dante, *options)

    assert result.exit_code == 6
    assert "is no file; choose another name" in result.stderr


def test_an_absent_folder_is_not_made(run: Run, dante: Path, tmp_path: Path) -> None:
    result = run("report", dante, "--html", tmp_path / "a/b/x.html")

    assert result.exit_code == 3
    assert "there is no folder" in result.stderr
    assert not (tmp_path / "a").exists()


def test_an_absent_checkpoint_leaves_no_file(run: Run, tmp_path: Path) -> None:
    result = run("report", tmp_path / "nobody", "--html", tmp_path / "x.html")

    assert result.exit_code == 3
    assert not (tmp_path / "x.html").exists()


def test_a_write_that_fails_leaves_the_old_report_and_nothing_else(
    run: Run, dante: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    run("report", dante, "--html", folder / "x.html")
    before = (folder / "x.html").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device", "x.html")

    with monkeypatch.context() as patch:
        patch.setattr("ckptstore.report.file.os.fsync", full)
        result = run("report", dante, "--html", folder / "x.html")

    assert result.exit_code == 1
    assert [path.name for path in folder.iterdir()] == ["x.html"]
    assert (folder / "x.html").read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_its_permissions_are_those_of_the_umask(run: Run, dante: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        run("report", dante, "--html", tmp_path / "x.html")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "x.html").stat().st_mode) == 0o640


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_is_followed_and_stays(run: Run, dante: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "x.html").symlink_to(tmp_path / "real/x.html")

    run("report", dante, "--html", tmp_path / "x.html")

    assert (tmp_path / "x.html").is_symlink()
    assert (tmp_path / "real/x.html").read_text("utf-8").startswith(HEAD)


@pytest.mark.parametrize("options", [[], ["--verify"]])
def test_a_damaged_checkpoint_has_a_report_and_exit_code_4(
    run: Run, dante: Path, tmp_path: Path, options: list[str]
) -> None:
    damage(dante)

    result = run("report", dante, "--html", tmp_path / "x.html", *options)

    assert result.exit_code == 4
    assert "error: model.pt in" in result.stderr
    assert "Damaged" in (tmp_path / "x.html").read_text("utf-8")


def test_a_step_is_chosen(run: Run, tmp_path: Path, save_history: Save) -> None:
    save_history(tmp_path / "h", 500, 1000)

    page = run("report", tmp_path / "h", tmp_path / "h", "--step", 500, "--html", "-").stdout

    assert "1000 → 500" in page
    assert run("report", tmp_path / "h", "--step", 7, "--html", "-").exit_code == 3


def test_a_state_that_was_passed_over_is_told(run: Run, tmp_path: Path, save_history: Save) -> None:
    save_history(tmp_path / "h", 500, 1000)
    path = tmp_path / "h/step-00001000/model.pt"
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    result = run("report", tmp_path / "h", "--fallback", "--html", "-")

    assert result.exit_code == 0
    assert "Newer states passed over" in result.stdout


def test_a_bucket_has_a_report(run: Run, moto_server, dante: Path, tmp_path: Path) -> None:
    url, options = moto_server.url("dante"), moto_server.storage_options
    ckptstore.sync(dante, url, storage_options=options)
    words = [f"{key}={value}" for key, value in options.items() if isinstance(value, str)]
    client = options.get("client_kwargs")
    words += [f'client_kwargs={{"endpoint_url": "{client["endpoint_url"]}"}}'] if client else []
    given = [part for word in words for part in ("--storage-option", word)]

    result = run("report", url, "--html", tmp_path / "x.html", *given)

    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "x.html").read_text("utf-8")
    assert all(name in page for name in weights())
    assert options.get("secret", "?secret") not in page
