"""G10: secrets in locations, in other storages' options and in what is typed wrongly."""

from __future__ import annotations

import http.server
import threading
from urllib.parse import quote

import pytest
from click.testing import CliRunner

import ckptstore
from gpt.__main__ import main as gpt_main


@pytest.fixture
def urls(planted):
    """Locations that hold secrets, none of which can be reached or need be."""
    user, password = planted["user"], quote(planted["password"], safe="")
    query = f"X-Amz-Signature={planted['signature']}&token={planted['query token']}"
    key, secret = planted["key"], quote(planted["secret"], safe="")
    return [
        f"s3://{key}:{secret}@bucket/dante",
        f"s3a://{key}:{planted['secret']}@bucket/dante",
        f"http://{user}:{password}@127.0.0.1:9/dante",
        f"http://127.0.0.1:9/dante?{query}",
        f"http://127.0.0.1:9/dante/latest.pt?{query}",
        f"ftp://{user}:{password}@127.0.0.1:9/dante",
        f"sftp://{user}:{password}@127.0.0.1:9/dante",
        f"simplecache::http://{user}:{password}@127.0.0.1:9/dante?{query}",
        f"zip://x::http://{user}:{password}@127.0.0.1:9/a.zip?{query}",
        f"nothing://{user}:{password}@host/dante?{query}",
        f"s3:/{key}:{secret}@bucket/dante",
    ]


@pytest.mark.parametrize("number", range(11))
def test_a_location_that_holds_secrets_is_shown_without_them(told, use, urls, number):
    use(urls[number], None)

    assert told.betrays() == []
    assert "done" not in told.ended[1:]


@pytest.mark.parametrize("number", range(11))
def test_no_command_shows_what_a_location_holds(told, use_commands, urls, number):
    use_commands(urls[number])

    assert told.betrays() == []
    assert "0" not in told.ended


@pytest.mark.parametrize("number", range(11))
def test_gpt_shows_nothing_of_its_base_folder(told, urls, number, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Nel mezzo del cammin di nostra vita", "utf-8")
    for more in (
        ["train", "--input_file", str(text), "--tokenization", "char", "--max_iters", "1"],
        ["generate", "--prompt", "Nel"],
        ["inspect"],
    ):
        line = [more[0], "--model_name", "dante", "--base_dir", urls[number], *more[1:]]
        result = CliRunner().invoke(gpt_main, line)
        told.texts += [result.stdout, result.stderr, repr(result.exception)]
        assert result.exit_code in (1, 3)

    assert told.betrays() == []


def test_what_is_typed_in_the_wrong_place_is_not_repeated(told, urls, planted, tmp_path):
    from ckptstore.cli import main

    ckptstore.save(tmp_path / "dante", model={})
    here, secret = str(tmp_path / "dante"), planted["secret"]
    for line in (
        [urls[0]],
        ["inspect", here, urls[0]],
        ["inspect", here, urls[2]],
        ["sync", here],
        ["inspect", here, "--storage-option", secret],
        ["inspect", here, "--storage-option", f"secret={secret}"],
        ["inspect", here, "--storage-option", f"a={secret}", "--storage-option", f"a={secret}"],
        ["inspect", here, "--step", urls[0]],
        ["inspect", here, f"--secret={secret}"],
        ["inspect", here, "--storage-option"],
        ["ls", here, "--format", urls[0]],
        ["convert", here, urls[0], "--to", urls[2]],
    ):
        result = CliRunner().invoke(main, line)
        told.texts += [result.stdout, result.stderr]

    assert told.betrays() == []


class Guarded(http.server.BaseHTTPRequestHandler):
    """A web server that lets nobody in, and has much to say about it."""

    def do_GET(self):
        self.send_response(401, "Unauthorized")
        self.send_header("WWW-Authenticate", f"Basic realm={self.path!r}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *arguments):
        pass


def test_headers_and_passwords_of_other_storages_are_not_shown(told, use, use_commands, planted):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        host = f"127.0.0.1:{server.server_address[1]}"
        bearer = f"Bearer {planted['bearer']}"
        user, password = planted["user"], quote(planted["password"], safe="")

        for url, options in (
            (f"http://{host}/dante", {"client_kwargs": {"headers": {"Authorization": bearer}}}),
            (f"http://{host}/dante", {"headers": {"Authorization": bearer}}),
            (f"http://{user}:{password}@{host}/dante", None),
            (f"http://{host}/dante?token={planted['query token']}", None),
        ):
            use(url, options)
            use_commands(url, options)
        server.shutdown()

    assert told.betrays() == []
    assert len(told.texts) > 100
