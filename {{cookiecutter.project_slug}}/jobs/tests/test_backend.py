"""The backend: what Django's documentation says, queues, progress, and the backend for tests."""

import json
import logging
import time
from datetime import timedelta
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group
from django.core.cache import cache
from django.core.checks import run_checks
from django.db import IntegrityError, connection, transaction
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_rq import get_queue

from config.compat import (
    InvalidTask,
    TaskResultDoesNotExist,
    TaskResultMismatch,
    TaskResultStatus,
    signals,
    task,
)
from jobs import queue as job_queue
from jobs.backend import Backend, QueueFull
from jobs.models import Job
from jobs.tests import tasks

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def heard():
    """Return a list of the signals sent, each as its name and the result's status and id."""
    heard = []

    def listen(name):
        def receiver(sender, task_result, **kwargs):
            assert sender is Backend
            heard.append((name, str(task_result.status), task_result.id))

        return receiver

    receivers = {name: listen(name) for name in ("task_enqueued", "task_started", "task_finished")}
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver)
    yield heard
    for name, receiver in receivers.items():
        getattr(signals, name).disconnect(receiver)


def test_a_task_runs_and_its_result_is_successful(work):
    before = timezone.now() - timedelta(seconds=1)
    result = tasks.add.enqueue(1, second=2)
    assert result.status == TaskResultStatus.READY
    assert (result.args, result.kwargs, result.backend) == ([1], {"second": 2}, "default")
    assert (result.attempts, result.started_at, result.finished_at) == (0, None, None)
    with pytest.raises(ValueError, match="not finished"):
        result.return_value  # noqa: B018  (it raises)
    work()
    result.refresh()
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.is_finished
    assert result.return_value == 3
    assert result.attempts == len(result.worker_ids) == 1
    times = [result.enqueued_at, result.started_at, result.last_attempted_at, result.finished_at]
    assert before < times[0] <= times[1] == times[2] <= times[3]


def test_async_methods_enqueue_and_read_results(work):
    async def enqueue():
        return await tasks.add.aenqueue(1, 2)

    async def look(pk):
        result = await tasks.add.aget_result(pk)
        await result.arefresh()
        return result

    pk = async_to_sync(enqueue)().id
    work()
    assert async_to_sync(look)(pk).return_value == 3


def test_an_async_task_runs(work):
    result = tasks.add_async.enqueue(1, 2)
    work()
    assert tasks.add_async.get_result(result.id).return_value == 3


def test_a_result_is_found_by_its_id_and_task():
    result = tasks.add.enqueue(1)
    assert tasks.add.get_result(result.id) == result
    with pytest.raises(TaskResultMismatch):
        tasks.fail.get_result(result.id)
    for pk in (str(uuid4()), "no id", "", "\0", "x" * 1000):
        with pytest.raises(TaskResultDoesNotExist):
            tasks.add.get_result(pk)


def test_a_result_does_not_exist_without_its_task():
    result = tasks.add.enqueue(1)
    Job.objects.update(task="jobs.tests.tasks.no_task")
    with pytest.raises(TaskResultDoesNotExist):
        tasks.add.get_result(result.id)


def test_options_are_set_on_the_task():
    assert (tasks.add.timeout, tasks.add.retries) == (30, (5, 15, 45))
    tasks.write.enqueue("name")
    job = Job.objects.get()
    assert (job.timeout, job.retries) == (7, [5, 15, 45])


@pytest.mark.parametrize(
    "options",
    [
        {"retries": 3},
        {"retries": (10**9,)},
        {"timeout": 0},
        {"timeout": 10**9},
        {"timeout": "1"},
        {"retries": (-1,)},
    ],
)
def test_a_bad_option_is_refused_where_the_task_is_declared(options):
    with pytest.raises(InvalidTask):
        task(**options)(tasks.no_task)


def test_priority_and_unknown_queues_are_refused():
    with pytest.raises(InvalidTask, match="priority"):
        tasks.add.using(priority=1)
    with pytest.raises(InvalidTask, match="nowhere"):
        tasks.add.using(queue_name="nowhere")
    with pytest.raises(InvalidTask, match="aware"):
        tasks.add.using(run_after=timezone.now().replace(tzinfo=None))


def test_a_deferred_task_waits(queue):
    result = tasks.add.using(run_after=timezone.now() + timedelta(hours=1)).enqueue(1)
    assert queue.count == 0
    assert Job.objects.get().due - result.enqueued_at > timedelta(minutes=59)


