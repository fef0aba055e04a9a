"""The site's processes on their own servers, and visitors who ask for jobs."""

import http.client
import os
import shutil
import signal
import subprocess
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen
from uuid import UUID

import pytest
import redis

from support.http import Visitor
from support.processes import Process, answers, free_port, members, wait_for
from support.procfile import production, read_procfile
from support.pythons import newest_django, site_environment
from support.servers import Postgres, Redis, execute

VISITORS = 4  # visitors at the same time
PACE = 0.4  # seconds between two requests of a visitor

ORDERS = Path(__file__).parent / "orders"

# A token has taken effect when it has a value.
AUDIT = {
    "postgres": (
        "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO orders_effect (order_id) VALUES (NEW.id); RETURN NULL; END $$",
        "CREATE TRIGGER audit AFTER UPDATE OF value ON tokens_token "
        "FOR EACH ROW EXECUTE FUNCTION audit()",
    ),
    "sqlite": (
        "CREATE TRIGGER audit AFTER UPDATE OF value ON tokens_token "
        "BEGIN INSERT INTO orders_effect (order_id) VALUES (NEW.id); END",
    ),
}

# For a site without the app `orders`.
WITHOUT_ORDERS = (
    "CREATE TABLE orders_order (id uuid, task text, trouble text, job uuid)",
    "CREATE TABLE orders_effect (order_id uuid)",
)


class Stack:
    """Web, workers and clocks of the site's Procfile. Each is started again when it ends.

    `database` is a URL; `postgres` is its server if no other stack uses it.
    """

    def __init__(self, site, variables, folder, database, postgres=None, workers=2, clocks=2):
        self.site = site
        self.database = database
        self.postgres = postgres
        self.redis = Redis(folder)
        port = free_port()
        self.address = f"http://localhost:{port}"
        self.environment = variables | {
            "DATABASE_URL": database,
            "REDIS_URL": self.redis.url,
            "PORT": str(port),
        }
        self.commands = read_procfile(site)
        self.log = folder / "log"
        self.web = self.process("web")
        self.workers = [self.process("worker") for _ in range(workers)]
        self.clocks = [self.process("clock") for _ in range(clocks)]
        self.sessions = []  # of ended processes too, because a work-horse outlives its worker
        self.stopping = threading.Event()
        self.supervisor = threading.Thread(target=self.supervise)

    def process(self, name):
        command = self.commands[name].split()
        return Process(command, self.log, env=self.environment, cwd=self.site)

    @property
    def processes(self):
        return [self.web, *self.workers, *self.clocks]

    def supervise(self):
        while not self.stopping.wait(0.2):
            for process in self.processes:
                if process.popen.poll() is not None:
                    process.send_group(signal.SIGKILL)  # files that gunicorn left behind
                    self.sessions.append(process.pid)
                    process.start()

    def __enter__(self):
        self.redis.start()
        for process in self.processes:
            process.start()
        self.supervisor.start()
        try:
            self.wait_for_web()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        self.stopping.set()
        self.supervisor.join()
        for process in self.processes:
            process.send(signal.SIGKILL)
            self.sessions.append(process.pid)
        for session in self.sessions:
            for pid in members(session):
                kill(pid)
        self.redis.stop(signal.SIGKILL)

    def wait_for_web(self):
        wait_for(lambda: answers(f"{self.address}/readyz"), 180, self.log)

    def deploy(self, site, processes):
        """Make the processes run another version of the site."""
        pids = [process.pid for process in processes]
        for process in processes:
            process.options["cwd"] = site
            process.send(signal.SIGTERM)
        wait_for(lambda: not {*pids} & {process.pid for process in processes}, 120)

    def manage(self, *arguments):
        return manage(self.site, self.environment, *arguments)

    def execute(self, sql):
        return execute(self.database, sql)

    @property
    def wishes(self):
        """Return what visitors ask for, in turn."""
        return [
            self.place_token,
            lambda: self.place("charge"),
            lambda: self.place("remind"),
            lambda: self.place("charge", "rolled back"),
        ]

    def place(self, task="charge", trouble="none"):
        """Place an order; return its id, or None if it was rolled back."""
        address = f"{self.address}/orders/{task}/{quote(trouble)}"
        with urlopen(address, data=b"", timeout=30) as response:
            text = response.read().decode()
        return UUID(text) if text else None

    def place_token(self):
        """Ask for a token as a new visitor; return the visitor's id."""
        visitor = Visitor(self.address)
        response = visitor.post("/generate-in-background/")
        if response.status != 302:
            raise ConnectionError(f"no token: {response.status}")
        return UUID(visitor.cookies["visitor"].strip('"').split(":")[0])

    def jobs(self, trouble):
        """Return (status, attempts, failures) of the jobs whose orders have that trouble."""
        return self.execute(
            "SELECT status, attempts, failures FROM jobs_job "
            f"JOIN orders_order ON job = jobs_job.id WHERE trouble = '{trouble}'"
        )

    def running(self, trouble):
        """Return how many orders with that trouble are being worked on."""
        return sum(status == "RUNNING" for status, *_ in self.jobs(trouble))

    def horses(self, worker):
        return [pid for pid in worker.children() if pid != worker.pid]

    def client(self):
        return closing(redis.Redis.from_url(self.redis.url))

    def queue_is_empty(self):
        with self.client() as client:
            return client.llen("rq:queue:default") == 0


