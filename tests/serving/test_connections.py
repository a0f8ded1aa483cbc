"""What arrives on the wire, and is no request as the protocol has it: answered with 4xx or closed, and bounded."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sdcompress.runtime.open import open_cascade
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.server import DrainingServer
from sdcompress.serving.service import Service

PATIENCE_S = 30
SLOW_S = 0.4  # the service's timeout
BODY = json.dumps(
    {"inputs": [{"name": "input", "shape": [1, 1, 4, 4], "datatype": "FP32", "data": [0.5] * 16}]}
).encode()
POST = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: a\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
GET = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass
class Running:
    """A server on a thread of this process."""

    server: DrainingServer
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def exchange(self, *parts: bytes, pause: float = 0.0, end: bool = False) -> bytes:
        """Send the parts, and return everything that comes until the server closes the connection.

        A good request goes last with ``end``, so that a connection that is still open answers it and is closed.
        """
        received = b""
        with self.connect() as connection:
            try:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause)
                if end:
                    connection.sendall(GET.replace(b"Host", b"Connection: close\r\nHost"))
                while chunk := connection.recv(65536):
                    received += chunk
            except (ConnectionResetError, BrokenPipeError):
                pass
        return received

    def alive(self) -> bool:
        return status_of(self.exchange(GET.replace(b"Host", b"Connection: close\r\nHost"))) == [200]


def status_of(received: bytes) -> list[int]:
    """The status of every response."""
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


Serve = Callable[..., Running]


@pytest.fixture
def listen(tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server of the tiny cascade."""
    monkeypatch.setattr(DrainingServer, "capture_signals", lambda _: nullcontext())  # they need the main thread
    started: list[tuple[DrainingServer, threading.Thread]] = []

    def start(**options: Any) -> Running:
        service = Service({"tiny": open_cascade(tiny_artifact())}, ServiceOptions(**options))
        server, listener = DrainingServer(service), socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        started.append((server, thread))
        deadline = time.monotonic() + PATIENCE_S
        while not (server.started and service.ready):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return Running(server, listener.getsockname()[1])

    yield start
    for server, thread in started:
        server.should_exit = True
        thread.join()


def post(*headers: bytes, body: bytes = BODY) -> bytes:
    return POST + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"
WHOLE = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
NO_REQUESTS: dict[str, bytes] = {
    "TLS on a port without it": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version that there is not": b"GET /v2/health/live HTTP/9.9\r\n\r\n",
    "a method that there is not": b"FETCH /v2/health/live HTTP/1.1\r\n\r\n",
    "a path that is no ASCII": b"GET /v2/\xff\xfe HTTP/1.1\r\n\r\n",
    "a NUL in a header": b"GET /v2/health/live HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
    "a bare CR in a header": b"GET /v2/health/live HTTP/1.1\r\nHost: a\rb\r\n\r\n",
    "a header without a colon": b"GET /v2/health/live HTTP/1.1\r\nHost\r\n\r\n",
    "a space before the colon": post(LENGTH.strip().replace(b":", b" :")),
    "a folded header": b"GET /v2/health/live HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
    "both lengths": post(LENGTH.strip(), CHUNKED, body=WHOLE),
    "both lengths, the other way": post(CHUNKED, LENGTH.strip(), body=WHOLE),
    "two lengths": post(LENGTH.strip(), b"Content-Length: 5"),
    "a list of lengths": post(b"Content-Length: %d, %d" % (len(BODY), len(BODY))),
    "a negative length": post(b"Content-Length: -1"),
    "a signed length": post(b"Content-Length: +5"),
    "a hexadecimal length": post(b"Content-Length: 0x10"),
    "a length beyond 64 bits": post(b"Content-Length: 99999999999999999999999"),
    "an unknown transfer encoding": post(b"Transfer-Encoding: xchunked", body=WHOLE),
    "chunked and then another": post(b"Transfer-Encoding: chunked, identity", body=WHOLE),
    "chunked with a tab": post(b"Transfer-Encoding:\x0bchunked", body=WHOLE),
    "a chunk of no hexadecimal length": post(CHUNKED, body=b"zz\r\n" + WHOLE),
    "a chunk of a negative length": post(CHUNKED, body=b"-5\r\n" + WHOLE),
    "a chunk beyond 64 bits": post(CHUNKED, body=b"F" * 17 + b"\r\n" + WHOLE),
    "a chunk that is longer than it says": post(CHUNKED, body=b"3\r\nabcdef\r\n0\r\n\r\n"),
    "CONNECT": b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: a\r\n\r\n",
}  # fmt: skip


def test_what_is_no_http_is_refused_once_and_the_connection_is_closed(listen: Serve) -> None:
    running = listen(timeout=5.0)
    for what, sent in NO_REQUESTS.items():
        received = running.exchange(sent, end=True)
        status = status_of(received)
        # one answer: what an intermediary might take for a second request is none
        assert len(status) == 1, (what, received)
        assert 400 <= status[0] < 500, (what, received)
    assert running.alive()


