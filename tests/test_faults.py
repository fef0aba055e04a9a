"""Jobs that lose nothing: faults injected into real processes on real servers.

Every fault has servers, workers, clocks and a database of its own, so they all run at once. While
it is on, visitors ask for tokens over HTTP. Then each accepted token must end ready or visibly
failed, none twice, and the queue must be empty. `pytest -s` shows the table.
"""

import http.client
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import psycopg2
import pytest
import redis
from conftest import bake, site_environment
from processes import Postgres, Process, Redis, answers, free_port, wait_for

ASKED = 200  # tokens, at least, per fault
VISITORS = 8  # who ask at once
AT_ONCE = 5  # faults; more would only wait for the processor

pytestmark = pytest.mark.xdist_group("faults")
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
        self.environment = os.environ | {
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "DEBUG": "false",
            "HTTPS": "false",
            "SECRET_KEY": "0123456789abcdef" * 4,
            "ALLOWED_HOSTS": "localhost,testserver",
            "DATABASE_URL": postgres.url(self.database) if postgres else "",
            "REDIS_URL": self.redis.url,
            "PORT": str(self.port),
            "TOKEN_WORK_SECONDS": "0.1",
            **variables,
        }
        lines = filter(None, (site / "Procfile").read_text().splitlines())
        self.commands = dict(line.split(": ", 1) for line in lines)
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


# --- The faults: each returns once the fault itself is over ----------------------------------

FAULTS = {}
QUICK = {"work_horses_killed", "redis_emptied"}


def fault(inject):
    FAULTS[inject.__name__] = inject
    return inject


def running(stack, worker):
    """Stop a worker while it runs a job; return the job's work-horse."""

    def stopped():
        worker.send(signal.SIGSTOP)
        if horses := stack.horses(worker):
            return horses
        worker.send(signal.SIGCONT)

    return wait_for(stopped, 120, "a running job")


def later(seconds):
    """Wait for a fault to last as long as the issue of it asks."""
    threading.Event().wait(seconds)


@fault
def work_horses_killed(stack):
    for worker in stack.workers:
        horses = running(stack, worker)
        for pid in horses:
            kill(pid)
        worker.send(signal.SIGCONT)


@fault
def a_worker_killed(stack):
    """Its work-horse lives on and finishes."""
    running(stack, stack.workers[0])
    stack.workers[0].send(signal.SIGKILL)


@fault
def a_worker_and_its_horse_killed(stack):
    for pid in [*running(stack, stack.workers[0]), stack.workers[0].pid]:
        kill(pid)


@fault
def all_workers_killed(stack):
    pids = [pid for worker in stack.workers for pid in [*running(stack, worker), worker.pid]]
    for pid in pids:
        kill(pid)


@fault
def everything_told_to_stop(stack):
    """SIGTERM for every process of every dyno, as Heroku does once a day."""
    for process in stack.processes:
        for pid in process.children():
            kill(pid, signal.SIGTERM)


@fault
def redis_emptied(stack):
    for _ in range(3):
        wait_for(lambda: not stack.queue_is_empty())
        with stack.client() as client:
            client.flushall()


@fault
def redis_restarted(stack):
    stack.redis.stop()
    stack.redis.start()


@fault
def redis_down_ten_seconds(stack):
    stack.redis.stop(signal.SIGKILL)
    later(10)
    stack.redis.start()


@fault
def redis_hung_ten_seconds(stack):
    stack.redis.send(signal.SIGSTOP)
    later(10)
    stack.redis.send(signal.SIGCONT)


@fault
def redis_full_ten_seconds(stack):
    with stack.client() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.ResponseError, match="maxmemory"):
            client.set("key", "value")
        later(10)
        client.config_set("maxmemory", 0)


@fault
def postgres_restarted(stack):
    stack.postgres.stop()
    stack.postgres.start()


@fault
def postgres_down_ten_seconds(stack):
    stack.postgres.stop()
    later(10)
    stack.postgres.start()


@fault
def web_killed(stack):
    """All of it, several times; and a process each time just between commit and enqueue."""
    for _ in range(3):
        stack.web.send_group(signal.SIGKILL)
        wait_for(lambda: answers(f"http://localhost:{stack.port}/healthz"), 120)
    done = stack.manage("shell", "--command", COMMIT_AND_DIE)
    assert done.stdout.split()[-1] == "100"