class Visitors:
    """Visitors who ask for various jobs until told to leave, and at least `ask` times."""

    def __init__(self, stack, ask):
        self.stack = stack
        self.asked = ask
        self.receipts = []  # of accepted requests
        self.refused = 0
        self.leaving = threading.Event()
        self.threads = [threading.Thread(target=self.ask, args=(n,)) for n in range(VISITORS)]
        for thread in self.threads:
            thread.start()

    def ask(self, first):
        for wish in islice(cycle(self.stack.wishes), first, None):
            if self.leaving.is_set() and len(self.receipts) >= self.asked:
                break
            if len(self.receipts) >= 2 * self.asked:
                break
            try:
                receipt = wish()
            except (OSError, http.client.HTTPException):
                self.refused += 1
            else:
                self.receipts += [receipt] if receipt else []
            time.sleep(PACE)

    def leave(self):
        self.leaving.set()
        for thread in self.threads:
            thread.join()


def kill(pid, number=signal.SIGKILL):
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def manage(site, environment, *arguments):
    """Run manage.py; return its output, or fail and show it."""
    command = ["python", "manage.py", *arguments]
    done = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-5000:]
    return done.stdout


@pytest.fixture(scope="session")
def stacks(bake_session, postgres, tmp_path_factory):
    """A function that returns the context of a running Stack, on a copy of a migrated database.

    It takes the database's name, "postgres" or "sqlite", whether to use a Postgres server of its
    own, environment variables, and the Stack's options. The site has the app `orders`.
    """
    site = bake_session(django_version=newest_django(), create_git_repo=False)
    shutil.copytree(ORDERS, site / "orders")
    variables = production(
        site_environment(site, newest_django()),
        DJANGO_SETTINGS_MODULE="orders.settings",
        ALLOWED_HOSTS="localhost,testserver",
        REDIS_URL="redis://localhost:1",  # for the checks; each stack has its own
        TOKEN_RATE="1000000",  # all visitors have this machine's address
        TOKEN_WORK_SECONDS="0.1",
    )

    def migrate(url):
        manage(site, variables | {"DATABASE_URL": url}, "migrate", "--run-syncdb")
        execute(url, *AUDIT[url.partition(":")[0]])

    # Migrated once, then copied for each stack.
    migrated = tmp_path_factory.mktemp("migrated") / "db.sqlite3"
    migrate(f"sqlite:///{migrated}")
    execute(postgres.url(), "CREATE DATABASE migrated")
    migrate(postgres.url("migrated"))
    environment = variables | {"DATABASE_URL": f"sqlite:///{migrated}"}
    manage(site, environment, "collectstatic", "--no-input")

    @contextmanager
    def start(name, database="postgres", own=False, environment=(), **options):
        folder = tmp_path_factory.mktemp("stack")
        with ExitStack() as exits:
            server = None
            if database == "sqlite":
                url = f"sqlite:///{shutil.copy(migrated, folder)}"
            elif own:
                server = exits.enter_context(Postgres(folder))
                url = server.url()
                migrate(url)
            else:
                execute(postgres.url(), f"CREATE DATABASE {name} TEMPLATE migrated")
                # Even if DYNO asks for TLS.
                url = f"{postgres.url(name)}?sslmode=disable"
            stack = Stack(site, variables | dict(environment), folder, url, server, **options)
            yield exits.enter_context(stack)

    return start
