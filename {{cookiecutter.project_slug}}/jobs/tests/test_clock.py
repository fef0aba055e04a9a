import signal
import threading
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rq.job import JobStatus

from config import servers
from jobs import clock, schedule
from jobs import queue as job_queue
from jobs.models import Job
from jobs.tasks import clear_sessions
from jobs.tests import tasks

pytestmark = pytest.mark.django_db(transaction=True)

AGO = timezone.now() - timedelta(minutes=1)


@pytest.fixture
def lost(queue):
    """Return a job that Redis does not know about."""
    tasks.add.enqueue(1)
    Job.objects.update(due=AGO)
    queue.connection.flushdb()
    return Job.objects.get()


@pytest.fixture
def running(lost):
    """Return a job that a worker has started."""
    lost.claim("worker")
    return lost


def tick_later():
    """Tick as a clock does after INTERVAL, when jobs may be sent again."""
    cache.delete("jobs:resent:default")
    clock.tick()


def test_a_job_that_redis_lost_is_sent_again(lost, queue, work):
    clock.tick()
    assert queue.job_ids == [lost.rq_id(1)]
    work()
    assert Job.objects.get().status == "SUCCESSFUL"


def test_a_young_job_is_left_to_the_process_that_committed_it(lost, queue):
    Job.objects.update(due=timezone.now())
    clock.tick()
    assert queue.count == 0


def test_a_job_that_is_not_due_waits(lost, queue):
    Job.objects.update(due=timezone.now() + timedelta(minutes=1))
    clock.tick()
    assert queue.count == 0


def test_a_queued_job_is_not_queued_again(lost, queue):
    for _ in range(3):
        clock.tick()
    assert queue.count == 1


def test_a_job_that_a_worker_is_about_to_claim_is_not_queued_again(lost, queue):
    # A worker writes this before it forks.
    queue.connection.zadd(queue.started_job_registry.key, {f"{lost.rq_id(1)}:execution": 2**40})
    clock.tick()
    assert queue.count == 0


def test_a_job_that_is_in_redis_but_in_no_queue_is_sent_again(lost, queue):
    job_queue.send([lost])
    queue.connection.delete(queue.key)
    clock.tick()
    assert queue.job_ids == [lost.rq_id(1)]


def test_redis_gets_the_oldest_jobs_and_only_as_many_as_it_may_hold(
    lost, queue, monkeypatch, django_assert_num_queries
):
    monkeypatch.setattr(job_queue, "MAX_IN_REDIS", 2)
    for age in (3, 4, 5):
        tasks.add.enqueue(age)
        Job.objects.filter(args=[age]).update(due=AGO - timedelta(minutes=age))
    queue.connection.flushdb()
    clock.tick()
    sent = {Job.objects.get(args=[age]).rq_id(1) for age in (4, 5)}
    assert set(queue.job_ids) == sent
    cache.delete("jobs:resent:default")
    with django_assert_num_queries(0):  # Redis is full
        clock.resend_lost("default")
    queue.connection.lpop(queue.key)
    tick_later()
    assert set(queue.job_ids) == sent


def test_an_attempt_that_ran_out_of_time_fails(running, caplog):
    Job.objects.update(due=AGO)
    clock.tick()
    job = Job.objects.get()
    assert (job.status, job.attempts, job.failures) == ("READY", 1, 1)
    assert job.errors[0]["exception_class_path"] == "jobs.clock.AttemptLost"
    assert 'outcome="given up"' in caplog.text


def test_a_running_attempt_is_left_alone(running):
    clock.tick()
    assert Job.objects.get().status == "RUNNING"


def test_the_attempt_of_a_dead_work_horse_fails(running, queue):
    job_queue.send([Job(pk=running.pk, task="x", queue_name="default", timeout=30)])
    rq_job = queue.fetch_job(running.rq_id(1))
    rq_job.set_status(JobStatus.FAILED)
    queue.failed_job_registry.add(rq_job)
    clock.tick()
    assert Job.objects.get().failures == 1


def test_the_attempt_of_a_worker_without_a_heartbeat_fails(running, queue):
    job_queue.send([Job(pk=running.pk, task="x", queue_name="default", timeout=30)])
    queue.remove(running.rq_id(1))
    queue.fetch_job(running.rq_id(1)).set_status(JobStatus.STARTED)
    queue.connection.zadd(queue.started_job_registry.key, {f"{running.rq_id(1)}:execution": 1})
    clock.tick()
    assert Job.objects.get().failures == 1