COMMIT_AND_DIE = """
import os
from django.db import connections, transaction
from django.test import Client
from tokens import jobs

Client().get("/")  # imports what a request needs, once for all
connections.close_all()
jobs.enqueue = lambda token: transaction.on_commit(lambda: os.kill(os.getpid(), 9))
killed = 0
for _ in range(100):
    pid = os.fork()
    if pid == 0:
        Client().post("/generate-in-background/")
        os._exit(0)
    killed += os.waitpid(pid, 0)[1] == 9
print(killed)
"""


@fault
def clocks_killed(stack):
    """While there is work for them: Redis is emptied too."""
    redis_emptied(stack)
    for clock in stack.clocks:
        clock.send(signal.SIGKILL)


@fault
def jobs_that_raise_and_hang(stack):
    """See `broken_site`: it is so from the start."""


@fault
def a_deploy_that_renames_the_job(stack):
    """The queued jobs name a function that is gone: they fail visibly, new ones are made."""
    for worker in stack.workers:
        worker.send(signal.SIGSTOP)
    before = stack.count()
    wait_for(lambda: stack.count() > before + 50, 120)
    edit(stack.site / "tokens/jobs.py", ("generate", "make"))
    for process in stack.processes:
        process.send_group(signal.SIGCONT)
        process.send_group(signal.SIGTERM)


@fault
def many_workers_and_clocks(stack):
    """Everything at once, with five workers and three clocks."""
    for worker, clock in zip(stack.workers, [*stack.clocks, *stack.clocks], strict=False):
        for pid in running(stack, worker):
            kill(pid)
        worker.send(signal.SIGCONT)
        clock.send(signal.SIGKILL)
        redis_emptied(stack)
    stack.web.send_group(signal.SIGKILL)


OPTIONS = {"many_workers_and_clocks": {"workers": 5, "clocks": 3}}
# What a fault may leave failed, with a "try again"; all others leave everything ready.
MAY_FAIL = {"jobs_that_raise_and_hang", "a_deploy_that_renames_the_job"}


def edit(path, *replacements):
    text = path.read_text()
    for old, new in replacements:
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text)


def break_jobs(site):
    """Make jobs whose id begins with 0 raise, with 1 raise once, with 2 run over their time."""
    edit(site / "config/settings.py", ('"DEFAULT_TIMEOUT": 30', '"DEFAULT_TIMEOUT": 1'))
    edit(
        site / "tokens/jobs.py",
        ("value=new_value()", "value=broken_value(token_id, attempt)"),
        (
            "def job_failed(",
            "def broken_value(token_id, attempt):\n"
            "    if token_id[0] == '0' or (token_id[0] == '1' and attempt == 1):\n"
            "        raise RuntimeError('broken')\n"
            "    while token_id[0] == '2':\n"
            "        time.sleep(0.1)\n"
            "    return new_value()\n\n\ndef job_failed(",
        ),
    )


# --- Running them ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def newest(tmp_path_factory):
    """A site with the default answers, with its static files, and its environment."""
    site = bake(tmp_path_factory.mktemp("faults"), create_git_repo=False)
    bin_folder = site_environment(site, "6.1")
    subprocess.run(
        [bin_folder / "python", "manage.py", "collectstatic", "--no-input"],
        cwd=site, env=os.environ | {"DEBUG": "false"}, check=True, capture_output=True,
    )  # fmt: skip
    return site, bin_folder


@pytest.fixture(scope="module")
def stacks(newest, postgres, tmp_path_factory):
    """A function that returns the context of a stack with a name."""
    site, bin_folder = newest

    @contextmanager
    def start(name, edited=None, own_postgres=False, **options):
        folder = tmp_path_factory.mktemp(name)
        with ExitStack() as exits:
            own_site = site
            if edited:
                own_site = shutil.copytree(site, folder / "site")
                edited(own_site)
            server = exits.enter_context(Postgres(folder)) if own_postgres else postgres
            yield Stack(name, own_site, bin_folder, folder, server, **options)

    return start


