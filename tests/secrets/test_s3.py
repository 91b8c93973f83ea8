"""G10: whoever passes secrets to reach S3 sees them nowhere again, whatever happens."""

from __future__ import annotations

import socket
from urllib.parse import quote

import pytest
import torch

import ckptstore
from ckptstore.testing import S3Proxy

ONCE = {"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 30}
SITUATIONS = ["works", "refuses", "expired", "down", "garbage", "noise", "echoes"]


@pytest.fixture
def credentials(planted):
    """The three parts of what a request is signed with."""
    return {name: planted[name] for name in ("key", "secret", "token")}


@pytest.fixture
def closed():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def endpoint_of(moto_server, rclone_server, echo, closed):
    """A function that gives an endpoint where all requests end as a situation says."""
    with S3Proxy(moto_server.endpoint) as proxy:

        def endpoint_of(situation):
            actions = {"expired": "ExpiredToken", "garbage": "html", "noise": "noise"}
            if situation in actions:
                proxy.harm(action=actions[situation], times=None)
                return proxy.endpoint
            return {
                "works": moto_server.endpoint,
                "refuses": rclone_server.endpoint,
                "down": closed,
                "echoes": echo,
            }[situation]

        yield endpoint_of


def in_options(endpoint, credentials, planted, monkeypatch):
    return {**credentials, "endpoint_url": endpoint, "config_kwargs": ONCE}


def in_client_options(endpoint, credentials, planted, monkeypatch):
    inner = {
        "aws_access_key_id": credentials["key"],
        "aws_secret_access_key": credentials["secret"],
        "aws_session_token": credentials["token"],
        "endpoint_url": endpoint,
    }
    return {"client_kwargs": inner, "config_kwargs": ONCE}


def in_variables(endpoint, credentials, planted, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", credentials["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", credentials["secret"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", credentials["token"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def in_fsspec_variables(endpoint, credentials, planted, monkeypatch):
    import fsspec.config

    monkeypatch.setitem(fsspec.config.conf, "s3", {})
    variables = {f"FSSPEC_S3_{name.upper()}": value for name, value in credentials.items()}
    fsspec.config.set_conf_env(fsspec.config.conf, variables)
    return {"endpoint_url": endpoint, "config_kwargs": ONCE}


def in_a_file(endpoint, credentials, planted, monkeypatch, tmp_path_factory):
    file = tmp_path_factory.mktemp("aws") / "credentials"
    file.write_text(
        "[default]\n"
        f"aws_access_key_id={credentials['key']}\n"
        f"aws_secret_access_key={credentials['secret']}\n"
        f"aws_session_token={credentials['token']}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    return {"endpoint_url": endpoint, "config_kwargs": ONCE}


def in_the_endpoint(endpoint, credentials, planted, monkeypatch):
    user, password = planted["user"], quote(planted["password"], safe="")
    url = endpoint.replace("://", f"://{user}:{password}@")
    return {**credentials, "endpoint_url": url, "config_kwargs": ONCE}


def in_a_proxy(endpoint, credentials, planted, monkeypatch):
    user, password = planted["user"], quote(planted["password"], safe="")
    proxies = {"http": endpoint.replace("://", f"://{user}:{password}@")}
    kept = {**ONCE, "proxies": proxies}
    return {**credentials, "endpoint_url": "http://s3.example", "config_kwargs": kept}


def in_a_header(endpoint, credentials, planted, monkeypatch):
    more = {"SSECustomerKey": planted["customer key"], "SSECustomerAlgorithm": "AES256"}
    options = {**credentials, "endpoint_url": endpoint, "config_kwargs": ONCE}
    return {**options, "s3_additional_kwargs": more}


def in_a_header_of_the_wrong_kind(endpoint, credentials, planted, monkeypatch):
    options = in_options(endpoint, credentials, planted, monkeypatch)
    return {**options, "s3_additional_kwargs": {"SSECustomerKey": [planted["customer key"]]}}


def among_unknown_options(endpoint, credentials, planted, monkeypatch):
    options = in_options(endpoint, credentials, planted, monkeypatch)
    return {**options, "no_such_option": planted["bearer"]}


WAYS = [
    *((in_options, situation) for situation in SITUATIONS),
    *((in_variables, situation) for situation in ("works", "echoes")),
    *((in_the_endpoint, situation) for situation in ("down", "echoes")),
    *((in_a_proxy, situation) for situation in ("down", "echoes")),
    *((in_a_header, situation) for situation in ("works", "echoes")),
    (in_client_options, "echoes"),
    (in_fsspec_variables, "echoes"),
    (in_a_file, "echoes"),
    (in_a_header_of_the_wrong_kind, "works"),
    (among_unknown_options, "works"),
]


@pytest.mark.parametrize(("way", "situation"), WAYS)
def test_the_library_tells_no_secret(
    endpoint_of, way, situation, credentials, planted, monkeypatch, request, moto_server, told, use
):
    more = [request.getfixturevalue("tmp_path_factory")] if way is in_a_file else []
    options = way(endpoint_of(situation), credentials, planted, monkeypatch, *more)

    use(moto_server.url("dante"), options)

    assert len(told.texts) > 20
    assert told.betrays() == []
    if situation == "works" and way in (in_options, in_variables, in_a_header):
        assert set(told.ended) == {"done"}
    elif way not in (in_a_header_of_the_wrong_kind, in_a_proxy):
        assert set(told.ended[1:]) == {"StorageError"}


@pytest.mark.parametrize("situation", ["works", "refuses", "echoes"])
def test_the_command_line_tells_no_secret(
    endpoint_of, situation, credentials, moto_server, told, use_commands
):
    options = {**credentials, "endpoint_url": endpoint_of(situation), "config_kwargs": ONCE}
    url = moto_server.url("dante")
    if situation == "works":
        ckptstore.save(url, model={"w": torch.ones(3)}, step=1, storage_options=options)

    use_commands(url, options)

    assert len(told.texts) > 20
    assert told.betrays() == []
    assert set(told.ended) == {"0" if situation == "works" else "1"}


@pytest.mark.parametrize("situation", ["echoes", "down"])
def test_variables_are_told_by_no_command(
    endpoint_of, situation, credentials, planted, monkeypatch, moto_server, told, use_commands
):
    in_variables(endpoint_of(situation), credentials, planted, monkeypatch)
    url = moto_server.url("dante")
    use_commands(url)

    assert told.betrays() == []
    assert set(told.ended) == {"1"}