HTTP_2 = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAAB")


def test_strange_requests_that_are_whole_are_answered(listen: Serve) -> None:
    running = listen(timeout=5.0)
    for sent, status in {
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n": 404,
        b"OPTIONS /v2/models/tiny/infer HTTP/1.1\r\nHost: a\r\n\r\n": 405,
        b"TRACE /v2 HTTP/1.1\r\nHost: a\r\n\r\n": 405,
        b"GET http://169.254.169.254/v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n": 200,
        b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n": 200,
        b"GET /v2/../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n": 404,
        b"GET /v2/%00%0d%0aSet-Cookie:a HTTP/1.1\r\nHost: a\r\n\r\n": 404,
        b"GET /" + b"a" * 30_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n": 404,
        post(CHUNKED, body=WHOLE.replace(b"\r\n", b";x=1\r\n", 1)): 200,
        post(LENGTH.strip(), LENGTH.strip()): 400,
        post(LENGTH.strip(), *HTTP_2): 200,
        post(CHUNKED, *HTTP_2, body=WHOLE): 200,
    }.items():
        received = running.exchange(sent, end=True)
        assert status_of(received)[0] == status, (sent[:80], received)
        assert b"Set-Cookie" not in received.partition(b"\r\n\r\n")[0]
    head = running.exchange(b"HEAD /v2 HTTP/1.1\r\nHost: a\r\n\r\n", end=True)
    assert status_of(head) == [200, 200]
    assert head.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 ")  # no body


def test_pipelined_requests_are_answered_in_their_order(listen: Serve) -> None:
    running = listen()
    sent = b""
    for at in range(50):
        body = BODY.replace(b"{", b'{"id": "%d", ' % at, 1)
        sent += post(b"Content-Length: %d" % len(body), body=body)
    received = running.exchange(sent, end=True)
    assert status_of(received) == [200] * 51
    ids = [part.partition(b'"id":"')[2].partition(b'"')[0] for part in received.split(b"HTTP/1.1 ")[1:-1]]
    assert ids == [b"%d" % at for at in range(50)]


def test_what_is_no_http_behind_a_request_costs_it_no_answer(listen: Serve) -> None:
    running = listen()
    for behind in (b"nonsense\r\n\r\n", b"GET /v2 HTTP/1.1\r\nHost\r\n\r\n", GET + b"nonsense\r\n\r\n"):
        received = running.exchange(post(LENGTH.strip()) + behind)
        assert status_of(received) == [200] * (2 if behind.startswith(GET) else 1)
        assert b"model_name" in received
    assert running.alive()


