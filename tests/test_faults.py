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
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import redis
from support.commands import edit
from support.faults import ASKED, Outcome, Stack, Visitors, cookie_of, kill, post, run
from support.processes import answers, wait_for
from support.pythons import newest_django, site_environment
from support.servers import Postgres

AT_ONCE = 5  # faults; more would only wait for the processor

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.alone]

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
def newest(bake_session):
    """A site with the default answers, with its static files, and its environment."""
    site = bake_session(django_version=newest_django(), create_git_repo=False)
    bin_folder = site_environment(site, newest_django())
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
