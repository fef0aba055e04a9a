"""Under load: the plans' connection limits, and dynos that stop."""

import concurrent.futures
import threading
import time
from secrets import token_hex

import pytest
import redis as redis_client
from support.heroku import App, Browser, address_of, port_of
from support.processes import wait_for
from support.pythons import quick_variants
from support.servers import Redis, execute

pytestmark = [
    pytest.mark.alone,
    pytest.mark.xdist_group("heroku"),
    pytest.mark.parametrize("variant", quick_variants(), indirect=True),
]

PLAN_LIMIT = 20  # connections, of heroku-postgresql:essential-0 and of heroku-redis:mini


class Load:
    """Visitors who keep asking for pages that need Postgres and Redis. `wrong` should be 0."""

    def __init__(self, *ports, visitors=16):
        self.ports = ports
        self.visitors = visitors
        self.stopped = threading.Event()
        self.answers = self.wrong = 0

    def ask(self, port):
        browser = Browser(port)
        while not self.stopped.is_set():
            self.wrong += browser.get("/readyz").status != 200
            self.answers += 1

    def __enter__(self):
        self.pool = concurrent.futures.ThreadPoolExecutor(self.visitors * len(self.ports))
        self.asking = [
            self.pool.submit(self.ask, port) for port in self.ports for _ in range(self.visitors)
        ]
        return self

    def __exit__(self, *exc):
        self.stopped.set()
        self.pool.shutdown()
        for future in self.asking:
            future.result()


@pytest.mark.slow
def test_a_deploy_under_full_load_stays_within_the_plans_connections(slug, tls_postgres, tmp_path):
    """First one formation, then the next release, then both formations at once."""
    database = f"counted_{token_hex(4)}"  # a new one, because `peak` reads the server's whole log
    # One more for the test that counts; Redis refuses any others.
    with Redis(tmp_path, "--maxclients", str(PLAN_LIMIT + 1)) as redis:
        server = redis_client.from_url(redis.url)
        app = App(slug, tls_postgres, redis, database)
        app.release()

        def work(port):
            peak = 0
            visitors = [Browser(port) for _ in range(3)]
            with Load(port) as load:
                for visitor in visitors * 2:
                    visitor.generate_in_background()
                while not all(len(visitor.tokens()) >= 2 for visitor in visitors):
                    peak = max(peak, server.info("clients")["connected_clients"] - 1)
            assert load.answers > 100
            assert load.wrong == 0
            return peak

        with app.formation() as old:
            alone = work(port_of(old)), tls_postgres.peak(database)
            app.release()
            with app.formation() as new, Load(port_of(old)):
                both = work(port_of(new)), tls_postgres.peak(database)
        print(f"Redis, Postgres: {alone} by the formation, {both} in a deploy")
        # As docs/heroku.md counts them.
        assert alone[0] <= 10
        assert alone[1] <= 8 + 1  # the connection of a job that has just ended
        assert max(both) <= PLAN_LIMIT
        assert server.info("stats")["rejected_connections"] == 0


@pytest.mark.slow
def test_sigterm_to_every_process_loses_no_request_and_no_job(app, tls_postgres):
    """As in a deploy: requests are half done, one job runs, and others wait."""
    with app.formation() as dynos:
        visitors = [Browser(port_of(dynos)) for _ in range(2)]
        for visitor in visitors * 4:
            visitor.generate_in_background()
        browsers = [Browser(port_of(dynos)) for _ in range(12)]
        posting = []
        # Get the forms first: each unfinished request occupies one of the six threads.
        for visitor, body in [(browser, browser.form().encode()) for browser in browsers]:
            connection = visitor.connect()
            connection.putrequest("POST", "/generate/", skip_host=True)
            for name, value in visitor.headers().items():
                connection.putheader(name, value)
            connection.putheader("Content-Type", "application/x-www-form-urlencoded")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:10])
            posting.append((connection, body[10:]))
        running = "SELECT id FROM jobs_job WHERE status = 'RUNNING'"
        wait_for(lambda: execute(tls_postgres.url("app"), running))

        start = time.monotonic()
        for dyno in dynos.values():
            dyno.shut_down()
        wait_for(lambda: "Handling signal: term" in dynos["web"].output)
        for connection, rest in posting:
            connection.send(rest)
        for connection, _ in posting:
            assert connection.getresponse().status == 302
        for dyno in dynos.values():
            wait_for(lambda dyno=dyno: not dyno.processes(), what=f"the end of {dyno.name}")
        took = time.monotonic() - start
        print(f"gone after {took:.1f} s")
        assert took < 30
        assert "Traceback" not in dynos["web"].output + dynos["clock"].output

    with app.formation() as dynos:
        for visitor in visitors:
            visitor.address = address_of(dynos)
            wait_for(lambda visitor=visitor: len(visitor.tokens()) == 4, 150, "the tokens")
