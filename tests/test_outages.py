"""What visitors see while Redis or Postgres does not answer."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.faults import settled
from support.http import Visitor
from support.processes import answers, wait_for
from support.stack import Visitors

# In the group of the faults, because they share the stack.
pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.alone]

TRIES = 3


def seconds(function):
    """Return the time of the fastest of a few calls, because a busy machine only adds to it."""
    durations = []
    for _ in range(TRIES):
        began = time.monotonic()
        function()
        durations.append(time.monotonic() - began)
    return min(durations)


def tokens(stack, state):
    return len(stack.execute(f"SELECT * FROM tokens_token WHERE state = '{state}'"))


def press(visitor, path):
    """Send a form without getting its page first; return the Response."""
    csrf = "x" * 32
    visitor.cookies["csrftoken"] = csrf
    return visitor.request("POST", path, f"csrfmiddlewaretoken={csrf}")


def test_parallel_requests_of_a_visitor_stay_within_the_limits(stacks):
    with stacks("limits", workers=0, clocks=0) as stack, ThreadPoolExecutor(20) as executor:
        visitor = Visitor(stack.address)
        press(visitor, "/generate/")

        def ask(path):
            twin = Visitor(stack.address)
            twin.cookies |= visitor.cookies
            press(twin, path)

        list(executor.map(ask, ["/generate-in-background/"] * 20))
        assert (tokens(stack, "pending"), tokens(stack, "ready")) == (5, 1)
        list(executor.map(ask, ["/generate/"] * 20))
        assert (tokens(stack, "pending"), tokens(stack, "ready")) == (5, 5)


@pytest.mark.slow
def test_visitors_get_answers_while_redis_is_down_hanging_or_full(stacks):
    with stacks("redis_away", workers=0, clocks=0) as stack:

        def ask():
            visitor = Visitor(stack.address)
            assert press(visitor, "/generate-in-background/").status == 302
            text = visitor.page()
            assert "The queue is not responding." in text
            assert "<progress" in text
            assert press(visitor, "/generate/").status == 302

        with stack.client() as client:
            client.config_set("maxmemory", 1)
        assert seconds(ask) < 4  # three answers
        stack.redis.send(signal.SIGSTOP)
        assert seconds(ask) < 4
        stack.redis.send(signal.SIGCONT)
        stack.redis.stop(signal.SIGKILL)
        assert seconds(ask) < 3
        assert tokens(stack, "pending") == tokens(stack, "ready") == 3 * TRIES
        stack.redis.start()


@pytest.mark.slow
def test_without_postgres_visitors_get_a_plain_page(stacks):
    with stacks("postgres_away", own=True, workers=0, clocks=0) as stack:

        def ask():
            response = press(Visitor(stack.address), "/generate/")
            assert response.status == 503
            assert "Back in a moment" in response.text

        stack.postgres.stop()
        assert seconds(ask) < 2
        stack.postgres.start()
        # A server that accepts connections but never answers.
        stack.web.send_group(signal.SIGKILL)
        wait_for(lambda: answers(f"{stack.address}/healthz"), 60)  # opens no connection
        stack.postgres.send(signal.SIGSTOP)
        try:
            assert seconds(ask) < 5
        finally:
            stack.postgres.send(signal.SIGCONT)


@pytest.mark.slow
def test_sqlite_handles_web_workers_and_clocks_writing_at_once(stacks):
    with stacks("at_once", "sqlite", workers=3) as stack:
        visitors = Visitors(stack, 100)
        visitors.leave()
        assert visitors.refused == 0
        wait_for(lambda: settled(stack), 180, "the jobs", pause=0.5)
        assert "locked" not in stack.log.read_text()