@pytest.fixture(scope="module")
def outcomes(stacks, request):
    """What became of the tokens in each fault that was selected."""

    def outcome(name):
        options = OPTIONS.get(name, {})
        edited = {"jobs_that_raise_and_hang": break_jobs, "a_deploy_that_renames_the_job": Path}
        try:
            with stacks(
                name, edited.get(name), own_postgres=name.startswith("postgres"), **options
            ) as stack:
                return run(name, stack, FAULTS[name])
        except BaseException as error:
            return Outcome(name, error=error)

    selected = [
        item.callspec.params["name"]
        for item in request.session.items
        if item.module is request.module and "outcomes" in item.fixturenames
    ]
    # Those that wait for a dead worker's heartbeat to run out begin first.
    selected.sort(key=lambda name: "killed" not in name)
    with ThreadPoolExecutor(AT_ONCE) as executor:
        results = list(executor.map(outcome, selected))
    print("\n| fault | asked | ready | failed | lost | doubled | refused | seconds to recover |")
    print("|---|---|---|---|---|---|---|---|")
    for it in results:
        print(
            f"| {it.fault} | {it.asked} | {it.ready} | {it.failed} | {it.lost} | {it.doubled}"
            f" | {it.refused} | {it.recovered:.0f} |"
        )
    return dict(zip(selected, results, strict=True))


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAULTS],
)
def test_nothing_is_lost_or_doubled(name, outcomes):
    outcome = outcomes[name]
    if outcome.error:
        raise outcome.error
    assert outcome.asked >= ASKED
    assert (outcome.lost, outcome.doubled) == (0, 0)
    assert outcome.ready + outcome.failed == outcome.asked
    assert (outcome.failed > 0) == (name in MAY_FAIL)
    assert outcome.emptied


# --- What a visitor is told meanwhile --------------------------------------------------------


TRIES = 3


def seconds(function):
    """Return how long the quickest of a few calls took: a busy machine can only add to it."""
    durations = []
    for _ in range(TRIES):
        began = time.monotonic()
        function()
        durations.append(time.monotonic() - began)
    return min(durations)


def test_parallel_requests_of_one_visitor_keep_the_limits(stacks):
    with stacks("limits", workers=0, clocks=0) as stack, stack, ThreadPoolExecutor(20) as executor:
        response, _ = post(stack, "/generate/")
        cookie = cookie_of(response)
        for path in ("/generate-in-background/", "/generate/"):
            list(executor.map(lambda _, path=path: post(stack, path, cookie), range(20)))
            assert stack.count("state = 'pending'") == 5
        assert stack.count() == 10


@pytest.mark.slow
def test_a_visitor_is_answered_while_redis_is_down_hung_or_full(stacks):
    with stacks("answers", workers=0, clocks=0) as stack, stack:

        def ask():
            response, _ = post(stack, "/generate-in-background/")
            assert response.status == 302
            cookies = re.findall(r"(?:visitor|messages)=[^;]+", response.getheader("Set-Cookie"))
            with closing(http.client.HTTPConnection("localhost", stack.port)) as client:
                client.request("GET", "/", headers={"Cookie": "; ".join(cookies)})
                text = client.getresponse().read().decode()
            assert "The queue does not answer just now." in text
            assert "<progress" in text
            response, _ = post(stack, "/generate/")
            assert response.status == 302

        with stack.client() as client:
            client.config_set("maxmemory", 1)
        assert seconds(ask) < 4  # three answers
        stack.redis.send(signal.SIGSTOP)
        hung = seconds(ask)
        stack.redis.send(signal.SIGCONT)
        print(f"Redis hung: three answers in {hung:.1f} s")
        assert hung < 4
        stack.redis.stop(signal.SIGKILL)
        assert seconds(ask) < 3
        assert stack.count("state = 'pending'") == 3 * TRIES
        assert stack.count("state = 'ready'") == 3 * TRIES
        stack.redis.start()


@pytest.mark.slow
def test_without_postgres_there_is_a_plain_page(stacks):
    with stacks("postgres_away", own_postgres=True, workers=0, clocks=0) as stack, stack:
        stack.postgres.stop()

        def ask():
            response, text = post(stack, "/generate/")
            assert response.status == 503
            assert "Back in a moment" in text

        assert seconds(ask) < 2
        stack.postgres.start()
        # A server that takes connections and says nothing.
        stack.web.send_group(signal.SIGKILL)
        wait_for(lambda: answers(f"http://localhost:{stack.port}/healthz"), 60)
        stack.postgres.send(signal.SIGSTOP)
        hung = seconds(ask)
        stack.postgres.send(signal.SIGCONT)
        assert hung < 5


@pytest.mark.slow
def test_sqlite_takes_what_web_worker_and_clock_write_at_once(stacks, tmp_path):
    database = f"sqlite:///{tmp_path / 'db.sqlite3'}"
    with stacks("sqlite", DATABASE_URL=database) as stack:
        stack.postgres = None
        with stack:
            visitors = Visitors(stack, 100)
            visitors.leave()
            assert visitors.refused == 0

            def made():
                return stack.log.read_text().count('outcome="ready"')

            # One whose enqueueing met a busy Redis comes with the sweep.
            wait_for(lambda: made() == len(visitors.accepted), 180, "the tokens")
            assert stack.queue_is_empty()
            assert "locked" not in stack.log.read_text()
