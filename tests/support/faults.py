"""Faults, and what becomes of everything that was asked for meanwhile."""

import os
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from uuid import UUID

import pytest
import redis

from support.commands import edit
from support.processes import answers, wait_for
from support.stack import Visitors, kill

SECONDS_TO_RECOVER = 180

# What was asked for: the task, the visitor's receipt, the state of the job, and how often it
# took effect.
ASKED = """
SELECT task, receipt, status,
    (SELECT count(*) FROM orders_effect effect WHERE effect.order_id = asked.id)
FROM (
    SELECT id, task, id AS receipt, job FROM orders_order
    UNION ALL SELECT id, 'token', visitor, job FROM tokens_token
) asked LEFT JOIN (SELECT id, status FROM jobs_job) job ON job.id = asked.job
"""
UNASKED = """
SELECT count(*) FROM orders_effect WHERE order_id NOT IN
    (SELECT id FROM orders_order UNION ALL SELECT id FROM tokens_token)
"""


@dataclass
class Outcome:
    """What became of everything that was asked for during a fault.

    `doubled` counts tasks that take effect in `commit()`, and `again` those outside of it.
    `unasked` counts the effects of orders that were rolled back.
    """

    asked: int = 0
    done: int = 0
    failed: int = 0
    lost: int = 0
    doubled: int = 0
    again: int = 0
    unasked: int = 0
    refused: int = 0
    seconds: float = 0
    error: BaseException | None = None

    def count(self, stack, receipts):
        """Count what the database says; `receipts` are those of accepted requests."""
        missing = set(receipts)
        for task, receipt, status, effects in stack.execute(ASKED):
            missing.discard(receipt if isinstance(receipt, UUID) else UUID(receipt))
            self.asked += 1
            self.done += effects > 0
            # Visibly: staff see it, and it can run again.
            failed = status == "FAILED" and not effects
            self.failed += failed
            self.lost += not effects and not failed
            if task == "remind":
                self.again += effects > 1
            else:
                self.doubled += effects > 1
        self.lost += len(missing)
        ((self.unasked,),) = stack.execute(UNASKED)


def settled(stack):
    """Return whether all requested jobs have ended."""
    return not any(status in ("READY", "RUNNING") for _, _, status, _ in stack.execute(ASKED))


def run(stack, inject, ask, recovered=settled):
    """Inject a fault while visitors ask; return the Outcome once the site has recovered."""
    outcome = Outcome()
    visitors = Visitors(stack, ask)
    try:
        wait_for(lambda: stack.execute("SELECT * FROM orders_effect"), 180, "the first effect")
        inject(stack)
        began = time.monotonic()
    finally:
        visitors.leave()
    with suppress(TimeoutError):
        wait_for(lambda: recovered(stack), SECONDS_TO_RECOVER, pause=0.5)
    outcome.seconds = time.monotonic() - began
    outcome.refused = visitors.refused
    outcome.count(stack, visitors.receipts)
    wait_for(stack.queue_is_empty, 60, "the queue to be empty")
    # No log has a token's value.
    log = stack.log.read_text(errors="replace")
    values = stack.execute("SELECT value FROM tokens_token WHERE state = 'ready'")
    assert not [value for (value,) in values if value in log]
    return outcome


# --- The faults: each returns once the fault itself is over -----------------------------------

FAULTS = {}


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
    """Wait for a fault to last."""
    Event().wait(seconds)


@fault
def a_worker_killed_in_a_job_of_ten_minutes(stack):
    """RQ's heartbeat shows it, long before the job's timeout."""
    stack.place("close_books", "takes minutes")
    wait_for(lambda: stack.running("takes minutes"), 60, "the job")
    for worker in stack.workers:
        for pid in [worker.pid, *stack.horses(worker)]:
            kill(pid)
    began = time.monotonic()
    wait_for(lambda: stack.jobs("takes minutes")[0][2] == 1, 110, "the dead worker to be noticed")
    print(f"A dead worker was noticed after {time.monotonic() - began:.0f} s")


@fault
def a_deploy_of_web_before_workers(stack):
    """The old workers cannot import the new web's task: its jobs wait for new workers."""
    old = shutil.copytree(stack.site, stack.log.parent / "old")
    edit(old / "orders/tasks.py", ("def ship(", "def unknown("))
    stack.deploy(old, stack.workers)
    for _ in range(3):
        stack.place("ship")
    tried = "waits up to a day"
    wait_for(lambda: stack.log.read_text().count(tried) == 3, 60, tried)
    stack.deploy(stack.site, stack.workers)


