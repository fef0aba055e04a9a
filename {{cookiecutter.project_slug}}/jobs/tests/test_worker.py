import json
import logging
import re
from asyncio import CancelledError
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group
from django.db import transaction
from django.utils import timezone
from django_rq import get_queue, get_worker
from redis import exceptions
from rq.exceptions import ShutDownImminentException
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException

from config.compat import TaskResultDoesNotExist
from jobs import clock, worker
from jobs import queue as job_queue
from jobs.backend import Superseded
from jobs.embedded import ThreadWorker
from jobs.models import Job, first_line
from jobs.tests import tasks

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hook():
    """Return a function that enqueues a job which calls its argument."""

    def enqueue(function):
        tasks.hooks["hook"] = function
        return tasks.call_back.enqueue("hook")

    yield enqueue
    tasks.hooks.clear()


def test_the_worker_reads_json_whatever_the_command_line_says():
    assert get_worker(serializer="pickle", worker_ttl=420).serializer is JSONSerializer


def test_the_worker_logs_its_queues(caplog):
    caplog.set_level(logging.INFO)
    get_worker().work(burst=True)
    assert re.search(r"worker=\w+ queues=default", caplog.text)


def test_a_worker_that_starts_waits_for_redis(monkeypatch, caplog):
    errors = [exceptions.ConnectionError("nobody"), exceptions.ReadOnlyError("replica")]

    def write(*args, **kwargs):
        if errors:
            raise errors.pop(0)

    monkeypatch.setattr("redis.Redis.set", write)
    monkeypatch.setattr(worker.time, "sleep", lambda seconds: None)
    assert get_worker().work(burst=True) is False
    assert caplog.messages[:2] == [
        "The worker waits for Redis: nobody",
        "The worker waits for Redis: replica",
    ]


def test_a_worker_waits_if_its_redis_becomes_a_replica(monkeypatch):
    steps = []

    def dequeue(*args):
        steps.append("dequeue")
        if len(steps) == 1:
            raise exceptions.ReadOnlyError("replica")

    monkeypatch.setattr("rq.Worker.dequeue_job_and_maintain_ttl", dequeue)
    instance = get_worker()
    monkeypatch.setattr(worker, "wait_for_redis", lambda connection: steps.append("wait"))
    instance.dequeue_job_and_maintain_ttl(None)
    assert steps == ["dequeue", "wait", "dequeue"]


def test_a_work_horse_shares_no_connection(monkeypatch):
    """An error that the worker logs is mailed by a job, over a connection that stays open."""
    done = []
    monkeypatch.setattr(worker.connections, "close_all", lambda: done.append("closed"))
    monkeypatch.setattr("rq.Worker.fork_work_horse", lambda *_: done.append("forked"))
    get_worker().fork_work_horse(None, None)
    assert done == ["closed", "forked"]


def test_in_a_work_horse_redis_has_the_sites_short_timeout(monkeypatch):
    """RQ's worker sets its own long timeout on the connections that the site uses too."""
    pool = get_queue().connection.connection_pool
    monkeypatch.setattr(pool, "connection_kwargs", pool.connection_kwargs | {"socket_timeout": 1})
    instance = get_worker()
    assert pool.connection_kwargs["socket_timeout"] > 1
    seen = []
    monkeypatch.setattr("rq.Worker.main_work_horse", lambda *_: seen.append(pool.connection_kwargs))
    instance.main_work_horse(None, None)
    assert seen[0]["socket_timeout"] == 1


def test_a_worker_calls_only_the_sites_own_function(queue, work, tmp_path):
    """Whoever can write to Redis cannot run code with it."""
    queue.enqueue("os.mkdir", str(tmp_path / "function"))
    job = queue.enqueue("jobs.worker.run", str(uuid4()), 1)
    for name in ("success", "failure", "stopped"):
        queue.connection.hset(job.key, f"{name}_callback_name", "os.getpid")
    hook = {"url": "http://localhost/", "method": "GET", "headers": None, "timeout": 1}
    queue.connection.hset(job.key, "webhooks", json.dumps([hook | {"job_status": "finished"}]))
    work()
    assert not (tmp_path / "function").exists()
    job.refresh()
    assert job.func is worker.run
    assert job.success_callback is job.failure_callback is job.stopped_callback is None
    assert not job.webhooks


