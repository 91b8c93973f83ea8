"""Storage options by the beginning of a location: from a file, a variable, the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from ckptstore.cli.configured import StorageOptions

Run = Callable[..., Result]
Save = Callable[..., None]
Shell = Callable[..., Any]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Give a function that writes the file of options."""

    def config(text: str) -> Path:
        path = tmp_path / "config.ini"
        path.write_text(text, "utf-8")
        monkeypatch.setenv("CKPTSTORE_CONFIG", str(path))
        return path

    return config


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Give a function that sets the variable of options."""
    return lambda value: monkeypatch.setenv("CKPTSTORE_STORAGE_OPTIONS", json.dumps(value))


def of(location: str, **given: Any) -> dict[str, Any]:
    return StorageOptions(given).of(location)


# -- which option holds ----------------------------------------------------------------------


def test_the_longest_prefix_wins_key_by_key(config: Callable[[str], Path]) -> None:
    config(
        "[s3://bucket/runs]\nendpoint_url = http://runs\n"
        "[s3://]\nendpoint_url = http://all\nanon = true\n"
        "[s3://bucket]\nendpoint_url = http://bucket\nprofile = training\n"
    )

    assert of("s3://other/x") == {"endpoint_url": "http://all", "anon": True}
    assert of("s3://bucket") == {
        "endpoint_url": "http://bucket",
        "anon": True,
        "profile": "training",
    }
    assert of("s3://bucket/runs/7/latest.pt")["endpoint_url"] == "http://runs"
    assert of("s3://bucket/runs/7/latest.pt")["profile"] == "training"


@pytest.mark.parametrize(
    ("prefix", "location", "holds"),
    [
        ("s3://bucket/run", "s3://bucket/run", True),
        ("s3://bucket/run", "s3://bucket/run/", True),
        ("s3://bucket/run/", "s3://bucket/run", True),
        ("s3://bucket/run", "s3://bucket/run/x", True),
        ("s3://bucket/run", "s3://bucket/runs", False),
        ("s3://bucket/run", "s3://bucket", False),
        ("s3://bucket", "s3a://bucket/run", True),
        ("S3://bucket", "s3://bucket/run", True),
        ("s3://bucket", "s3://Bucket/run", False),
        ("s3://bucket/run[1]", "s3://bucket/run[1]/x", True),
        ("sftp://host", "sftp://dante@host/x", True),
        ("sftp://host", "s3://host/x", False),
        ("s3://", "gs://bucket", False),
    ],
)
def test_a_prefix_is_compared_by_whole_parts(
    config: Callable[[str], Path], prefix: str, location: str, holds: bool
) -> None:
    config(f"[{prefix}]\nanon = true\n")

    assert of(location) == ({"anon": True} if holds else {})


def test_the_command_line_wins_over_the_variable_and_that_over_the_file(
    config: Callable[[str], Path], variable: Callable[[Any], None]
) -> None:
    config("[s3://bucket/deep/er]\nendpoint_url = http://file\nprofile = file\nanon = false\n")
    variable({"s3://": {"endpoint_url": "http://variable", "profile": "variable"}})

    assert of("s3://bucket/deep/er/x", endpoint_url="http://given") == {
        "endpoint_url": "http://given",
        "profile": "variable",
        "anon": False,
    }


def test_null_takes_a_key_away(config: Callable[[str], Path]) -> None:
    config("[s3://]\nendpoint_url = http://all\n[s3://aws]\nendpoint_url = null\n")

    assert of("s3://aws/x") == {}


def test_values_are_json_where_they_are_and_may_go_on_in_the_next_line(
    config: Callable[[str], Path],
) -> None:
    config(
        "# mine\n[s3://bucket]\n  endpoint_url = http://a=b:9000\n  use_ssl = false\n"
        '  config_kwargs = {"max_pool_connections":\n     4}\n; the end\n'
    )

    assert of("s3://bucket") == {
        "endpoint_url": "http://a=b:9000",
        "use_ssl": False,
        "config_kwargs": {"max_pool_connections": 4},
    }


def test_the_file_is_where_configuration_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, home in (("xdg", "xdg"), ("home/.config", "")):
        place = tmp_path / folder / "ckptstore"
        place.mkdir(parents=True)
        (place / "config.ini").write_text(f"[s3://bucket]\nprofile = {folder}\n")
        monkeypatch.delenv("CKPTSTORE_CONFIG")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / home) if home else "")

        assert of("s3://bucket") == {"profile": folder}

        monkeypatch.setenv("CKPTSTORE_CONFIG", os.devnull)
        assert of("s3://bucket") == {}


def test_without_a_file_there_are_no_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CKPTSTORE_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    assert of("s3://bucket/x") == {}


# -- what is refused -------------------------------------------------------------------------


def refused(location: str = "s3://bucket/x", **given: Any) -> str:
    with pytest.raises(click.UsageError) as caught:
        of(location, **given)
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("anon = true\n", "line 1: stands before any [URL]"),
        ("[s3://bucket]\n\nanon\n", "line 3: is neither [URL] nor KEY = VALUE"),
        ("[s3://b]\na = 1\n\na = 2\n", "line 4: 'a' of [s3://b] is there already"),
        ("[s3://b]\n[s3://c]\n[s3://b]\n", "line 3: [s3://b] is there already"),
        ("[bucket/dante]\na = 1\n", "line 1: [bucket/dante] is no URL such as [s3://bucket/"),
        ("\n[sftp://u:hush@host]\n", "line 2: [sftp://host] holds a user, a password or a query"),
        ("[s3://b]\n[s3://x?token=hush]\n", "line 2: [s3://x?token=***] holds a user, a"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(
    config: Callable[[str], Path], text: str, said: str
) -> None:
    path = config(text)

    message = refused()

    assert message.startswith(f"{path}, {said}")
    assert "hush" not in message


@pytest.mark.parametrize(
    ("option", "called"),
    [
        ("key = hush", "key"),
        ("secret = hush", "secret"),
        ("token = hush", "token"),
        ("password = hush", "password"),
        ("aws_secret_access_key = hush", "aws_secret_access_key"),
        ("account_key = hush", "account_key"),
        ("sas_token = hush", "sas_token"),
        ("connection_string = hush", "connection_string"),
        ("apiKey = hush", "apiKey"),
        ("auth = hush", "auth"),
        ('client_kwargs = {"aws_session_token": "hush"}', "client_kwargs.aws_session_token"),
        ('client_kwargs = {"headers": {"Authorization": "hush"}}', "client_kwargs.headers.Auth"),
        ('s3_additional_kwargs = {"SSECustomerKey": "hush"}', "s3_additional_kwargs.SSECustomer"),
        ("endpoint_url = http://dante:hush@localhost:9000", "endpoint_url"),
        ('config_kwargs = {"proxies": {"http": "http://x:hush@y"}}', "config_kwargs.proxies.http"),
        ('hosts = ["https://a", "https://b?sig=hush"]', "hosts"),
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_shown(
    config: Callable[[str], Path], option: str, called: str
) -> None:
    path = config(f"[s3://bucket]\nanon = true\n{option}\n")

    message = refused()

    assert message.startswith(f"{path}, line 3: '{called}")
    assert "of [s3://bucket] is a secret or holds one" in message
    assert "use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile" in message
    assert "hush" not in message


def test_a_secret_of_another_storage_names_its_variable(config: Callable[[str], Path]) -> None:
    config("[gs://bucket]\ntoken = hush\n")

    assert "the variable FSSPEC_GS_TOKEN" in refused("gs://bucket/x")


@pytest.mark.parametrize(
    "option",
    [
        "profile = training",
        "endpoint_url = http://localhost:9000/path",
        "username = dante",
        "key_filename = ~/.ssh/id_ed25519",
        's3_additional_kwargs = {"SSEKMSKeyId": "arn:1", "ServerSideEncryption": "aws:kms"}',
        'client_kwargs = {"region_name": "eu-south-1"}',
        'config_kwargs = {"s3": {"addressing_style": "path"}}',
        "project = passage",
    ],
)
def test_what_is_no_secret_is_taken(config: Callable[[str], Path], option: str) -> None:
    config(f"[sftp://host]\n{option}\n")

    assert [*of("sftp://host")] == [option.partition(" = ")[0]]


@pytest.mark.parametrize(
    "text", ["{", "[1]", '"s3://b"', '{"s3://bucket": "endpoint_url"}', '{"key": hush}', "[" * 9999]
)
def test_a_variable_of_another_shape_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("CKPTSTORE_STORAGE_OPTIONS", text)

    message = refused()

    assert message.startswith("CKPTSTORE_STORAGE_OPTIONS is no JSON object of options by URL; ")
    assert "hush" not in message


def test_a_secret_in_the_variable_is_refused(variable: Callable[[Any], None]) -> None:
    variable({"s3://bucket": {"secret": "hush"}})

    message = refused()

    assert message.startswith("CKPTSTORE_STORAGE_OPTIONS: 'secret' of [s3://bucket] is a secret")
    assert "hush" not in message


def test_a_file_that_somebody_names_has_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CKPTSTORE_CONFIG", str(tmp_path / "absent"))
    assert refused() == f"CKPTSTORE_CONFIG names {tmp_path / 'absent'}, which does not exist"

    monkeypatch.setenv("CKPTSTORE_CONFIG", str(tmp_path))
    assert refused().startswith(f"{tmp_path} cannot be read: ")

    (tmp_path / "latin").write_bytes(b"[s3://caf\xe9]\n")
    monkeypatch.setenv("CKPTSTORE_CONFIG", str(tmp_path / "latin"))
    assert refused() == f"{tmp_path / 'latin'} cannot be read: it is not UTF-8 text"


def test_a_misspelt_option_of_s3_suggests_the_near_one(config: Callable[[str], Path]) -> None:
    path = config("[s3://bucket]\n\nprofil = training\n")

    assert refused() == f"{path}, line 3: S3 has no option 'profil'; did you mean 'profile'?"
    assert refused("s3://other/x", endpont_url="http://x") == (
        "--storage-option: S3 has no option 'endpont_url'; did you mean 'endpoint_url'?"
    )
    assert of("s3://other/x", something_else=1) == {"something_else": 1}
    assert of("sftp://host/x", endpont_url="x") == {"endpont_url": "x"}


def test_a_mistake_exits_2_with_one_line(run: Run, config: Callable[[str], Path]) -> None:
    config("anon = true\n")

    result = run("ls", "s3://bucket/x")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: /")
    assert "line 1: stands before any [URL]" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_who_uses_paths_needs_no_file_without_mistakes(
    run: Run, dante: Path, config: Callable[[str], Path]
) -> None:
    config("anon = true\n")

    assert run("inspect", dante).exit_code == 0


# -- with real servers -----------------------------------------------------------------------


def test_each_of_two_locations_has_options_of_its_own(
    shell: Shell, moto_server: Any, rclone_server: Any, dante: Path, config: Callable[[str], Path]
) -> None:
    one, two = moto_server.url("dante"), rclone_server.url("dante")
    path = config(
        f"[{one}]\nendpoint_url = {moto_server.endpoint}\n"
        f"[{two.rpartition('/')[0]}]\nendpoint_url = {rclone_server.endpoint}\n"
    )
    environ = {**moto_server.environ, "CKPTSTORE_CONFIG": str(path)}
    del environ["AWS_ENDPOINT_URL"]

    up = shell("sync", dante, one, env=environ)
    across = shell("sync", one, two, env=environ)
    same = shell("diff", one, two, "--exit-code", env=environ)
    listed = shell("ls", two, "--json", env=environ)
    converted = shell("convert", two, f"{one}/again", env=environ)

    for done in (up, across, same, listed, converted):
        assert done.returncode == 0, done.stderr
    assert "copied 5 files (" in across.stdout
    assert [row["step"] for row in json.loads(listed.stdout)] == [100]
    assert any("again/" in key for key in moto_server.keys(one))


def test_the_steps_of_a_history_go_from_one_server_to_another(
    shell: Shell,
    moto_server: Any,
    rclone_server: Any,
    tmp_path: Path,
    save_history: Save,
    variable: Callable[[Any], None],
) -> None:
    save_history(tmp_path / "h", 1, 2)
    one, two = moto_server.url("h"), rclone_server.url("h")
    variable(
        {
            one: {"endpoint_url": moto_server.endpoint},
            two: {"endpoint_url": rclone_server.endpoint},
        }
    )
    environ = {**moto_server.environ}
    del environ["AWS_ENDPOINT_URL"]

    up = shell("sync", "--all", "h", one, env=environ)
    across = shell("sync", "--last", "1", one, two, env=environ)
    listed = shell("ls", two, "--json", env=environ)

    for done in (up, across, listed):
        assert done.returncode == 0, done.stderr
    assert [row["step"] for row in json.loads(listed.stdout)] == [2]


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_a_variable_of_aws_alone_names_the_endpoint(
    shell: Shell, moto_server: Any, dante: Path, name: str
) -> None:
    environ = {**moto_server.environ}
    environ[name] = environ.pop("AWS_ENDPOINT_URL")
    url = moto_server.url("dante")

    there = shell("sync", dante, url, env=environ)
    look = shell("inspect", url, "--json", env=environ)

    assert there.returncode == look.returncode == 0, there.stderr + look.stderr
    assert json.loads(look.stdout)["step"] == 100


def test_a_profile_of_aws_names_endpoint_and_credentials(
    shell: Shell, rclone_server: Any, dante: Path, tmp_path: Path, config: Callable[[str], Path]
) -> None:
    aws = tmp_path / "aws"
    aws.write_text(
        f"[profile training]\nendpoint_url = {rclone_server.endpoint}\nregion = us-east-1\n"
        f"aws_access_key_id = {rclone_server.key}\naws_secret_access_key = {rclone_server.secret}\n"
    )
    url = rclone_server.url("dante")
    environ = {"AWS_CONFIG_FILE": str(aws)}

    chosen = shell("sync", dante, url, env={**environ, "AWS_PROFILE": "training"})
    path = config(f"[{url}]\nprofile = training\n")
    configured = shell("ls", url, "--json", env={**environ, "CKPTSTORE_CONFIG": str(path)})

    assert chosen.returncode == configured.returncode == 0, chosen.stderr + configured.stderr
    assert [row["step"] for row in json.loads(configured.stdout)] == [100]