def test_arguments_must_be_json_and_stay_out_of_redis(queue):
    secret = "value-that-nobody-may-see"
    tasks.add.enqueue(secret, second={"a": (1, None)})
    assert Job.objects.get().kwargs == {"second": {"a": [1, None]}}
    (pk,) = queue.job_ids
    assert json.loads(queue.fetch_job(pk).data)[2] == [str(Job.objects.get().pk), 1]
    for key in queue.connection.scan_iter():
        assert secret.encode() not in (queue.connection.dump(key) or b"")
    with pytest.raises(TypeError):
        tasks.add.enqueue(object())
    assert Job.objects.count() == 1


def test_a_task_that_raises_is_retried_and_then_fails(work, caplog):
    result = tasks.fail.enqueue("first")
    work()
    result.refresh()
    assert result.status == TaskResultStatus.READY
    assert Job.objects.get().due - timezone.now() > timedelta(seconds=5)
    (error,) = result.errors
    assert error.exception_class is ValueError
    assert "first" in error.traceback
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    job_queue.send(Job.objects.all())
    work()
    result.refresh()
    assert result.status == TaskResultStatus.FAILED
    assert len(result.errors) == result.attempts == 2
    assert result.finished_at
    with pytest.raises(ValueError, match="failed"):
        result.return_value  # noqa: B018  (it raises)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "has failed for good" in record.getMessage()


def test_a_return_value_that_is_not_json_fails_the_attempt(work):
    result = tasks.return_no_json.enqueue()
    work()
    result.refresh()
    line = "The return value of jobs.tests.tasks.return_no_json is not JSON: Unsupported type"
    assert line in result.errors[0].traceback


def test_characters_that_postgres_cannot_store_are_replaced_in_errors(work):
    def fail(context):
        raise ValueError("NUL \0 and half a pair \ud800")

    tasks.hooks["hook"] = fail
    result = tasks.call_back.enqueue("hook")
    work()
    result.refresh()
    assert "ValueError: NUL ? and half a pair ?" in result.errors[0].traceback


def test_a_task_that_exits_fails_the_attempt(work):
    result = tasks.leave.enqueue()
    work()
    result.refresh()
    assert result.errors[0].exception_class is SystemExit


def test_signals_are_sent(work, heard):
    done = tasks.add.enqueue(1).id
    work()
    failed = tasks.fail_once_and_for_all.enqueue().id
    work()
    assert heard == [
        ("task_enqueued", "READY", done),
        ("task_started", "RUNNING", done),
        ("task_finished", "SUCCESSFUL", done),
        ("task_enqueued", "READY", failed),
        ("task_started", "RUNNING", failed),
        ("task_finished", "FAILED", failed),
    ]


def test_nothing_runs_if_the_transaction_is_rolled_back(queue, work):
    tasks.calls.clear()
    with pytest.raises(IntegrityError), transaction.atomic():
        tasks.add.enqueue(1)
        raise IntegrityError
    work()
    assert (Job.objects.count(), tasks.calls) == (0, [])


def test_jobs_are_sent_after_the_commit_in_one_round_trip(queue, monkeypatch):
    sent = []
    monkeypatch.setattr(job_queue, "send", sent.append)
    with transaction.atomic(durable=True):
        first = tasks.add.enqueue(1)
        with transaction.atomic():
            second = tasks.add.enqueue(2)
            third = tasks.add.enqueue(3)
        with pytest.raises(IntegrityError), transaction.atomic():
            tasks.add.enqueue(4)
            raise IntegrityError
        assert sent == []
        fourth = tasks.add.enqueue(5)
        fifth = tasks.add.enqueue(6)
    ids = [[str(job.pk) for job in jobs] for jobs in sent]
    assert ids == [[first.id], [second.id, third.id], [fourth.id, fifth.id]]
    assert Job.objects.count() == 5


def test_outside_a_transaction_a_job_is_sent_at_once(queue):
    tasks.add.enqueue(1)
    assert queue.count == 1


def test_a_silent_redis_is_asked_once_and_loses_no_job(no_redis, caplog):
    with transaction.atomic():
        tasks.add.enqueue(1)
        with transaction.atomic():
            tasks.add.enqueue(2)
    for number in range(3):
        tasks.add.enqueue(number)
    assert Job.objects.count() == 5
    assert caplog.text.count("Redis does not answer") == 1


def test_a_full_queue_is_refused_except_to_the_schedule(settings):
    settings.JOBS_MAX_UNFINISHED = 2
    cache.set(job_queue.COUNTS_KEY, {"at": time.time(), "unfinished": {"default": 2}})
    with pytest.raises(QueueFull):
        tasks.add.enqueue(1)
    tasks.add.get_backend().enqueue(tasks.add, [1], {}, bounded=False)
    assert Job.objects.count() == 1


