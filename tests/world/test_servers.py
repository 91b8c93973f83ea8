"""G2, and errors that say what to do: servers that refuse, break off, stall or talk rubbish.

The server is real; a proxy before it does the harm. Whatever happens, the old checkpoint stays.
"""

from __future__ import annotations

import socket
import time

import pytest
import torch

import ckptstore

LARGE = 2_200_000  # two parts of an upload
REFUSALS = {
    "AccessDenied": "access denied by 127.*check the credentials and what they permit",
    "ExpiredToken": "the credentials for 127.* have expired; renew them, then try again",
    "InvalidAccessKeyId": "it does not accept the credentials; check them",
    "NoSuchBucket": "there is no bucket 'test-.*' at 127.*; create it, or correct the location",
    "QuotaExceeded": "no space is left at 127.*; free some, then try again",
    "RequestTimeTooSkewed": "the clock of this machine is wrong; S3 refuses .*; set it right, then",
}
BREAKDOWNS = {
    "InternalError": r"did not answer as it should \(.*\); try again",
    "SlowDown": "is too busy .*; try again later, or with fewer writers",
    "drop": r"did not answer as it should \(the connection was closed\); try again",
    "html": r"did not answer as it should \(what answers there is not S3\); try again",
    "noise": r"did not answer as it should \(the answer is not S3's\); try again",
}


def is_one_line(result, code, says):
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert says in lines[0], lines
    assert result.exit_code == code
    return True


def as_options(place):
    options = {**place.options, "config_kwargs": '{"retries": {"total_max_attempts": 2}}'}
    return [part for pair in options.items() for part in ("--storage-option", "=".join(pair))]


@pytest.mark.parametrize("action", [*REFUSALS, *BREAKDOWNS])
def test_every_kind_of_failure_says_what_to_do(through, bucket, proxy, action, tmp_path):
    kind = ckptstore.NotFoundError if action == "NoSuchBucket" else ckptstore.StorageError
    checkpoint = through.open()
    ckptstore.save(tmp_path / "other", model={"w": torch.ones(3)}, step=9)
    proxy.harm(action=action, times=None)

    for act in (
        through.open,
        lambda: through.save(2),
        lambda: ckptstore.sync(tmp_path / "other", through.url, storage_options=through.options),
        lambda: through.store().remove(),
        *([] if action == "NoSuchBucket" else [checkpoint.load_model]),
    ):
        with pytest.raises(kind, match={**REFUSALS, **BREAKDOWNS}[action]) as caught:
            act()
        assert caught.value.committed is False
        assert "\n" not in str(caught.value)

    proxy.mend()
    assert bucket.holds(1)


@pytest.mark.parametrize("command", [["inspect"], ["ls"], ["doctor"], ["rm", "--yes"], ["sync"]])
def test_every_command_ends_with_one_line(through, bucket, proxy, run, tmp_path, command):
    more = [tmp_path / "copy"] if command[0] == "sync" else []
    options = as_options(through)

    for action, code, says in (
        ("ExpiredToken", 1, "have expired; renew them"),
        ("NoSuchBucket", 3, "there is no bucket"),
        ("html", 1, "what answers there is not S3"),
    ):
        proxy.harm(action=action, times=None)
        result = run("ckptstore", *command, through.url, *more, *options)
        proxy.mend()
        assert is_one_line(result, code, says)

    assert bucket.holds(1)


def committed(save):
    """Return whether a save was committed, as far as it says."""
    try:
        save()
    except (ckptstore.StorageError, ckptstore.NotFoundError) as error:
        return error.committed
    return True


@pytest.mark.parametrize(("action", "every"), [("ExpiredToken", 2), ("NoSuchBucket", 7)])
def test_access_that_ends_in_a_save_leaves_the_old_checkpoint_or_the_new_one(
    through, bucket, proxy, action, every, caplog
):
    """From the first request on that is refused, all are; every one is the first in turn."""
    there, outcomes = 1, []
    for after in range(0, 60, every):
        fault = proxy.harm(action=action, times=None, after=after)
        outcomes.append(committed(lambda after=after: through.save(after + 2)))
        proxy.mend()
        new = {False: [there], True: [after + 2], None: [there, after + 2]}[outcomes[-1]]
        there = bucket.open().step
        assert there in new
        assert (bucket.open().load_model()["w"] == there).all()
        if fault.after:
            break

    assert outcomes.count(False) >= 10 // every
    assert outcomes[-1] is True
    assert "is committed, but its view" in caplog.text


def test_credentials_that_expire_in_a_long_upload_are_told(through, bucket, proxy, caplog):
    proxy.harm("PUT", "partNumber=2", "ExpiredToken", times=None)
    proxy.harm("DELETE", "uploadId", "ExpiredToken", times=None)

    with pytest.raises(ckptstore.StorageError, match="have expired; renew them") as caught:
        through.save(2, LARGE)

    assert caught.value.committed is False
    assert "parts of 'dante/" in caplog.text  # Nobody is left who may remove them.
    assert bucket.holds(1)


def test_credentials_that_expire_in_a_load_are_told(through, bucket, proxy):
    bucket.save(2, LARGE)
    checkpoint = through.open()
    proxy.harm("GET", "model", "ExpiredToken", times=None, after=1)

    with pytest.raises(ckptstore.StorageError, match="cannot read .*model.*have expired; renew"):
        checkpoint.load_model()

    proxy.mend()
    assert (checkpoint.load_model()["w"] == 2).all()


