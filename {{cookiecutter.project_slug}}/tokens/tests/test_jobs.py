import logging
import pickle
import re

import pytest
from django.core.cache import cache
from redis.exceptions import RedisError
from rq.job import Job
from rq.timeouts import JobTimeoutException

from tokens import jobs
from tokens.models import Token

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def broken(monkeypatch):
    """Make every attempt of a job raise."""

    def new_value():
        raise RuntimeError("broken")

    monkeypatch.setattr("tokens.jobs.new_value", new_value)


def run_every_attempt(queue, work):
    """Run the jobs in the queue and each attempt that follows, without waiting between."""
    work()
    while job_ids := queue.scheduled_job_registry.get_job_ids():
        for job_id in job_ids:
            queue.scheduled_job_registry.remove(job_id)
            queue.enqueue_job(queue.fetch_job(job_id))
        work()


def test_a_job_makes_the_token(pending, work):
    jobs.enqueue(pending)
    work()
    pending.refresh_from_db()
    assert pending.state == Token.State.READY
    assert len(pending.value) == 64


def test_a_job_that_runs_twice_makes_one_value(pending, work):
    jobs.enqueue(pending)
    work()
    value = Token.objects.get().value
    jobs.enqueue(pending)
    work()
    assert Token.objects.get().value == value


def test_a_job_whose_token_was_deleted_does_nothing(pending, work, queue):
    jobs.enqueue(pending)
    pending.delete()
    work()
    assert Token.objects.count() == 0
    assert queue.failed_job_registry.count == 0


def test_the_value_is_in_no_part_of_the_job(pending, work, queue):
    jobs.enqueue(pending)
    work()
    value = Token.objects.get().value.encode()
    client = cache.get_master_client()
    for key in client.scan_iter():
        assert value not in (client.dump(key) or b"")
    assert client.exists(f"rq:job:{pending.pk}")


def test_a_job_that_raises_is_tried_again_then_fails(pending, work, queue, broken, caplog):
    jobs.enqueue(pending)
    work()
    assert Token.objects.get().state == Token.State.PENDING
    assert queue.scheduled_job_registry.count == 1
    run_every_attempt(queue, work)
    assert Token.objects.get().state == Token.State.FAILED
    assert queue.failed_job_registry.count == 1
    attempts = [r.args[2] for r in caplog.records if r.name == "tokens.jobs" and len(r.args) == 5]
    assert attempts == [1, 2, 3, 4]


def test_a_job_that_raises_once_is_ready_after_all(pending, work, queue, monkeypatch):
    values = iter([RuntimeError("once"), "value"])

    def new_value():
        value = next(values)
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr("tokens.jobs.new_value", new_value)
    jobs.enqueue(pending)
    run_every_attempt(queue, work)
    assert Token.objects.get().value == "value"


def test_a_job_over_its_time_is_tried_again(pending, work, queue, settings, monkeypatch):
    def sleep(seconds):
        raise JobTimeoutException

    monkeypatch.setattr("tokens.jobs.time.sleep", sleep)
    jobs.enqueue(pending)
    work()
    assert queue.scheduled_job_registry.count == 1


def test_a_failed_job_that_staff_requeue_makes_the_token(pending, work, queue, broken, monkeypatch):
    jobs.enqueue(pending)
    run_every_attempt(queue, work)
    assert Token.objects.get().state == Token.State.FAILED
    monkeypatch.setattr("tokens.jobs.new_value", lambda: "value")
    queue.failed_job_registry.requeue(str(pending.pk))
    work()
    assert Token.objects.get().value == "value"


def test_each_run_is_logged_in_one_line_without_the_value(pending, work, caplog):
    caplog.set_level(logging.INFO, logger="tokens.jobs")
    jobs.enqueue(pending)
    work()
    (line,) = [r.getMessage() for r in caplog.records if r.name == "tokens.jobs"]
    assert re.fullmatch(
        rf'job={pending.pk} token={pending.pk} attempt=1 seconds=\d+\.\d\d outcome="ready"', line
    )
    assert Token.objects.get().value not in line


def test_a_pickled_job_put_into_redis_is_not_run(pending, work, queue, bomb):
    jobs.enqueue(pending)
    queue.connection.hset(f"rq:job:{pending.pk}", "data", bomb)
    work()
    assert Token.objects.get().state == Token.State.PENDING


def test_the_progress_of_a_job_is_not_unpickled(pending, queue, monkeypatch, bomb):
    monkeypatch.setattr("rq.serializers.DefaultSerializer.loads", pickle.loads)
    jobs.enqueue(pending)
    queue.connection.hset(f"rq:job:{pending.pk}", "meta", bomb)
    jobs.add_progress([pending])


def test_progress_without_redis_is_queued(pending, no_redis):
    jobs.add_progress([pending])
    assert (pending.status, pending.progress) == ("queued", 0)


def test_progress_of_a_job_that_redis_forgot_while_it_ran_is_queued(pending, work, monkeypatch):
    def sleep(seconds):
        cache.get_master_client().flushdb()

    monkeypatch.setattr("tokens.jobs.time.sleep", sleep)
    jobs.enqueue(pending)
    work()
    jobs.add_progress([pending])
    assert pending.status == "queued"
    assert Token.objects.get().state == Token.State.READY


def test_a_job_finishes_though_its_progress_cannot_be_stored(pending, work, monkeypatch):
    def save_meta(self):
        raise RedisError

    monkeypatch.setattr(Job, "save_meta", save_meta)
    jobs.enqueue(pending)
    work()
    assert Token.objects.get().state == Token.State.READY


def test_progress_is_reported_by_the_running_job(pending, work, monkeypatch):
    monkeypatch.setattr("tokens.conf.WORK_SECONDS", 2)
    seen = []

    def sleep(seconds):
        jobs.add_progress([pending])
        seen.append((pending.status, pending.progress))

    monkeypatch.setattr("tokens.jobs.time.sleep", sleep)
    jobs.enqueue(pending)
    work()
    assert seen[0] == ("running", 0)
    assert seen[-1] == ("running", 90)
    assert [progress for _, progress in seen] == sorted(progress for _, progress in seen)


def test_a_job_that_failed_does_not_take_a_ready_token_back(token, caplog):
    jobs.fail(token.pk)
    token.refresh_from_db()
    assert token.state == Token.State.READY
    assert caplog.records == []


def test_jobs_are_stored_as_json(pending, queue):
    jobs.enqueue(pending)
    job = Job.fetch(str(pending.pk), queue.connection, queue.serializer)
    assert job.data.endswith(b'["%s"], {}]' % str(pending.pk).encode())