@fault
def attempts_that_overrun(stack):
    """Their work-horses outlive their workers, and end only after the next attempt."""
    for task in ("charge", "remind") * (len(stack.workers) // 2):
        stack.place(task, "overruns")
    wait_for(lambda: stack.running("overruns") == len(stack.workers), 60, "the attempts")
    orphans = [pid for worker in stack.workers for pid in stack.horses(worker)]
    for worker in stack.workers:
        kill(worker.pid)
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in orphans), 150, "their end")


@fault
def work_horses_killed(stack):
    for worker in stack.workers:
        for pid in running(stack, worker):
            kill(pid)
        worker.send(signal.SIGCONT)


@fault
def a_worker_killed(stack):
    """Its work-horse lives on and finishes the job."""
    running(stack, stack.workers[0])
    kill(stack.workers[0].pid)


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
def a_dyno_told_to_stop(stack):
    """SIGTERM for every process, as Heroku does once a day. It costs a long job no retry."""
    stack.place("close_books", "takes minutes")
    wait_for(lambda: stack.running("takes minutes"), 60, "the job")
    for process in stack.processes:
        for pid in process.children():
            kill(pid, signal.SIGTERM)
    done = ("SUCCESSFUL", 2, 0)  # at the second attempt, without a failed one
    wait_for(lambda: stack.jobs("takes minutes")[0][0] == "SUCCESSFUL", 60, "the job")
    assert stack.jobs("takes minutes") == [done]


@fault
def redis_emptied(stack):
    """While jobs are waiting in it."""
    for _ in range(3):
        for worker in stack.workers:
            worker.send(signal.SIGSTOP)
        for task in ("charge", "remind") * 2:
            stack.place(task)
        with stack.client() as client:
            client.flushall()
        for worker in stack.workers:
            worker.send(signal.SIGCONT)


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
def postgres_held_up_by_frozen_workers(stack):
    """They keep locks in the middle of `commit()`, and wake up when others have done their jobs."""
    for _ in range(2):
        stack.place("charge", "freezes")
    wait_for(lambda: stack.jobs("freezes") == [("SUCCESSFUL", 2, 1)] * 2, 120, "the jobs")
    for worker in stack.workers:
        for pid in [*stack.horses(worker), worker.pid]:
            kill(pid, signal.SIGCONT)


@fault
def web_killed(stack):
    """All processes, several times; and each time one of them between commit and Redis."""
    for _ in range(3):
        stack.web.send_group(signal.SIGKILL)
        wait_for(lambda: answers(f"{stack.address}/healthz"), 120)
    assert stack.manage("shell", "--command", COMMIT_AND_DIE).split()[-1] == "20"


COMMIT_AND_DIE = """
import os
from django.db import connections
from django.test import Client
from jobs import queue

Client().get("/")  # imports what a request needs, once for all
connections.close_all()
queue.send = lambda jobs: os.kill(os.getpid(), 9)
killed = 0
for number in range(20):
    pid = os.fork()
    if pid == 0:
        Client().post(["/generate-in-background/", "/orders/charge/none"][number % 2])
        os._exit(0)
    killed += os.waitpid(pid, 0)[1] == 9
print(killed)
"""


@fault
def clocks_killed(stack):
    """While they have work to do, because Redis is emptied too."""
    redis_emptied(stack)
    for clock in stack.clocks:
        kill(clock.pid)


@fault
def jobs_that_raise_and_hang(stack):
    for trouble in (*FAIL, "raises once"):
        for task in ("charge", "remind"):
            stack.place(task, trouble)


@fault
def many_workers_and_clocks(stack):
    """Everything at once."""
    for worker, clock in zip(stack.workers, [*stack.clocks, *stack.clocks], strict=False):
        for pid in running(stack, worker):
            kill(pid)
        worker.send(signal.SIGCONT)
        kill(clock.pid)
        redis_emptied(stack)
    stack.web.send_group(signal.SIGKILL)


# The ways in which a task can fail.
FAIL = ("raises", "hangs")
OPTIONS = {
    "attempts_that_overrun": {"workers": 4},
    "postgres_held_up_by_frozen_workers": {"workers": 4},
    "a_dyno_told_to_stop": {"environment": {"DYNO": "worker.1"}},
    "many_workers_and_clocks": {"workers": 4, "clocks": 3},
    "postgres_restarted": {"own": True},
    "postgres_down_ten_seconds": {"own": True},
}