@pytest.mark.parametrize(
    ("method", "part", "size"),
    [
        ("PUT", "model", 3000),
        ("PUT", "partNumber=2", LARGE),
        ("PUT", "manifest.json", 3000),
    ],
    ids=["file", "part", "manifest"],
)
@pytest.mark.parametrize("action", ["cut request", "cut reply"])
def test_a_connection_that_breaks_in_an_upload_costs_nothing(
    through, bucket, proxy, method, part, size, action
):
    fault = proxy.harm(method, part, action)

    checkpoint = through.save(2, size)

    assert fault.times == 0
    assert checkpoint.step == 2
    assert bucket.holds(2)


def test_a_connection_that_breaks_in_a_download_costs_nothing(through, bucket, proxy):
    bucket.save(2, LARGE)
    checkpoint = through.open()
    fault = proxy.harm("GET", "model", "cut reply", times=2)

    assert (checkpoint.load_model()["w"] == 2).all()

    assert fault.times == 0


@pytest.mark.parametrize("action", ["error in 200", "cut request", "cut reply"])
def test_an_upload_whose_completion_fails_once_is_completed(through, bucket, proxy, action):
    fault = proxy.harm("POST", "uploadId", action)

    through.save(2, LARGE)

    assert fault.times == 0
    assert bucket.holds(2)


def test_a_page_instead_of_a_listing_is_not_an_empty_location(through, bucket, proxy):
    proxy.harm("GET", "list-type", "html", times=None)

    with pytest.raises(ckptstore.StorageError, match="what answers there is not S3"):
        through.save(2)
    with pytest.raises(ckptstore.StorageError, match="what answers there is not S3"):
        through.store().steps()

    assert bucket.store().generations() == (1,)


def test_a_slow_server_is_waited_for_as_long_as_it_sends(hurried, bucket, proxy):
    bucket.save(2, 75_000)
    proxy.harm("GET", "model", "slow", rate=25_000)
    began = time.monotonic()

    loaded = hurried.open().load_model()["w"]

    assert (loaded == 2).all()
    assert time.monotonic() - began > 2 * hurried.options["config_kwargs"]["read_timeout"]


def test_a_server_that_never_answers_is_given_up_in_time(hurried, bucket, proxy):
    proxy.harm(action="stall", times=None)
    began = time.monotonic()

    with pytest.raises(ckptstore.StorageError, match=r"\(no answer in time\); try again"):
        hurried.save(2)

    assert time.monotonic() - began < 30
    proxy.mend()
    assert bucket.holds(1)


def test_a_server_that_does_not_answer_once_is_asked_again(hurried, bucket, proxy):
    fault = proxy.harm("PUT", "manifest.json", "stall")

    hurried.save(2)

    assert fault.times == 0
    assert bucket.holds(2)


def test_a_server_that_is_down_is_told(bucket, run, proxy):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    down = {**proxy.storage_options, "endpoint_url": f"http://127.0.0.1:{port}"}
    says = rf"127.0.0.1:{port} cannot be reached \(connection refused\); check the endpoint"

    with pytest.raises(ckptstore.StorageError, match=says):
        ckptstore.open(bucket.url, storage_options=down)
    with pytest.raises(ckptstore.StorageError, match=says):
        ckptstore.save(bucket.url, model={"w": torch.ones(1)}, storage_options=down)


def test_a_manifest_whose_fate_is_unknown_is_told_as_that(through, bucket, proxy):
    proxy.harm("PUT", "manifest.json", "drop", times=None)

    with pytest.raises(ckptstore.StorageError, match="whether the save was committed") as caught:
        through.save(2)

    assert caught.value.committed is None
    assert bucket.holds(1)


@pytest.mark.parametrize("part", ["model", "training_state"])
def test_a_file_whose_fate_is_unknown_is_no_commit(through, bucket, proxy, part):
    proxy.harm("PUT", part, "drop", times=None)

    with pytest.raises(ckptstore.StorageError, match="counts for nothing: nothing was") as caught:
        through.save(2)

    assert caught.value.committed is False
    assert bucket.holds(1)


def test_training_goes_on_while_the_server_refuses_saves_in_the_background(
    through, bucket, proxy, caplog
):
    store = through.store()
    proxy.harm("PUT", "", "AccessDenied", times=None)
    for step in (2, 3):
        store.save_async(model={"w": torch.full((3000,), float(step))}, step=step)
    store._background._join()
    proxy.mend()

    store.save_async(model={"w": torch.full((3000,), 4.0)}, step=4)

    with pytest.raises(ckptstore.StorageError, match="access denied"):
        store.close()
    assert [r.levelname for r in caplog.records] == ["ERROR", "WARNING"] * 2
    assert bucket.holds(4)


def test_a_training_whose_credentials_expire_ends_with_one_line_and_resumes(
    moto_server, proxy, train, monkeypatch
):
    for name, value in moto_server.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    base = f"s3://{moto_server.bucket()}/models"
    trained = train(base, 1)

    proxy.harm("PUT", "", "ExpiredToken", times=None)
    stopped = train(base, 3)
    proxy.mend()
    resumed = train(base, 3)

    assert trained.exit_code == 0, trained.stderr
    assert is_one_line(stopped, 1, "have expired; renew them, then try again")
    assert "going on at step 1" in resumed.stdout
    assert ckptstore.open(f"{base}/dante").step == 3