def test_a_heartbeat_touches_the_file_of_the_health_check(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    get_worker().heartbeat()
    assert (tmp_path / "worker-heartbeat").exists()


def test_an_attempt_does_not_start_twice(queue, work):
    tasks.calls.clear()
    tasks.add.enqueue(1)
    job_queue.send(Job.objects.all())
    assert queue.count == 2
    work()
    assert tasks.calls == [(1, 0)]


def test_a_deleted_job_does_not_run():
    worker.run(uuid4(), 1)
    assert Job.objects.count() == 0


def test_two_workers_with_the_same_row_start_one_attempt():
    tasks.add.enqueue(1)
    first, second = Job.objects.get(), Job.objects.get()
    assert first.claim("first")
    assert not second.claim("second")
    assert Job.objects.get().worker_ids == ["first"]


@pytest.mark.parametrize("followed", [True, False])
def test_a_worker_that_froze_during_its_claim_does_not_run_the_task(monkeypatch, followed):
    tasks.add.enqueue(1)
    frozen = Job.objects.get()
    refresh = Job.refresh_from_db

    def freeze(job):
        monkeypatch.undo()
        assert Job.objects.get().fail(ValueError())
        if followed:
            assert Job.objects.get().claim("second")
        refresh(job)

    monkeypatch.setattr(Job, "refresh_from_db", freeze)
    assert not frozen.claim("first")
    assert Job.objects.get().worker_ids == ["first", "second"][: 1 + followed]


def test_an_attempt_that_another_worker_started_is_left_alone(work, monkeypatch):
    tasks.calls.clear()
    tasks.add.enqueue(1)
    monkeypatch.setattr(Job, "claim", lambda *args: False)
    work()
    assert tasks.calls == []


def test_an_attempt_logs_one_line_without_its_arguments(work, caplog):
    caplog.set_level(logging.INFO)
    result = tasks.add.enqueue(1234567)
    work()
    lines = [record.getMessage() for record in caplog.records if "job=" in record.getMessage()]
    (line,) = lines
    assert re.fullmatch(
        rf"job={result.id} task=jobs\.tests\.tasks\.add queue=default attempt=1 "
        r'seconds=\d+\.\d\d outcome="done"',
        line,
    )
    assert "1234567" not in caplog.text


def test_the_line_of_a_failed_attempt_has_the_first_line_of_the_error(hook, work, caplog):
    def fail(context):
        raise ValueError("duplicate key\nDETAIL: a row")

    caplog.set_level(logging.INFO)
    hook(fail)
    work()
    assert 'outcome="raised ValueError: duplicate key"' in caplog.text
    assert "a row" not in caplog.text


def test_the_line_of_a_syntax_error_has_its_text():
    with pytest.raises(SyntaxError) as error:
        compile("1 +", "file.py", "exec")
    assert first_line(error.value) == "SyntaxError: invalid syntax"


def test_a_commit_block_is_committed_together_with_the_jobs_success(work):
    tasks.write.enqueue("name")
    work()
    assert (Group.objects.count(), Job.objects.get().status) == (1, "SUCCESSFUL")


def test_a_commit_block_that_raises_is_rolled_back(work):
    tasks.raise_while_writing.enqueue("name")
    work()
    assert (Group.objects.count(), Job.objects.get().status) == (0, "READY")


def test_an_error_after_the_commit_is_logged_and_changes_nothing(work, caplog):
    tasks.write_and_raise.enqueue("name")
    work()
    assert (Group.objects.count(), Job.objects.get().status) == (1, "SUCCESSFUL")
    assert "raised after commit()" in caplog.text


def test_an_error_in_a_callback_of_the_commit_is_logged_and_changes_nothing(hook, work, caplog):
    def write(context):
        with context.commit():
            transaction.on_commit(lambda: 1 / 0)

    hook(write)
    work()
    assert Job.objects.get().status == "SUCCESSFUL"
    assert "ZeroDivisionError" in caplog.text


def test_an_attempt_commits_once(work, caplog):
    tasks.commit_twice.enqueue()
    work()
    assert Job.objects.get().status == "SUCCESSFUL"
    assert "call commit() once" in caplog.text


def test_commit_is_refused_inside_another_transaction(hook, work):
    def nest(context):
        with transaction.atomic(), context.commit():
            pass

    result = hook(nest)
    work()
    result.refresh()
    assert "durable" in result.errors[0].traceback


def test_an_attempt_that_was_given_up_commits_nothing(hook, work, caplog):
    caplog.set_level(logging.INFO)

    def give_up_then_write(context):
        Job.objects.update(status="READY")
        with context.commit():
            Group.objects.create(name="name")

    hook(give_up_then_write)
    work()
    assert Group.objects.count() == 0
    assert 'outcome="given up before it ended"' in caplog.text


def test_a_job_object_counts_as_committed_only_after_the_commit(hook, work):
    seen = []

    def look(context):
        with context.commit():
            seen.append(context.job.committed)
        seen.append(context.job.committed)

    hook(look)
    work()
    assert seen == [False, True]


@pytest.mark.parametrize("exception", [None, ValueError, Superseded])
def test_an_attempt_that_was_given_up_changes_nothing_when_it_ends(hook, work, exception):
    def give_up(context):
        Job.objects.update(status="READY", attempts=5)
        if exception:
            raise exception

    hook(give_up)
    work()
    job = Job.objects.get()
    assert (job.status, job.attempts, job.errors) == ("READY", 5, [])


class Unreadable(Exception):
    def __str__(self):
        raise ValueError


@pytest.mark.parametrize("exception", [CancelledError, SystemExit, Unreadable])
def test_an_attempt_that_raises_anything_odd_fails(hook, work, exception):
    def fail(context):
        raise exception

    result = hook(fail)
    work()
    result.refresh()
    assert result.errors[0].exception_class is exception


def test_a_shutdown_costs_no_retry(hook, work):
    def shut_down(context):
        raise ShutDownImminentException("SIGRTMIN", {})

    hook(shut_down)
    work()
    job = Job.objects.get()
    assert (job.status, job.attempts, job.failures, job.errors) == ("READY", 1, 0, [])
    assert job.due <= timezone.now() + timedelta(seconds=1)


def test_an_attempt_over_its_timeout_fails(hook, work):
    def overrun(context):
        raise JobTimeoutException

    hook(overrun)
    work()
    assert Job.objects.get().failures == 1


def test_progress_is_reported_at_most_five_times_a_second(hook, work):
    def report(context):
        for percent in range(50):
            context.progress(percent)

    result = hook(report)
    work()
    assert job_queue.get_progress([result.id]) == {result.id: 0}


def test_a_job_continues_if_its_progress_cannot_be_stored(hook, work, monkeypatch):
    """A Redis that hangs costs it one timeout, not one for each report."""
    tries = []

    def lose_redis(context):
        monkeypatch.setattr(job_queue, "REPORT_EVERY", 0)
        monkeypatch.setattr(job_queue.cache, "set", fail)
        context.progress(1)
        context.progress(2)
        monkeypatch.undo()

    def fail(*args):
        tries.append(args)
        raise job_queue.RedisError

    hook(lose_redis)
    work()
    assert Job.objects.get().status == "SUCCESSFUL"
    assert len(tries) == 1


def test_a_pickled_job_in_redis_is_not_run(queue, work, bomb):
    tasks.calls.clear()
    tasks.add.enqueue(1)
    (pk,) = queue.job_ids
    queue.connection.hset(f"rq:job:{pk}", "data", bomb)
    work()
    assert tasks.calls == []


# --- Several queues -------------------------------------------------------------------------------


@pytest.fixture
def low(settings, monkeypatch):
    """Return a second queue, added as an owner would."""
    monkeypatch.setitem(settings.RQ_QUEUES, "low", settings.RQ_QUEUES["default"])
    settings.TASKS = {"default": settings.TASKS["default"] | {"QUEUES": [*settings.RQ_QUEUES]}}
    return get_queue("low")


def test_a_queue_named_in_the_settings_works_everywhere(low, queue, work):
    tasks.calls.clear()
    result = tasks.add.using(queue_name="low").enqueue(1)
    assert (low.count, queue.count) == (1, 0)
    low.connection.flushdb()
    Job.objects.update(due=timezone.now() - timedelta(minutes=1))
    for _ in range(3):
        clock.tick()
    assert (low.count, queue.count) == (1, 0)
    assert tasks.add.get_result(result.id).task.queue_name == "low"
    work()
    assert tasks.calls == []
    get_worker("low", worker_class=ThreadWorker, serializer="json").work(burst=True)
    assert tasks.calls == [(1, 0)]


def test_the_jobs_of_a_queue_that_is_gone_do_not_raise(queue):
    result = tasks.add.enqueue(1)
    Job.objects.update(queue_name="gone")
    with pytest.raises(TaskResultDoesNotExist):
        tasks.add.get_result(result.id)
