"""Production under hostile requests: slow or big ones, unknown hosts, forged addresses."""

import contextlib
import re
import socket
import ssl
import threading
import time

import pytest
from support.docker import inspect
from support.http import Visitor
from support.processes import wait_for
from support.production import SITE

pytestmark = pytest.mark.xdist_group("network")

HOST = "Host: localhost\r\n"
POST = f"POST /generate/ HTTP/1.1\r\n{HOST}Content-Type: application/x-www-form-urlencoded\r\n"


def connect(production, receive_buffer=None):
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(30)
    connection.connect(("localhost", production.port))
    return production.context.wrap_socket(connection, server_hostname="localhost")


@contextlib.contextmanager
def slow_clients(production, count, start, step):
    """Clients that send `start`, and then call `step` with their connection twice a second."""
    stop = threading.Event()
    started = threading.Semaphore(0)

    def go_on():
        while not stop.is_set():
            with contextlib.suppress(OSError), connect(production, 2048) as connection:
                connection.sendall(start.encode())
                started.release()
                while not stop.wait(0.5):
                    step(connection)

    threads = [threading.Thread(target=go_on) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            assert started.acquire(timeout=60)
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def largest_file(production):
    find = "cd staticfiles && find . -name '*.js' -printf '%s %P\\n' | sort -n | tail -1"
    return "/static/" + production.exec("web-a", "sh", "-c", find).split()[1]


@pytest.mark.parametrize("kind", ["header", "body", "reader"])
def test_slow_clients_do_not_slow_others_down(production, record_property, kind):
    if kind == "header":
        start, step = f"GET / HTTP/1.1\r\n{HOST}", lambda c: c.sendall(b"X-A: b\r\n")
    elif kind == "body":
        start, step = f"{POST}Content-Length: 900000\r\n\r\n", lambda c: c.sendall(b"x")
    else:
        request = (
            f"GET {largest_file(production)} HTTP/1.1\r\n{HOST}Accept-Encoding: identity\r\n\r\n"
        )
        start, step = request * 10, lambda c: c.recv(1)
    seconds = []
    # Twice as many as gunicorn's threads in both webs.
    with slow_clients(production, 12, start, step):
        end = time.monotonic() + 6
        while time.monotonic() < end:
            began = time.monotonic()
            assert production.visitor().get("/").status == 200
            seconds.append(time.monotonic() - began)
        states = production.states()
    assert {states[name]["Health"] for name in SITE} == {"healthy"}
    record_property("slow", f"{kind}: {len(seconds)} others' pages, slowest {max(seconds):.2f} s")
    assert max(seconds) < 3


def test_an_endless_header_is_cut_off(production):
    with connect(production) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\n{HOST}".encode())
        began = time.monotonic()
        with contextlib.suppress(ssl.SSLEOFError, ConnectionError):
            assert connection.recv(1000) == b""
        assert 8 < time.monotonic() - began < 20


@pytest.mark.parametrize("length", ["Content-Length: 700000000", "Transfer-Encoding: chunked"])
def test_a_big_upload_never_reaches_web(production, length):
    """Otherwise uploads would fill web's memory, and it would be killed."""
    names = ("caddy", "web-a", "web-b")
    restarts = [inspect(production.container(name), "RestartCount") for name in names]
    chunk = b"x" * 2**16
    with connect(production) as connection:
        with contextlib.suppress(OSError):  # Caddy may hang up at once
            connection.sendall(f"{POST}{length}\r\n\r\n".encode())
            for _ in range(700_000_000 // len(chunk)):
                head = b"%x\r\n" % len(chunk) if "chunked" in length else b""
                connection.sendall(head + chunk + (b"\r\n" if head else b""))
        with contextlib.suppress(OSError):
            answer = connection.recv(1000).decode()
            assert re.match(r"HTTP/1.1 4(13|03|00) ", answer), answer
    assert [inspect(production.container(name), "RestartCount") for name in names] == restarts
    production.visitor().walk()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_unknown_host_gets_an_error(production, scheme):
    port = production.port if scheme == "https" else production.http_port
    visitor = Visitor(f"{scheme}://localhost:{port}", production.context)
    response = visitor.get("/", Host="www.example.com")
    assert (response.status, response.text) == (421, "There is no such site here.")


def test_the_log_has_the_visitors_address_and_the_time(production):
    path = f"/{time.monotonic()}/"
    production.visitor().get(path, **{"X-Forwarded-For": "203.0.113.7"})

    def line():
        log = production.compose("logs", "--no-log-prefix", "web-a", "web-b")
        return re.search(rf".*path={re.escape(path)} .*", log)

    found = wait_for(line, what="the line")[0]
    address = re.search(r"from=(\S+)", found)[1]
    gateways = {
        network["Gateway"]
        for network in inspect(production.container("caddy"), "NetworkSettings.Networks").values()
    }
    assert address in gateways, found
    assert "203.0.113.7" not in found
