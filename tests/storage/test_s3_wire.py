"""What carries the heavy requests: any server's habits, and connections that break anywhere."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from botocore import exceptions as boto
from botocore.awsrequest import AWSRequest

from ckptstore.storage.s3errand import Body, Errand, InterruptedErrandError
from ckptstore.storage.s3failure import Failure, Kind
from ckptstore.storage.s3wires import Terms, Wires

TERMS = Terms(True, 2.0, 2.0, ())
OK = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n'
DATA = bytes(range(256)) * 4096


class Server:
    """Answers each connection by the next of some functions: of the connection, and a reader."""

    def __init__(self, *scripts):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/bucket/key"
        self.bodies = []
        self.connections = 0
        self._scripts = scripts
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self.listener.close()

    def _run(self):
        for script in self._scripts:
            with contextlib.suppress(OSError):
                sock, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._one, args=(sock, script), daemon=True).start()

    def _one(self, sock, script):
        with contextlib.suppress(OSError), sock, sock.makefile("rb") as reader:
            script(self, sock, reader)


def heard(reader):
    """Return the head of a request as a dict, and its body."""
    head = {}
    while (line := reader.readline().strip()) != b"":
        name, _, value = line.partition(b": ")
        head[name.lower()] = value
    return head, reader.read(int(head.get(b"content-length", 0)))


def answers(*replies):
    def script(server, sock, reader):
        for reply in replies:
            server.bodies.append(heard(reader)[1])
            sock.sendall(reply)

    return script


def closes(server, sock, reader):
    """Close the connection that was kept, without a word."""


def put(server, *, wires=None, data=DATA, headers=None, repeats=True, errand=None):
    errand = errand or Errand(body=Body([memoryview(data)]), repeats=repeats)
    request = AWSRequest("PUT", server.url, headers or {}, data=errand.body).prepare()
    return (wires or Wires()).carry(request, errand, TERMS)


def get(server, targets, *, wires=None, tag='"x"'):
    errand = Errand(targets=targets, tag=tag)
    reply = (wires or Wires()).carry(AWSRequest("GET", server.url).prepare(), errand, TERMS)
    return reply, errand


class TestSending:
    def test_pieces_of_memory_arrive_as_one_body(self):
        view = memoryview(DATA)
        body = Body([view[:1], view[1:70_000], view[70_000:]])
        with Server(answers(OK)) as server:
            reply = put(server, errand=Errand(body=body))

        assert reply.status == 200
        assert server.bodies == [DATA]

    def test_a_connection_is_kept(self):
        wires = Wires()
        with Server(answers(OK, OK, OK)) as server:
            for _ in range(3):
                put(server, wires=wires)

        assert server.connections == 1
        assert server.bodies == [DATA] * 3

    def test_a_kept_connection_that_the_server_closed_is_not_used(self):
        wires = Wires()
        with Server(answers(OK), answers(OK)) as server:
            put(server, wires=wires)
            time.sleep(0.1)
            put(server, wires=wires, repeats=False)

        assert server.connections == 2

    @pytest.mark.parametrize("repeats", [True, False])
    def test_one_that_is_closed_in_the_middle_is_tried_once_more_if_that_does_no_harm(
        self, repeats
    ):
        def answers_once(server, sock, reader):
            heard(reader)
            sock.sendall(OK)
            reader.readline()

        wires = Wires()
        with Server(answers_once, answers(OK)) as server:
            put(server, wires=wires)
            if repeats:
                assert put(server, wires=wires).status == 200
            else:
                with pytest.raises(boto.ConnectionClosedError):
                    put(server, wires=wires, repeats=False)

    def test_a_fresh_connection_that_breaks_is_not_tried_again(self):
        with Server(closes, answers(OK)) as server, pytest.raises(boto.ConnectionClosedError):
            put(server)

        assert server.connections == 1

    @pytest.mark.parametrize("agrees", [True, False])
    def test_a_server_is_asked_before_a_body_and_may_be_silent(self, agrees):
        def script(server, sock, reader):
            while reader.readline().strip():
                pass
            if agrees:
                sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            server.bodies.append(reader.read(len(DATA)))
            sock.sendall((b"" if agrees else b"HTTP/1.1 100 Continue\r\n\r\n") + OK)

        with Server(script) as server:
            assert put(server, headers={"Expect": "100-continue"}).status == 200

        assert server.bodies == [DATA]

    def test_a_refusal_instead_of_an_agreement_is_the_answer_and_no_byte_is_sent(self):
        rest = []

        def script(server, sock, reader):
            while reader.readline().strip():
                pass
            sock.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 6\r\n\r\n<Error")
            rest.append(reader.read())

        with Server(script) as server:
            reply = put(server, headers={"Expect": "100-continue"})
            time.sleep(0.1)

        assert (reply.status, reply.body, rest) == (403, b"<Error", [b""])

    def test_a_server_that_refuses_in_the_middle_of_a_body_is_heard(self):
        def script(server, sock, reader):
            while reader.readline().strip():
                pass
            sock.sendall(b"HTTP/1.1 400 No\r\nContent-Length: 3\r\nConnection: close\r\n\r\nBad")
            time.sleep(0.3)
            sock.shutdown(socket.SHUT_RD)
            time.sleep(0.3)

        with Server(script) as server, contextlib.suppress(boto.ConnectionClosedError):
            assert put(server, data=bytes(2**26)).status == 400

    def test_a_server_that_takes_nothing_is_given_up_in_time(self):
        began = time.monotonic()
        stalls = lambda server, sock, reader: time.sleep(20)  # noqa: E731

        with Server(stalls) as server, pytest.raises(boto.ReadTimeoutError):
            put(server, data=bytes(2**26))

        assert time.monotonic() - began < 12

    def test_nobody_there_is_told(self):
        with Server() as server:
            pass

        with pytest.raises(boto.EndpointConnectionError):
            put(server)


class TestReceiving:
    def test_a_body_fills_several_pieces_of_memory(self):
        pieces = [bytearray(1), bytearray(500_000), bytearray(len(DATA) - 500_001)]
        reply = b'HTTP/1.1 206 OK\r\netag: "x"\r\nContent-Length: %d\r\n\r\n' % len(DATA)

        with Server(answers(reply + DATA)) as server:
            _, errand = get(server, pieces)

        assert errand.filled
        assert b"".join(pieces) == DATA

    @pytest.mark.parametrize("last", [b"0\r\n\r\n", b"0\r\nx-trailer: 1\r\n\r\n"])
    def test_a_body_in_chunks_fills_them_too(self, last):
        chunks = [DATA[:1], DATA[1:300_000], DATA[300_000:]]
        body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
        head = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nTransfer-Encoding: chunked\r\n\r\n'
        pieces = [bytearray(700_000), bytearray(len(DATA) - 700_000)]
        wires = Wires()

        with Server(answers(head + body + last, OK)) as server:
            get(server, pieces, wires=wires)
            put(server, wires=wires)

        assert b"".join(pieces) == DATA
        assert server.connections == 1

    def test_a_body_that_ends_with_the_connection_fills_them_too(self):
        target = bytearray(len(DATA))

        with Server(answers(b'HTTP/1.0 200 OK\r\nETag: "x"\r\n\r\n' + DATA)) as server:
            get(server, [target])

        assert target == DATA

    def test_another_object_touches_no_memory(self):
        target = bytearray(len(DATA))
        reply = b'HTTP/1.1 206 OK\r\nETag: "y"\r\nContent-Length: %d\r\n\r\n' % len(DATA)

        with Server(answers(reply + DATA)) as server, pytest.raises(Failure) as caught:
            get(server, [target])

        assert caught.value.kind is Kind.REFUSED
        assert not any(target)

    @pytest.mark.parametrize("size", [1, len(DATA) - 1, len(DATA) + 1])
    def test_a_range_of_another_size_touches_no_memory(self, size):
        target = bytearray(len(DATA))
        reply = b'HTTP/1.1 206 OK\r\nETag: "x"\r\nContent-Length: %d\r\n\r\n' % size

        with Server(answers(reply + bytes(1))) as server, pytest.raises(Failure, match="has"):
            get(server, [target])

        assert not any(target)

    @pytest.mark.parametrize("status", [403, 404, 412, 416, 500, 503])
    def test_what_an_error_says_is_handed_back(self, status):
        body = b"<Error><Code>Some</Code></Error>"
        reply = b'HTTP/1.1 %d No\r\nETag: "x"\r\nContent-Length: %d\r\n\r\n' % (status, len(body))

        with Server(answers(reply + body)) as server:
            answer, errand = get(server, [bytearray(len(body))])

        assert (answer.status, answer.body, errand.filled) == (status, body, False)

    def test_a_page_of_something_else_is_handed_back(self):
        reply = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"

        with Server(answers(reply)) as server:
            answer, errand = get(server, [bytearray(6)])

        assert (answer.body, errand.filled) == (b"<html>", False)

    @pytest.mark.parametrize("after", [0, 5, 40, 100, 1000])
    def test_an_answer_that_breaks_off_is_an_error_wherever_it_does(self, after):
        reply = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: %d\r\n\r\n' % len(DATA)

        with (
            Server(answers((reply + DATA)[:after])) as server,
            pytest.raises(boto.ConnectionClosedError),
        ):
            get(server, [bytearray(len(DATA))])

    @pytest.mark.parametrize(
        "noise",
        [
            bytes(range(256)),
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nx: " + b"x" * 2**19,
        ],
    )
    def test_what_is_not_http_is_told_and_bounded(self, noise):
        with Server(answers(noise)) as server, pytest.raises(boto.HTTPClientError) as caught:
            get(server, [bytearray(10)])

        assert not isinstance(caught.value, boto.ConnectionClosedError)

    def test_a_slow_server_is_waited_for_as_long_as_it_sends(self):
        def trickles(server, sock, reader):
            heard(reader)
            sock.sendall(b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 8\r\n\r\n')
            for number in range(8):
                time.sleep(0.4)
                sock.sendall(bytes([number]))

        target = bytearray(8)
        with Server(trickles) as server:
            get(server, [target])

        assert target == bytes(range(8))


class TestInterrupts:
    def test_another_thread_ends_a_request_that_is_under_way_at_once(self):
        stalls = lambda server, sock, reader: time.sleep(20)  # noqa: E731
        errand = Errand(body=Body([memoryview(bytes(2**26))]))
        timer = threading.Timer(0.3, errand.interrupt)
        began = time.monotonic()

        with Server(stalls) as server:
            timer.start()
            with pytest.raises(InterruptedErrandError):
                put(server, errand=errand)

        assert time.monotonic() - began < 1.5

    def test_one_that_was_ended_before_sends_nothing(self):
        errand = Errand(body=Body([memoryview(DATA)]))
        errand.interrupt()

        with Server(answers(OK)) as server, pytest.raises(InterruptedErrandError):
            put(server, errand=errand)

        assert server.bodies in ([], [b""])


def test_a_header_cannot_smuggle_a_second_one_in():
    with Server(answers(OK)) as server, pytest.raises(ValueError, match="line break"):
        put(server, headers={"x-amz-meta-a": "1\r\nx-evil: 2"})


def test_a_body_is_a_file_for_who_wants_one():
    body = Body([memoryview(DATA)[:10], memoryview(b""), memoryview(DATA)[10:]])

    assert len(body) == len(DATA)
    assert body.read(15) == DATA[:15]
    assert body.tell() == 15
    assert body.read() == DATA[15:]
    body.seek(0)
    assert body.read() == DATA
