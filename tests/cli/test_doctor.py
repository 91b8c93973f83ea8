"""``doctor``: says what, where, what it means and what to do, and changes nothing unasked."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import ckptstore
from ckptstore.testing import S3Proxy, inject

Run = Callable[..., Result]
Save = Callable[..., None]

FEW = {"retries": {"total_max_attempts": 2}, "connect_timeout": 2, "read_timeout": 1}
PROBE, TIME = "/.tmp-", "max-keys=1&"


def as_options(options: dict[str, Any]) -> list[str]:
    """Return storage options as the command line takes them."""
    return [
        f"--storage-option={name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in options.items()
    ]


def examined(run: Run, location: object, *options: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code, and what ``doctor --json`` says."""
    result = run("doctor", location, "--json", *options)
    document: dict[str, Any] = json.loads(result.stdout)
    assert list(document) == ["schema", "location", "healthy", "findings", "storage"]
    assert document["healthy"] is (result.exit_code == 0)
    return result.exit_code, document


def kinds(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(finding["kind"], finding["status"]) for finding in document["findings"]]


# -- what was cut off or replaced ---------------------------------------------------------


def test_doctor_of_a_healthy_checkpoint_finds_nothing(run: Run, dante: Path) -> None:
    result = run("doctor", dante)

    assert result.exit_code == 0
    assert result.stdout == f"{dante}: nothing needs mending\n"


def test_doctor_only_says_what_it_would_do_until_it_is_told_to(run: Run, dante: Path) -> None:
    (dante / "model.pt").unlink()

    looked = run("doctor", dante)
    assert looked.exit_code == 1
    assert looked.stdout == (
        "would refresh the view to generation 1: the plain files at the top are not those of the "
        "state that opens; --fix shows it\n"
    )
    assert "--fix" in looked.stderr
    assert not (dante / "model.pt").exists()

    mended = run("doctor", dante, "--fix")
    assert mended.exit_code == 0, mended.stderr
    assert (dante / "model.pt").exists()
    assert "nothing needs mending" in run("doctor", dante).stdout


@pytest.mark.parametrize(("choice", "expected"), [("--adopt", 3.0), ("--restore", 100.0)])
def test_doctor_adopts_or_restores_a_replaced_file(
    run: Run, dante: Path, tmp_path: Path, save: Save, choice: str, expected: float
) -> None:
    import torch

    save(tmp_path / "other", step=3)
    shutil.copy(tmp_path / "other" / "model.pt", tmp_path / "model.pt")
    os.replace(tmp_path / "model.pt", dante / "model.pt")
    refused = run("inspect", dante)
    assert refused.exit_code == 6
    assert "--adopt" in refused.stderr
    assert "--restore" in refused.stderr

    result = run("doctor", dante, choice)

    assert result.exit_code == 0, result.stderr
    assert run("inspect", dante).exit_code == 0
    loaded = torch.load(dante / "model.pt", weights_only=True)
    assert loaded["embedding.weight"][0, 0].item() == expected


def test_doctor_lists_leftovers_and_removes_them_when_told_to(run: Run, dante: Path) -> None:
    leftover = dante / ".ckptstore" / "00000001" / "model.deaddeaddead.pt"
    leftover.write_bytes(b"half")

    looked = run("doctor", dante)
    assert looked.exit_code == 1
    assert looked.stdout == (
        f"would remove the leftover {leftover.relative_to(dante)}: a save that did not end left "
        "it, and no checkpoint needs it; --fix removes it\n"
    )
    assert "--fix" in looked.stderr
    assert leftover.exists()

    assert run("doctor", dante, "--fix").stdout.startswith("removed the leftover ")
    assert not leftover.exists()
    assert run("inspect", dante).exit_code == 0


def test_doctor_asks_for_no_fix_where_all_it_says_is_what_stays(run: Run, moto_server: Any) -> None:
    import ckptstore

    url, options = moto_server.url("dante"), moto_server.storage_options
    ckptstore.save(url, model={}, storage_options=options)
    client = moto_server.client()
    key = "dante/.ckptstore/00000002/model.deaddeaddead.pt"
    client.create_multipart_upload(Bucket=url.split("/")[2], Key=key)
    client.close()

    looked = run("doctor", url, *as_options(options))

    assert looked.exit_code == 0, looked.stderr
    assert looked.stdout.startswith("left alone: the unfinished upload of .ckptstore/00000002/")
    assert "--fix" not in looked.stderr


def test_a_step_that_nobody_can_read_is_for_a_person(
    run: Run, tmp_path: Path, save_history: Save
) -> None:
    save_history(tmp_path / "h", 500, 1000)
    (tmp_path / "h" / "step-00000500" / "manifest.json").write_text("{}")

    for options in ((), ("--fix",)):
        code, document = examined(run, tmp_path / "h", *options)

        assert code == 1
        assert kinds(document) == [("damaged", "open")]
        assert "ckptstore rm --step 500" in document["findings"][0]["said"]