def test_a_head_that_is_too_large_costs_the_request_before_it_no_answer(
    listen: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, free = listen(), threading.Event()
    stages = running.server._service.models["tiny"]._stages
    run = stages.run

    def held(*arguments: Any, outputs: bool) -> Any:
        assert free.wait(PATIENCE_S)
        return run(*arguments, outputs=outputs)

    monkeypatch.setattr(stages, "run", held)
    with running.connect() as connection:
        connection.sendall(post(LENGTH.strip()))
        for part in (b"GET /v2 HTTP/1.1\r\nX: ", b"a" * 40_000, b"a" * 40_000):
            time.sleep(0.1)
            connection.sendall(part)
        time.sleep(0.1)
        free.set()
        received = connection.recv(10_000)
        assert status_of(received) == [200]
        assert b"connection: close" in received
        assert connection.recv(10) == b""


def test_only_so_many_pipelined_requests_wait(listen: Serve) -> None:
    running, longest = listen(), 0
    with running.connect() as connection:
        connection.sendall(post(LENGTH.strip()) + b"GET /v2 HTTP/1.1\r\n\r\n" * 3000)
        received = connection.recv(1000)
        while chunk := connection.recv(2**16):
            longest = max(longest, *(len(one.pipeline) for one in [*running.server.server_state.connections]), 0)
            received += chunk
    assert longest <= 64
    answered = status_of(received)
    assert 65 <= len(answered) < 3000
    assert set(answered) == {200}
    assert running.alive()


def test_a_client_that_waits_for_leave_to_send_gets_it_or_is_refused_before(listen: Serve) -> None:
    running = listen(body_bytes=10_000)
    expecting = POST + LENGTH + b"Expect: 100-continue\r\n\r\n"
    assert status_of(running.exchange(expecting, BODY, end=True)) == [100, 200, 200]
    large = POST + b"Content-Length: 10001\r\nExpect: 100-continue\r\n\r\n"
    received = running.exchange(large, b"a" * 10_001, end=True)
    assert status_of(received)[0] == 413


def test_a_length_that_is_wrong_costs_its_own_connection_alone(listen: Serve) -> None:
    running = listen(timeout=SLOW_S)
    # longer than the body: it is waited for
    received = running.exchange(POST + b"Content-Length: %d\r\n\r\n" % (len(BODY) + 1) + BODY)
    assert status_of(received) == [408]
    # shorter: the rest is no request
    received = running.exchange(POST + b"Content-Length: %d\r\n\r\n" % (len(BODY) - 2) + BODY)
    assert status_of(received) in ([400], [400, 400])
    # the client goes away in the middle
    with running.connect() as connection:
        connection.sendall(POST + LENGTH + b"\r\n" + BODY[:10])
    assert running.alive()


def test_slow_clients_are_not_waited_for(listen: Serve) -> None:
    running = listen(timeout=SLOW_S)
    begin = time.monotonic()
    assert running.exchange() == b""  # a connection without a word
    assert status_of(running.exchange(GET[:-2])) == [408]
    # whoever still sends may lose the answer
    assert status_of(running.exchange(*(bytes([byte]) for byte in GET), pause=0.1)) in ([408], [])
    assert running.exchange(*[b"\r\n"] * 20, pause=0.1) == b""  # bytes that begin no request
    assert status_of(running.exchange(post(CHUNKED, body=b"5\r\nabcde\r\n"))) == [408]  # a body without its end
    # an answer that did not wait for the body, whose bytes still trickle in
    received = running.exchange(b"GET /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", *[b"a"] * 70, pause=0.1)
    assert status_of(received) in ([200], [])
    assert time.monotonic() - begin < PATIENCE_S
    assert running.alive()


def test_a_slow_head_behind_a_request_that_is_answered_is_not_waited_for(listen: Serve) -> None:
    running = listen(timeout=SLOW_S)
    with running.connect() as connection:
        connection.sendall(GET + b"GET /v2")
        assert status_of(connection.recv(1000)) == [200]
        connection.sendall(b"/health")  # a client that goes on is no idle one
        connection.settimeout(10)
        assert status_of(connection.recv(1000)) == [408]


def test_a_client_that_does_not_read_is_given_up(listen: Serve) -> None:
    running = listen(timeout=SLOW_S, request_rows=256)
    rows = BODY.replace(b"[1, 1", b"[256, 1").replace(b"[0.5", b"[" + b"0.5, " * (255 * 16) + b"0.5")
    with running.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10 * SLOW_S)
        with suppress(ConnectionResetError, BrokenPipeError, TimeoutError):
            for _ in range(2000):
                connection.sendall(post(b"Content-Length: %d" % len(rows), body=rows))
            pytest.fail("everything was answered")
    deadline = time.monotonic() + PATIENCE_S
    while running.server.server_state.connections and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running.server.server_state.connections
    assert running.alive()


def test_headers_are_bounded_wherever_they_stand(listen: Serve) -> None:
    running = listen()
    start = GET[:-2]
    flood = b"".join(b"X-%d: %s\r\n" % (at, b"a" * 1000) for at in range(10_000))
    assert status_of(running.exchange(start + b"X: " + b"a" * 30_000 + b"\r\n\r\n", end=True)) == [200, 200]
    assert status_of(running.exchange(start + flood)) in ([431], [])
    assert status_of(running.exchange(start + b"X: " + b"a" * 10**7)) in ([431], [])
    assert status_of(running.exchange(b"GET /" + b"a" * 10**7)) in ([431], [])
    # behind a body, and between its parts
    assert status_of(running.exchange(post(CHUNKED, body=WHOLE[:-2] + flood))) in ([200], [])
    assert status_of(running.exchange(post(CHUNKED, body=b"5;" + b"a" * 10**7))) == []
    assert running.alive()


def test_there_are_only_so_many_connections(listen: Serve) -> None:
    running = listen(connections=3)
    idle = [running.connect() for _ in range(3)]
    try:
        for connection in idle:
            connection.sendall(GET)
            assert status_of(connection.recv(1000)) == [200]
        for sent in (b"", GET + bytes(2**20)):  # also while the client sends
            received = running.exchange(sent)
            assert status_of(received) == [503]
            assert b"retry-after: 1" in received
    finally:
        for connection in idle:
            connection.close()
    deadline = time.monotonic() + PATIENCE_S
    while not running.alive():
        assert time.monotonic() < deadline


def test_a_flood_of_connections_takes_few_files(listen: Serve) -> None:
    running = listen(connections=3)
    flood = [running.connect() for _ in range(200)]
    try:
        received = []
        for connection in flood[3:]:
            with suppress(ConnectionResetError):
                received.append(connection.recv(1000))
        refused = [one for one in received if one]
        assert all(status_of(one) == [503] for one in refused)
        assert 0 < len(refused) < len(flood) - 3  # the others get no word
    finally:
        for connection in flood:
            connection.close()
    deadline = time.monotonic() + PATIENCE_S
    while not running.alive():
        assert time.monotonic() < deadline
