"""Bad input ends with its exit code and one clear line: no traceback, nothing on stdout."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Run = Callable[..., Result]
Shell = Callable[..., Any]
Save = Callable[..., None]


def check(done: Any, code: int, *says: str) -> None:
    """Check how a command ended, in this process or in one of its own."""
    ended = done.exit_code if isinstance(done, Result) else done.returncode
    assert ended == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert not line.endswith(".")
    for word in says:
        assert word in line


@pytest.fixture(params=["inspect", "verify", "ls", "sync", "convert"])
def looking(
    request: pytest.FixtureRequest, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Result]:
    """Give a function that runs each command that reads, on a location."""
    monkeypatch.chdir(tmp_path)
    more = ("copy",) if request.param in ("sync", "convert") else ()
    return lambda location: run(request.param, location, *more)


def test_a_location_that_is_not_there(looking: Callable[[str], Result]) -> None:
    check(looking("no/such/place"), 3, "no/such/place")


def test_an_empty_folder(looking: Callable[[str], Result], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    check(looking("empty"), 3, "empty")


def test_a_folder_of_other_things(looking: Callable[[str], Result], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "photos" / "notes.txt").write_text("a cat")

    check(looking("photos"), 3, "photos")


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize("where", ["old", "old/latest.pt"])
def test_a_truncated_pt(
    shell: Shell, legacy: Path, tmp_path: Path, command: str, where: str
) -> None:
    (tmp_path / "old").mkdir(exist_ok=True)
    (tmp_path / "old" / "latest.pt").write_bytes((legacy / "latest.pt").read_bytes()[:1000])

    check(shell(command, where), 4, "latest.pt")


@pytest.mark.parametrize("text", ["{not json", '["a list"]', "", '{"a": NaN}', "\x00"])
def test_invalid_json_by_hand(shell: Shell, dante: Path, text: str) -> None:
    (dante / "config.json").write_text(text)

    check(shell("inspect", "checkpoints/dante"), 4, "config.json")


def test_invalid_json_in_a_folder_without_a_manifest(
    shell: Shell, dante: Path, tmp_path: Path
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "model.pt").write_bytes((dante / "model.pt").read_bytes())
    (tmp_path / "plain" / "config.json").write_text("{")

    check(shell("inspect", "plain"), 4, "config.json")


def test_a_pickle_that_would_run_code_is_refused(shell: Shell, tmp_path: Path) -> None:
    import torch

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "it-ran",))

    (tmp_path / "evil").mkdir()
    torch.save({"model_state_dict": {"w": Evil()}}, tmp_path / "evil" / "latest.pt")

    check(shell("inspect", "evil"), 5)
    assert not (tmp_path / "it-ran").exists()


def test_an_unknown_protocol(looking: Callable[[str], Result]) -> None:
    check(looking("gopher://host/dante"), 1, "gopher")


def test_a_location_that_is_not_there_in_a_process_of_its_own(shell: Shell) -> None:
    check(shell("inspect", "no/such/place"), 3, "no/such/place")


# -- S3: each in a process of its own, as a person meets it ---------------------------------


@pytest.mark.parametrize("command", [("inspect",), ("ls",), ("sync", "s3://other/place")])
def test_a_bucket_that_is_not_there(shell: Shell, s3_server: Any, command: tuple[str, ...]) -> None:
    name, *more = command

    done = shell(name, "s3://no-such-bucket-anywhere/dante", *more, env=s3_server.environ)

    check(done, 3, "no-such-bucket-anywhere")


def test_a_destination_in_a_bucket_that_is_not_there(
    shell: Shell, s3_server: Any, dante: Path
) -> None:
    done = shell("sync", dante, "s3://no-such-bucket-anywhere/dante", env=s3_server.environ)

    check(done, 3, "no-such-bucket-anywhere")


def test_an_empty_place_in_a_bucket(shell: Shell, s3_server: Any) -> None:
    url = s3_server.url("nothing/here")

    check(shell("inspect", url, env=s3_server.environ), 3, url)


def test_wrong_credentials(shell: Shell, rclone_server: Any) -> None:
    url = rclone_server.url("dante")
    wrong = {**rclone_server.environ, "AWS_SECRET_ACCESS_KEY": "not-the-secret-at-all"}

    done = shell("inspect", url, env=wrong)

    check(done, 1, url.removesuffix("/dante"), "credentials")
    assert "not-the-secret-at-all" not in done.stderr


def test_a_server_that_is_down(shell: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    environ = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }

    check(shell("inspect", "s3://bucket/dante", env=environ), 1, "s3://bucket", "be reached")


def test_a_destination_that_cannot_be_written(shell: Shell, dante: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    check(shell("sync", dante, "file/copy"), 1, "file")