# -- the storage --------------------------------------------------------------------------


@pytest.fixture
def bucket(moto_server: Any) -> tuple[str, dict[str, Any]]:
    """Give a location on moto with a checkpoint, and what reaches it."""
    url, options = moto_server.url("dante"), moto_server.storage_options
    ckptstore.save(url, model={}, step=1, storage_options=options)
    return url, options


@pytest.fixture
def proxy(moto_server: Any) -> Iterator[S3Proxy]:
    """Give a proxy before moto that does not try for long."""
    with S3Proxy(
        moto_server.endpoint, {**moto_server.storage_options, "config_kwargs": FEW}
    ) as proxy:
        yield proxy


def test_a_bucket_that_does_its_work_is_healthy_and_nothing_stays_in_it(
    run: Run, moto_server: Any, bucket: Any
) -> None:
    url, options = bucket
    before = moto_server.keys(url)

    code, document = examined(run, url, *as_options(options))

    assert (code, document["findings"]) == (0, [])
    learnt = document["storage"]
    assert (learnt["creates_only"], learnt["swaps"]) == (True, True)
    assert abs(learnt["clock_ahead"]) < 60
    assert learnt["round_trip"] > 0
    assert (learnt["write_rate"], learnt["read_rate"]) == (None, None)
    assert moto_server.keys(url) == before
    person = run("doctor", url, *as_options(options))
    assert person.stdout.splitlines()[-1] == f"{url}: nothing needs mending"


def test_a_service_that_keeps_no_conditions_is_told_with_what_is_still_promised(
    run: Run, rclone_server: Any
) -> None:
    url, options = rclone_server.url("dante"), rclone_server.storage_options
    ckptstore.save(url, model={}, step=1, storage_options=options)
    before = rclone_server.keys(url)

    person = run("doctor", url, *as_options(options))
    code, document = examined(run, url, *as_options(options))

    assert person.exit_code == code == 0
    first, second, last = person.stdout.splitlines()
    assert first == (
        f"{url} does not refuse to create what is there already (If-None-Match): two writers are "
        "not kept apart there, and one is as safe as anywhere (G7); let only one process at a "
        "time save there"
    )
    assert second.endswith("remove it before: ckptstore rm --step N")
    assert last == f"{url}: nothing needs mending"
    assert kinds(document) == [("conditions", "note"), ("conditions", "note")]
    assert (document["storage"]["creates_only"], document["storage"]["swaps"]) == (False, False)
    assert rclone_server.keys(url) == before


@pytest.mark.parametrize(("later", "says"), [(1200, "20 minutes behind"), (-600, "minutes ahead")])
def test_a_clock_that_differs_from_the_services_is_told(
    run: Run, bucket: Any, proxy: S3Proxy, later: float, says: str
) -> None:
    proxy.harm(action="other date", seconds=later, times=None)

    person = run("doctor", bucket[0], *as_options(proxy.storage_options))
    code, document = examined(run, bucket[0], *as_options(proxy.storage_options))

    assert person.exit_code == code == 1
    (line,) = [text for text in person.stdout.splitlines() if "clock" in text]
    assert says in line
    assert "RequestTimeTooSkewed" in line
    assert line.endswith("; set it right")
    assert kinds(document) == [("clock", "open")]
    assert document["storage"]["clock_ahead"] == pytest.approx(later, abs=60)


def test_four_minutes_are_no_wrong_clock(run: Run, bucket: Any, proxy: S3Proxy) -> None:
    proxy.harm(action="other date", seconds=240, times=None)

    assert examined(run, bucket[0], *as_options(proxy.storage_options))[0] == 0


def test_the_clock_of_a_disk_in_the_network_is_that_of_what_is_made_there(
    run: Run, dante: Path
) -> None:
    def late(operation: Any, perform: Callable[..., Any]) -> Any:
        found = perform()
        probed = operation.name == "entry" and ".tmp-" in operation.path and found is not None
        return replace(found, modified=found.modified - 86_400) if probed else found

    with inject(late):
        code, document = examined(run, dante)

    assert code == 1
    assert kinds(document) == [("clock", "open")]
    assert "1 day ahead" in document["findings"][0]["said"]


def test_a_service_that_refuses_the_time_says_that_the_clock_is_wrong(
    run: Run, bucket: Any, proxy: S3Proxy
) -> None:
    proxy.harm(action="RequestTimeTooSkewed", times=None)

    result = run("doctor", bucket[0], *as_options(proxy.storage_options))

    assert result.exit_code == 1
    assert "the clock of this machine is wrong" in result.stderr
    assert "S3 refuses requests beyond 15 minutes" in result.stderr


def test_a_service_that_takes_long_is_told(run: Run, bucket: Any, proxy: S3Proxy) -> None:
    patient = {**proxy.storage_options, "config_kwargs": {**FEW, "read_timeout": 30}}
    proxy.harm("GET", TIME, "late", seconds=1.1, times=3)

    code, document = examined(run, bucket[0], *as_options(patient))

    assert code == 0
    assert kinds(document) == [("slow", "note")]
    assert document["storage"]["round_trip"] > 1


