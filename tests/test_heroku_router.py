"""Requests through Heroku's router, and the demands of its add-ons."""

import contextlib
import re
import socket
from uuid import uuid4

import pytest
import redis as redis_client
from support.heroku import HOST
from support.processes import wait_for
from support.pythons import quick_variants

# All of them use one set of dynos.
pytestmark = [
    pytest.mark.xdist_group("heroku"),
    pytest.mark.parametrize("variant", quick_variants(), indirect=True),
]


def test_http_is_redirected_to_https_once(browser):
    response = browser.get("/admin/?a=b", https=False)
    assert response.status == 301
    assert response.headers["Location"] == f"https://{HOST}/admin/?a=b"
    assert browser.get("/").status == 200


@pytest.mark.parametrize("host", ["evil.example", "herokuapp.com.evil.example", "127.0.0.1", "["])
def test_an_unknown_host_gets_400(browser, host):
    response = browser.get("/", host=host)
    assert response.status == 400
    assert "Traceback" not in response.text


def test_the_request_id_is_in_the_access_log_and_in_djangos_log(browser, dynos):
    request_id = str(uuid4())
    response = browser.get("/nothing-here", request_id=request_id)
    assert response.headers["X-Request-ID"] == request_id
    web = dynos["web"]
    lines = wait_for(
        lambda: (
            len(found := [line for line in web.output.splitlines() if request_id in line]) > 1
            and found
        )
    )
    (access,) = (line for line in lines if "status=404" in line)
    assert "method=GET path=/nothing-here " in access
    assert any("\tdjango.request\t" in line and "Not Found" in line for line in lines)


def test_nobody_can_forge_a_log_line(browser, dynos):
    browser.get("/%0d%0aforged%0astatus=200", request_id="x" * 30 + "%0aforged")
    browser.get("/healthz")
    wait_for(lambda: "path=/%0d%0aforged" in dynos["web"].output)
    assert not re.search(r"^(\S+ \S+ +\| )?(forged|status=200)", dynos["web"].output, re.M)


def test_a_job_runs_and_all_connections_use_tls(browser, dynos, tls_postgres):
    browser.generate_in_background()
    wait_for(browser.tokens, what="the token")
    assert browser.get("/readyz").status == 200
    with tls_postgres.cursor("app") as cursor:
        cursor.execute("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                       " WHERE backend_type = 'client backend'")  # fmt: skip
        assert cursor.fetchone() == (True,)


def hung_up(connection):
    """Send one more byte; return whether the other side has closed the connection."""
    try:
        connection.sendall(b"x")
        while connection.recv(2**16, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.slow
@pytest.mark.parametrize("origin", ["", f"Origin: https://{HOST}\r\n"], ids=["unread", "read"])
def test_bodies_that_trickle_in_hold_no_thread_for_long(browser, dynos, origin):
    """The router waits for a whole header, and passes a body on as it comes.

    Without an Origin, Django refuses the form before it reads the body; gunicorn reads it then.
    """
    seen = len(dynos["web"].output)
    head = (
        f"POST /generate/ HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-Proto: https\r\n{origin}"
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 99999\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", browser.port)))
            for _ in range(12)  # twice as many as there are threads
        ]
        for connection in slow:
            connection.sendall(head.encode())

        def all_hung_up():
            slow[:] = [connection for connection in slow if not hung_up(connection)]
            return not slow

        wait_for(all_hung_up, 120, what="the end of the bodies", pause=0.5)
    assert browser.get("/").status == 200
    assert "\tERROR\t" not in dynos["web"].output[seen:]


@pytest.mark.slow
def test_idle_connections_that_redis_closed_are_opened_again(browser, dynos, tls_redis):
    server = redis_client.from_url(tls_redis.url, ssl_cert_reqs=None)
    seen = len(dynos["web"].output)
    browser.generate_in_background()
    wait_for(browser.tokens)
    # These stay: the worker, blocked and subscribed, the clock, which ticks, and this test.
    wait_for(lambda: server.info("clients")["connected_clients"] <= 4)
    browser.generate_in_background()
    wait_for(lambda: len(browser.tokens()) == 2)
    assert "\tERROR\t" not in dynos["web"].output[seen:]
    assert "failed" not in dynos["clock"].output


def test_the_clock_runs_without_errors(dynos):
    assert not re.search("failed|Traceback", dynos["clock"].output)