def test_a_work_horse_that_died_before_its_claim_does_not_fail_the_next_attempt(lost, queue):
    """If Postgres was down, for example. The next attempt has the same number."""
    job_queue.send([lost])
    queue.failed_job_registry.add(queue.fetch_job(lost.rq_id(1)))
    queue.remove(lost.rq_id(1))
    clock.tick()
    assert queue.job_ids == [lost.rq_id(1)]
    lost.claim("worker")
    clock.tick()
    assert Job.objects.get().status == "RUNNING"


def test_a_job_given_up_for_good_is_reported_as_failed(running, caplog):
    Job.objects.update(due=AGO, retries=[])
    clock.tick()
    assert Job.objects.get().status == "FAILED"
    assert "has failed for good" in caplog.text


def test_an_attempt_that_is_being_committed_is_not_given_up(running, monkeypatch):
    """Its row is locked, or has just changed."""
    Job.objects.update(due=AGO)
    stale = Job.objects.get()
    Job.objects.update(status="SUCCESSFUL")
    clock.give_up(stale)
    assert (Job.objects.get().status, Job.objects.get().failures) == ("SUCCESSFUL", 0)


def test_a_failing_step_does_not_stop_the_others(lost, queue, monkeypatch, caplog):
    monkeypatch.setattr(schedule, "enqueue_due", lambda: 1 / 0)
    assert clock.tick() is False
    assert queue.count == 1
    assert "The clock's step" in caplog.text


def test_attempts_run_out_of_time_even_without_redis(running, no_redis, caplog):
    Job.objects.update(due=AGO)
    assert clock.tick() is False
    assert (
        "The clock's step publish failed: redis.exceptions.ConnectionError: no Redis"
        in caplog.messages
    )
    assert Job.objects.get().failures == 1


def test_two_clocks_that_tick_at_once_send_a_job_once(lost, queue):
    clock.tick()
    cache.touch("jobs:resent:default", 60)  # this machine may be slow
    # As if the second clock had looked before the first one sent.
    queue.connection.delete(queue.key)
    clock.tick()
    assert queue.count == 0


def test_a_job_runs_once_with_two_clocks(lost, queue, work):
    tasks.calls.clear()
    clock.tick()
    queue.connection.delete(queue.key)
    tick_later()
    work()
    assert tasks.calls == [(1, 0)]


def test_finished_jobs_are_purged_after_a_day_in_batches(lost, monkeypatch):
    monkeypatch.setattr(clock, "BATCH", 2)
    for number in range(5):
        tasks.add.enqueue(number)
    two_days_ago = timezone.now() - timedelta(days=2)
    Job.objects.exclude(pk=lost.pk).update(status="SUCCESSFUL", finished_at=two_days_ago)
    with CaptureQueriesContext(connection) as queries:
        clock.purge()
    assert list(Job.objects.all()) == [lost]
    assert len([query for query in queries if query["sql"].startswith("DELETE")]) == 3


def test_every_transaction_of_a_tick_has_an_idle_limit(running, settings, monkeypatch):
    """So a clock that freezes in one does not keep the others waiting."""
    limits = []

    def atomic(idle_seconds):
        limits.append(idle_seconds)
        return servers.atomic(idle_seconds=idle_seconds)

    for module in (clock, schedule):
        monkeypatch.setattr(module, "atomic", atomic)
    settings.SCHEDULE = {"jobs.tasks.clear_sessions": "0 3 * * *"}
    tasks.add.enqueue(2)
    two_days_ago = timezone.now() - timedelta(days=2)
    Job.objects.exclude(pk=running.pk).update(status="SUCCESSFUL", finished_at=two_days_ago)
    Job.objects.filter(pk=running.pk).update(due=AGO)
    with CaptureQueriesContext(connection) as queries:
        clock.tick()
    begun = [query for query in queries if query["sql"].startswith("BEGIN")]
    assert len(begun) == len(limits) == 4


def test_a_job_that_is_run_again_during_a_purge_is_kept(lost, monkeypatch):
    two_days_ago = timezone.now() - timedelta(days=2)
    Job.objects.update(status="FAILED", finished_at=two_days_ago)

    def run_again(pks):
        Job.objects.get().run_again()
        return list(pks)

    monkeypatch.setattr(clock, "list", run_again, raising=False)
    clock.purge()
    assert Job.objects.get().status == "READY"


