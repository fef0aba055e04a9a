import signal
import threading
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rq.job import JobStatus

from tokens import clock, jobs
from tokens.management.commands import clock as command
from tokens.models import Token

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def old(pending):
    """Return a pending token that is old enough to be swept."""
    Token.objects.update(created=timezone.now() - timedelta(minutes=1))
    return pending


def test_a_pending_token_without_a_job_is_enqueued(old, work):
    clock.sweep()
    work()
    assert Token.objects.get().state == Token.State.READY


def test_a_young_pending_token_is_left_to_the_request_that_made_it(pending, queue):
    clock.sweep()
    assert queue.count == 0


def test_a_queued_token_is_not_enqueued_again(old, queue):
    jobs.enqueue(old)
    clock.sweep()
    clock.sweep()
    assert queue.count == 1


def test_a_token_that_waits_for_another_attempt_is_left_alone(old, queue, work, monkeypatch):
    monkeypatch.setattr("tokens.jobs.new_value", lambda: 1 / 0)
    jobs.enqueue(old)
    work()
    clock.sweep()
    assert queue.count == 0
    assert queue.scheduled_job_registry.count == 1


def test_a_token_whose_job_failed_unnoticed_fails(old, queue):
    jobs.enqueue(old)
    queue.remove(str(old.pk))
    job = queue.fetch_job(str(old.pk))
    job.set_status(JobStatus.FAILED)
    queue.failed_job_registry.add(job)
    clock.sweep()
    assert Token.objects.get().state == Token.State.FAILED


def test_a_token_whose_job_staff_canceled_fails(old, queue):
    jobs.enqueue(old)
    queue.fetch_job(str(old.pk)).cancel()
    clock.sweep()
    assert Token.objects.get().state == Token.State.FAILED


def test_a_job_that_a_worker_took_and_did_not_start_is_enqueued_again(old, queue):
    jobs.enqueue(old)
    queue.connection.lmove(queue.key, queue.intermediate_queue.key)
    clock.sweep()
    assert queue.job_ids == [str(old.pk)]
    assert queue.intermediate_queue.get_job_ids() == []


def test_the_job_of_a_dead_worker_gets_another_attempt(old, queue, monkeypatch):
    jobs.enqueue(old)
    queue.remove(str(old.pk))
    queue.fetch_job(str(old.pk)).set_status(JobStatus.STARTED)
    # What a worker writes before it runs a job; its heartbeat ran out a second ago.
    queue.connection.zadd(queue.started_job_registry.key, {f"{old.pk}:execution": 1})
    clock.sweep()
    assert queue.scheduled_job_registry.get_job_ids() == [str(old.pk)]


def test_an_attempt_is_enqueued_when_its_time_has_come(pending, queue, work, monkeypatch):
    monkeypatch.setattr("tokens.jobs.new_value", lambda: 1 / 0)
    jobs.enqueue(pending)
    work()
    clock.enqueue_retries()
    assert queue.count == 0
    queue.connection.zadd(queue.scheduled_job_registry.key, {str(pending.pk): 1})
    clock.enqueue_retries()
    assert queue.job_ids == [str(pending.pk)]


def test_expired_tokens_are_purged_in_batches(visitor, token, monkeypatch):
    monkeypatch.setattr(clock, "PURGE_BATCH", 2)
    expired = timezone.now() - timedelta(hours=25)
    Token.objects.bulk_create(Token(visitor=visitor, created=expired) for _ in range(5))
    with CaptureQueriesContext(connection) as queries:
        clock.purge()
    assert list(Token.objects.all()) == [token]
    assert len([query for query in queries if query["sql"].startswith("DELETE")]) == 3


def test_a_task_that_raises_does_not_stop_the_others(old, no_redis, caplog):
    Token.objects.update(created=timezone.now() - timedelta(hours=25))
    clock.tick()
    assert Token.objects.count() == 0
    assert "enqueue_retries failed" in caplog.text


def test_two_clocks_make_one_token(old, queue, work):
    clock.tick()
    clock.tick()
    work()
    assert Token.objects.get().state == Token.State.READY
    assert queue.failed_job_registry.count == 0


def test_the_command_ticks_until_it_is_told_to_stop(old, queue, monkeypatch, tmp_path):
    """SIGTERM comes while the command waits for its second tick, and ends it after that."""
    heartbeat = tmp_path / "heartbeat"
    monkeypatch.setattr(command, "HEARTBEAT", heartbeat)
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
    assert heartbeat.exists()
    assert queue.count == 1