def test_a_port_where_nobody_listens_is_told(run: Run, bucket: Any) -> None:
    url, options = bucket
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    closed = {**options, "endpoint_url": f"http://127.0.0.1:{port}", "config_kwargs": FEW}

    result = run("doctor", url, *as_options(closed))

    assert result.exit_code == 1
    assert f"127.0.0.1:{port} cannot be reached (connection refused)" in result.stderr
    assert result.stdout == ""


def test_a_name_that_nobody_knows_is_told(run: Run, bucket: Any) -> None:
    url, options = bucket
    unknown = {**options, "endpoint_url": "http://nowhere.invalid", "config_kwargs": FEW}

    result = run("doctor", url, *as_options(unknown))

    assert result.exit_code == 1
    assert "nowhere.invalid cannot be reached (its name is not known)" in result.stderr


def test_a_service_that_never_answers_is_given_up(run: Run, bucket: Any, proxy: S3Proxy) -> None:
    proxy.harm(action="stall", times=None)

    result = run("doctor", bucket[0], *as_options(proxy.storage_options))

    assert result.exit_code == 1
    assert "did not answer as it should (no answer in time)" in result.stderr


@pytest.mark.parametrize(
    ("method", "kind", "says"),
    [
        ("PUT", "write", "nothing can be saved there; permit writing"),
        ("DELETE", "delete", "so does this probe; permit deleting, then remove it"),
    ],
)
def test_what_may_not_be_done_is_named(
    run: Run, bucket: Any, proxy: S3Proxy, method: str, kind: str, says: str
) -> None:
    proxy.harm(method, PROBE, "AccessDenied", times=None)

    person = run("doctor", bucket[0], *as_options(proxy.storage_options))
    code, document = examined(run, bucket[0], *as_options(proxy.storage_options))

    assert person.exit_code == code == 1
    (line,) = person.stdout.splitlines()
    assert line.startswith(f"cannot {kind} ")
    assert "access denied by" in line
    assert line.endswith(says)
    assert kinds(document)[-1] == (kind, "open")


def test_a_bucket_that_may_not_be_listed_is_an_error(run: Run, bucket: Any, proxy: S3Proxy) -> None:
    proxy.harm("GET", "list-type=2", "AccessDenied", times=None)

    result = run("doctor", bucket[0], *as_options(proxy.storage_options))

    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: cannot list {bucket[0]}: access denied by ")


def test_a_storage_that_gives_back_other_bytes_is_told(run: Run, dante: Path) -> None:
    def other(operation: Any, perform: Callable[..., Any]) -> Any:
        found = perform()
        return b"other" if operation.name == "read" and ".tmp-" in operation.path else found

    with inject(other):
        code, document = examined(run, dante)

    assert code == 1
    assert kinds(document) == [("read", "open")]


@pytest.mark.parametrize("kind", ["local", "moto", "rclone"])
def test_speed_says_how_fast_the_storage_is_and_leaves_nothing(
    run: Run, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    server = None if kind == "local" else request.getfixturevalue(f"{kind}_server")
    url = str(tmp_path / "dante") if server is None else server.url("dante")
    options = {} if server is None else server.storage_options
    ckptstore.save(url, model={}, step=1, storage_options=options)

    person = run("doctor", url, "--speed", *as_options(options))
    code, document = examined(run, url, "--speed", *as_options(options))

    assert person.exit_code == code == 0
    assert "8 MiB were written at " in person.stdout
    assert document["storage"]["write_rate"] > 0
    assert document["storage"]["read_rate"] > 0
    names = os.listdir(url) if server is None else server.keys(url)
    assert not [name for name in names if ".tmp-" in name]


def test_a_bucket_is_tried_before_anything_is_saved_there(run: Run, moto_server: Any) -> None:
    url, options = moto_server.url("new"), moto_server.storage_options

    result = run("doctor", url, "--speed", *as_options(options))

    assert result.exit_code == 3
    assert "8 MiB were written at " in result.stdout
    assert "nothing is there" in result.stderr
    assert moto_server.keys(url) == {}


def test_a_folder_that_is_not_there_is_not_made(run: Run, tmp_path: Path) -> None:
    assert run("doctor", tmp_path / "nowhere").exit_code == 3
    assert not (tmp_path / "nowhere").exists()


def test_what_can_only_be_read_is_no_fault(run: Run, dante: Path) -> None:
    from ckptstore.errors import UnsupportedError

    def reading(operation: Any, perform: Callable[..., Any]) -> Any:
        if operation.name == "create":
            raise UnsupportedError(f"{dante} cannot write files")
        return perform()

    with inject(reading):
        code, document = examined(run, dante)

    assert code == 0
    assert kinds(document) == [("write", "note")]