def test_a_purge_deletes_a_limited_number(monkeypatch):
    monkeypatch.setattr(clock, "BATCH", 1)
    two_days_ago = timezone.now() - timedelta(days=2)
    for number in range(12):
        tasks.add.enqueue(number)
    Job.objects.update(status="SUCCESSFUL", finished_at=two_days_ago)
    clock.purge()
    assert Job.objects.count() == 2


def test_a_tick_counts_unfinished_jobs(lost, settings):
    settings.JOBS_MAX_UNFINISHED = 3
    for number in range(4):
        tasks.add.enqueue(number)
    clock.tick()
    assert cache.get(job_queue.COUNTS_KEY)["unfinished"]["default"] == 3


def test_the_command_ticks_until_it_is_stopped(lost, queue, monkeypatch, tmp_path):
    """SIGTERM arrives while the command waits for its second tick, and ends it after that."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    waits = []

    class Event(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            if len(waits) > 1:
                handlers[signal.SIGTERM]()

    monkeypatch.setattr(threading, "Event", Event)
    call_command("clock")
    assert waits == [clock.INTERVAL] * 2
    assert (tmp_path / "clock-heartbeat").exists()
    assert queue.count == 1


def test_a_failed_tick_sends_no_heartbeat(no_redis, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    class Event(threading.Event):
        def wait(self, timeout=None):
            self.set()

    monkeypatch.setattr(threading, "Event", Event)
    call_command("clock")
    assert not (tmp_path / "clock-heartbeat").exists()


def test_clear_sessions_deletes_expired_sessions(work):
    Session.objects.create(session_key="old", expire_date=timezone.now() - timedelta(days=1))
    Session.objects.create(session_key="new", expire_date=timezone.now() + timedelta(days=1))
    clear_sessions.enqueue()
    work()
    assert Session.objects.get().session_key == "new"


# --- Tasks that no worker can import ---------------------------------------------------------


def test_a_task_that_cannot_be_imported_waits_for_a_worker_that_can(work):
    tasks.add.enqueue(1)
    # However long ago its last attempt was: the next one may have been deferred.
    last = timezone.now() - timedelta(days=2)
    Job.objects.update(task="jobs.tests.tasks.of_a_newer_version", last_attempted_at=last)
    work()
    job = Job.objects.get()
    assert (job.status, job.attempts, job.last_attempted_at) == ("READY", 0, last)
    assert job.due - timezone.now() > timedelta(seconds=50)


@pytest.mark.parametrize("path", ["jobs.tests.tasks.gone", "os.path"])
def test_a_task_that_no_worker_can_import_fails_after_a_day(path, work, caplog):
    two_days_ago = timezone.now() - timedelta(days=2)
    tasks.add.enqueue(1)
    # However old the job is: it may have been deferred.
    Job.objects.update(task=path, enqueued_at=two_days_ago)
    work()
    assert Job.objects.get().status == "READY"
    Job.objects.update(missing_since=two_days_ago, due=two_days_ago)
    job_queue.send(Job.objects.all())
    work()
    job = Job.objects.get()
    assert job.status == "FAILED"
    assert "ImportError" in job.errors[0]["traceback"]
    assert "has failed for good" in caplog.text
    job.run_again()
    job_queue.send(Job.objects.all())
    work()
    assert Job.objects.get().status == "READY"


def test_a_task_whose_module_raises_fails_after_a_day_too(work, caplog, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    tasks.add.enqueue(1)
    Job.objects.update(task="broken.task", missing_since=timezone.now() - timedelta(days=2))
    work()
    assert Job.objects.get().status == "FAILED"
    assert "has failed for good" in caplog.text


def test_a_job_that_is_cancelled_while_its_task_is_missing_fails_once(work, caplog, monkeypatch):
    def cancel(job):
        Job.objects.get().cancel()
        raise ImportError("no such task")

    monkeypatch.setattr(Job, "get_task", cancel)
    tasks.add.enqueue(1)
    work()
    job = Job.objects.get()
    assert (job.status, len(job.errors)) == ("FAILED", 1)
    assert "has failed for good" not in caplog.text
