"""The Procfile's processes under a fault, and what becomes of the tokens asked for meanwhile."""

import http.client
import os
import re
import signal
import subprocess
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from urllib.parse import urlencode

import psycopg2
import redis

from support.processes import Process, answers, free_port, wait_for
from support.procfile import production, read_procfile
from support.servers import Redis

ASKED = 200  # tokens, at least, per fault
VISITORS = 8  # who ask at once
SECONDS_TO_RECOVER = 240

# Whatever touches a token after it was ready leaves a row in `touched`.
AUDIT = """
CREATE TABLE touched (id uuid);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO touched VALUES (OLD.id); RETURN NULL; END $$;
CREATE TRIGGER touch AFTER UPDATE ON tokens_token FOR EACH ROW
    WHEN (OLD.state = 'ready' OR OLD.value <> '') EXECUTE FUNCTION touch();
"""


class Stack:
    """The processes of the site's Procfile, started again whenever they end, as Heroku does."""

    def __init__(self, name, site, bin_folder, folder, postgres, workers=3, clocks=2, **variables):
        self.site = site
        self.postgres = postgres
        self.database = f"fault_{name}"
        self.redis = Redis(folder)
        self.port = free_port()
        self.environment = (
            production(
                bin_folder,
                ALLOWED_HOSTS="localhost,testserver",
                DATABASE_URL=postgres.url(self.database) if postgres else "",
                REDIS_URL=self.redis.url,
                PORT=str(self.port),
                TOKEN_RATE="1000000",  # every visitor has this machine's address
                TOKEN_WORK_SECONDS="0.1",
            )
            | variables
        )
        self.commands = read_procfile(site)
        self.log = folder / "log"
        self.web = self.process("web")
        self.workers = [self.process("worker") for _ in range(workers)]
        self.clocks = [self.process("clock") for _ in range(clocks)]
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
                    process.send_group(signal.SIGKILL)  # what gunicorn has left behind
                    process.start()

    def __enter__(self):
        self.redis.start()
        if self.postgres:
            self.execute(f"CREATE DATABASE {self.database}", database="postgres")
        self.manage("migrate")
        if self.postgres:
            self.execute(AUDIT)
        for process in self.processes:
            process.start()
        self.supervisor.start()
        try:
            wait_for(lambda: answers(f"http://localhost:{self.port}/readyz"), 180, self.log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        self.stopping.set()
        self.supervisor.join()
        for process in self.processes:
            process.send(signal.SIGKILL)
            for pid in process.children():
                kill(pid)
        self.redis.stop(signal.SIGKILL)

    def manage(self, *arguments, **options):
        return subprocess.run(
            ["python", "manage.py", *arguments],
            cwd=self.site, env=self.environment, check=True, capture_output=True, text=True,
            **options,
        )  # fmt: skip

    def execute(self, sql, *values, database=None):
        """Execute SQL; return the rows, if there are any."""
        url = self.postgres.url(database or self.database)
        with closing(psycopg2.connect(url)) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else None

    def count(self, where="true"):
        ((count,),) = self.execute(f"SELECT count(*) FROM tokens_token WHERE {where}")
        return count

    def horses(self, worker):
        return [pid for pid in worker.children() if pid != worker.pid]

    def client(self, **options):
        return closing(redis.Redis.from_url(self.redis.url, **options))

    def queue_is_empty(self):
        """Whether no job waits, runs or is left between; what is done is kept for a while."""
        with self.client() as client:
            lists = ["rq:queue:default", "rq:queue:default:intermediate"]
            sets = ["rq:wip:default", "rq:scheduled:default", "rq:deferred:default"]
            return not any([*map(client.llen, lists), *map(client.zcard, sets)])


class Visitors:
    """New visitors, several at once, who ask for tokens until the fault is over."""

    def __init__(self, stack, asked=ASKED):
        self.stack = stack
        self.asked = asked
        self.accepted = []
        self.refused = 0
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.ask) for _ in range(VISITORS)]
        for thread in self.threads:
            thread.start()

    def ask(self):
        while not (self.over.is_set() and len(self.accepted) >= self.asked):
            if len(self.accepted) >= 2 * self.asked:
                return
            try:
                response, _ = post(self.stack, "/generate-in-background/")
            except (OSError, http.client.HTTPException):
                self.refused += 1
            else:
                if response.status == 302:
                    self.accepted.append(visitor_of(response))
                else:
                    self.refused += 1
            time.sleep(0.2)  # a visitor's pace: hundreds of tokens in ten seconds

    def leave(self):
        self.over.set()
        for thread in self.threads:
            thread.join()


def post(stack, path, cookie="", timeout=30):
    """Post a form; return the response and its text."""
    csrf = "x" * 32
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Cookie": f"csrftoken={csrf}; {cookie}",
    }
    with closing(http.client.HTTPConnection("localhost", stack.port, timeout=timeout)) as client:
        client.request("POST", path, urlencode({"csrfmiddlewaretoken": csrf}), headers)
        response = client.getresponse()
        return response, response.read().decode()


def cookie_of(response):
    return re.search(r"visitor=[^;]+", response.getheader("Set-Cookie"))[0]


def visitor_of(response):
    return re.search(r"[0-9a-f-]{36}", cookie_of(response))[0]


def kill(pid, number=signal.SIGKILL):
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@dataclass
class Outcome:
    fault: str
    asked: int = 0
    ready: int = 0
    failed: int = 0
    lost: int = 0
    doubled: int = 0
    refused: int = 0
    recovered: float = 0.0
    emptied: bool = False
    error: BaseException | None = None


def run(name, stack, inject, asked=ASKED):
    """Inject the fault while visitors ask; return what became of their tokens."""
    outcome = Outcome(name.replace("_", " "))
    with stack:
        check_audit(stack)
        visitors = Visitors(stack, asked)
        try:
            wait_for(lambda: stack.count("state = 'ready'") > 5, 180, "the first tokens")
            inject(stack)
            began = time.monotonic()
        finally:
            visitors.leave()
        with suppress(TimeoutError):
            wait_for(lambda: stack.count("state = 'pending'") == 0, SECONDS_TO_RECOVER)
        outcome.recovered = time.monotonic() - began
        with suppress(TimeoutError):
            outcome.emptied = wait_for(stack.queue_is_empty, 120)
        known = {visitor for (visitor,) in stack.execute("SELECT visitor::text FROM tokens_token")}
        outcome.asked = stack.count()
        outcome.ready = stack.count("state = 'ready' AND value ~ '^[0-9a-f]{64}$'")
        outcome.failed = stack.count("state = 'failed'")
        outcome.lost = len(set(visitors.accepted) - known) + stack.count("state = 'pending'")
        ((outcome.doubled,),) = stack.execute("SELECT count(*) FROM touched")
        outcome.refused = visitors.refused
        # No value is in any log.
        log = stack.log.read_text()
        values = stack.execute("SELECT value FROM tokens_token WHERE state = 'ready'")
        assert not [value for (value,) in values if value in log]
    return outcome


def check_audit(stack):
    """Assert that a token made twice would be seen."""
    with closing(psycopg2.connect(stack.postgres.url(stack.database))) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "INSERT INTO tokens_token (id, visitor, value, state, created)"
            " VALUES (gen_random_uuid(), gen_random_uuid(), 'a', 'ready', now());"
            "UPDATE tokens_token SET value = 'b'; SELECT count(*) FROM touched"
        )
        assert cursor.fetchone() == (1,)
        connection.rollback()
