"""The proxy that harms requests does to each what it says, and nothing to the others."""

from __future__ import annotations

import http.client
import http.server
import threading
import time
from datetime import timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pytest

from ckptstore.testing import S3Proxy
from ckptstore.testing.s3faults import ANSWERS, HARMS

BODY = bytes(range(256)) * 1024


class Shelf(http.server.BaseHTTPRequestHandler):
    """A server that keeps what is put there, for a second look past the proxy."""

    kept: dict[str, bytes]

    def do_PUT(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
        else:
            size = int(self.headers["Content-Length"])
            body = self.rfile.read(size)
            if len(body) < size:
                return
        self.kept[self.path] = body
        self.answer(200, b"")

    def do_GET(self):
        found = self.kept.get(self.path)
        self.answer(404 if found is None else 200, found or b"")

    def do_HEAD(self):
        self.do_GET()

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def kept():
    return {}


@pytest.fixture
def proxy(kept):
    handler = type("Handler", (Shelf,), {"kept": kept})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        with S3Proxy(endpoint, {"key": "k"}) as standing:
            yield standing
        server.shutdown()


def send(proxy, method, path, body=None, timeout=20):
    """Return status and body of a reply."""
    connection = http.client.HTTPConnection(urlsplit(proxy.endpoint).netloc, timeout=timeout)
    try:
        connection.request(method, path, body)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def test_what_is_not_harmed_passes_as_it_is(proxy):
    status, _ = send(proxy, "PUT", "/a", BODY)

    assert status == 200
    assert send(proxy, "GET", "/a") == (200, BODY)
    assert send(proxy, "HEAD", "/a") == (200, b"")
    assert send(proxy, "GET", "/none")[0] == 404
    assert [verb for verb, _, _ in proxy.requests] == ["PUT", "GET", "HEAD", "GET"]


def test_a_body_in_chunks_passes(proxy):
    status, _ = send(proxy, "PUT", "/a", iter([BODY[:1000], BODY[1000:]]))

    assert status == 200
    assert send(proxy, "GET", "/a") == (200, BODY)


@pytest.mark.parametrize("code", sorted(ANSWERS))
def test_answers_are_those_of_s3(proxy, kept, code):
    proxy.harm("PUT", "/a", code)

    status, body = send(proxy, "PUT", "/a", BODY)

    assert status == ANSWERS[code][0]
    assert f"<Code>{code}</Code>".encode() in body
    assert kept.get("/a") is None
    assert send(proxy, "PUT", "/a", BODY)[0] == 200


@pytest.mark.parametrize(
    ("action", "arrives"), [("lose", True), ("drop", False), ("cut request", False)]
)
def test_a_broken_connection_leaves_on_the_server_what_it_says(proxy, kept, action, arrives):
    proxy.harm("PUT", "/a", action)

    with pytest.raises((OSError, http.client.HTTPException)):
        send(proxy, "PUT", "/a", BODY)

    assert kept.get("/a") == (BODY if arrives else None)


def test_a_reply_is_cut_in_its_middle(proxy):
    send(proxy, "PUT", "/a", BODY)
    proxy.harm("GET", "/a", "cut reply")
    proxy.harm("HEAD", "/a", "cut reply")

    with pytest.raises(http.client.IncompleteRead) as caught:
        send(proxy, "GET", "/a")
    with pytest.raises(http.client.HTTPException):
        send(proxy, "HEAD", "/a")

    assert caught.value.partial == BODY[: len(BODY) // 2]


def test_half_of_the_xml_is_whole_for_http(proxy):
    send(proxy, "PUT", "/list", b"<Listing><Key>a</Key></Listing>")
    proxy.harm("GET", "list", "half xml")

    assert send(proxy, "GET", "/list") == (200, b"<Listing><Key>a")


def test_garbage_is_garbage(proxy):
    proxy.harm("GET", "", "html")
    proxy.harm("GET", "", "error in 200")
    proxy.harm("GET", "", "noise")

    status, page = send(proxy, "GET", "/a")
    assert (status, page[:6]) == (200, b"<html>")
    status, page = send(proxy, "GET", "/a")
    assert (status, b"<Code>InternalError</Code>" in page) == (200, True)
    with pytest.raises(http.client.BadStatusLine):
        send(proxy, "GET", "/a")


def test_slow_is_as_slow_as_it_says(proxy):
    proxy.harm("PUT", "/a", "slow", rate=4 * len(BODY))
    began = time.monotonic()

    assert send(proxy, "PUT", "/a", BODY)[0] == 200

    assert 0.2 < time.monotonic() - began < 10


def test_a_stalled_request_is_never_answered(proxy):
    proxy.harm("GET", "", "stall")

    with pytest.raises(TimeoutError):
        send(proxy, "GET", "/a", timeout=0.2)


def test_a_late_request_arrives_when_it_is_released(proxy, kept):
    proxy.harm("PUT", "/a", "late")
    answers = []
    sender = threading.Thread(target=lambda: answers.append(send(proxy, "PUT", "/a", BODY)))
    sender.start()
    while not proxy.requests:
        time.sleep(0.01)
    before = kept.get("/a")

    proxy.release()
    sender.join()

    assert before is None
    assert answers[0][0] == 200
    assert kept.get("/a") == BODY


def test_faults_hit_the_named_requests_only_and_as_often_as_they_say(proxy):
    proxy.harm("PUT", "/key b", "AccessDenied", times=2, after=1)

    others = [send(proxy, "PUT", "/a", b"1")[0], send(proxy, "GET", "/a")[0]]
    named = [send(proxy, "PUT", "/key%20b", b"1")[0] for _ in range(4)]

    assert others == [200, 200]
    assert named == [200, 403, 403, 200]


def test_a_reply_can_be_dated_otherwise(proxy):
    proxy.harm("GET", "", "other date", seconds=7200)
    dates = []
    for _ in range(2):
        connection = http.client.HTTPConnection(urlsplit(proxy.endpoint).netloc, timeout=20)
        connection.request("GET", "/none")
        dates.append(parsedate_to_datetime(connection.getresponse().headers["Date"]))
        connection.close()

    assert timedelta(hours=1) < dates[0] - dates[1] < timedelta(hours=3)


def test_from_one_request_on_all_of_them(proxy):
    proxy.harm(action="ExpiredToken", times=None, after=2)

    found = [send(proxy, "GET", "/none")[0] for _ in range(6)]
    proxy.mend()

    assert found == [404, 404, 400, 400, 400, 400]
    assert send(proxy, "GET", "/none")[0] == 404


def test_a_harm_that_there_is_not_is_named(proxy):
    with pytest.raises(ValueError, match="there is no action 'explode'; there are lose, drop"):
        proxy.harm("PUT", "", "explode")


def test_an_endpoint_that_is_no_plain_server_is_refused():
    with pytest.raises(ValueError, match="name a server as http://host:port"):
        S3Proxy("https://s3.amazonaws.com")


def test_options_go_by_way_of_the_proxy(proxy):
    assert proxy.storage_options == {"key": "k", "endpoint_url": proxy.endpoint}
    assert len(HARMS) == 13