@pytest.mark.parametrize("missing", ["clock", "redis"])
def test_without_the_clocks_count_a_queue_is_bounded_too(missing, settings, monkeypatch, request):
    if missing == "redis":
        request.getfixturevalue("no_redis")
    monkeypatch.setattr(job_queue, "COUNTS_AGE", 0)
    settings.JOBS_MAX_UNFINISHED = 2
    for number in range(2):
        tasks.add.enqueue(number)
    with pytest.raises(QueueFull):
        tasks.add.enqueue(2)


def test_a_count_of_a_clock_that_has_stopped_is_not_believed(settings):
    settings.JOBS_MAX_UNFINISHED = 2
    stopped = time.time() - job_queue.COUNTS_LATE - 1
    cache.set(job_queue.COUNTS_KEY, {"at": stopped, "unfinished": {"default": 2}})
    tasks.add.enqueue(1)
    assert Job.objects.count() == 1


def test_jobs_that_redis_refuses_stay_in_the_table(no_redis, caplog):
    tasks.add.enqueue(1)
    job_queue.State.silent_until = 0.0
    job_queue.send(Job.objects.all())
    assert Job.objects.get().status == "READY"
    assert caplog.text.count("Redis does not answer") == 2


def test_redis_is_sent_a_limited_number_of_jobs(queue):
    counts = {"default": job_queue.MAX_IN_REDIS}
    cache.set(job_queue.COUNTS_KEY, {"at": time.time(), "unfinished": counts})
    tasks.add.enqueue(1)
    assert (Job.objects.count(), queue.count) == (1, 0)


def test_redis_is_sent_a_limited_number_of_jobs_of_one_transaction(queue, monkeypatch):
    monkeypatch.setattr(job_queue, "MAX_IN_REDIS", 2)
    with transaction.atomic():
        for number in range(3):
            tasks.add.enqueue(number)
    assert (Job.objects.count(), queue.count) == (3, 2)


class InATestCase(TestCase):
    def test_jobs_are_sent_from_each_block_that_runs_callbacks(self):
        for number in (1, 2):
            with self.captureOnCommitCallbacks(execute=True):
                tasks.add.enqueue(number)
            assert get_queue().count == number


def test_enqueueing_takes_one_statement():
    cache.set(job_queue.COUNTS_KEY, {"at": time.time(), "unfinished": {}})
    with CaptureQueriesContext(connection) as queries:
        tasks.add.enqueue(1)
    assert len([query for query in queries if query["sql"].startswith("INSERT")]) == 1
    assert not [query for query in queries if query["sql"].startswith(("SELECT", "UPDATE"))]


def test_a_queue_that_rq_does_not_have_is_an_error(settings):
    settings.TASKS = {"default": settings.TASKS["default"] | {"QUEUES": ["default", "nowhere"]}}
    (error,) = [error for error in run_checks() if error.id == "jobs.E001"]
    assert "'nowhere'" in error.msg


def test_a_task_commits_and_returns_its_value(work):
    result = tasks.write.enqueue("name")
    work()
    assert Group.objects.get().name == "name"
    assert tasks.write.get_result(result.id).return_value == "name"


def test_without_redis_there_is_no_progress(no_redis):
    assert job_queue.get_progress([uuid4()]) == {}


def test_progress_is_found_by_the_jobs_id():
    job = Job(timeout=60)
    job.report_after = 0
    job_queue.report_progress(job, 35)
    assert job_queue.get_progress([job.pk, uuid4()]) == {job.pk: 35}


# --- The backend for the owner's tests ------------------------------------------------------------


@pytest.fixture
def immediate(settings):
    settings.TASKS = {"default": {"BACKEND": "jobs.testing.ImmediateBackend"}}


@pytest.mark.usefixtures("immediate")
def test_a_task_runs_at_once_where_it_is_enqueued():
    result = tasks.add.enqueue(1, second=2)
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.return_value == 3


@pytest.mark.usefixtures("immediate")
def test_a_task_that_raises_fails_without_a_retry():
    result = tasks.fail.enqueue()
    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is ValueError
    assert Job.objects.get().attempts == 1


@pytest.mark.usefixtures("immediate")
def test_the_context_works_as_in_a_worker():
    tasks.hooks["hook"] = lambda context: context.progress(100 * context.attempt)
    with transaction.atomic():
        assert tasks.write.enqueue("name").return_value == "name"
        assert tasks.call_back.enqueue("hook").status == TaskResultStatus.SUCCESSFUL
    assert Group.objects.count() == 1
