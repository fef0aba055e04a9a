import runpy
import time
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from uuid import UUID

import pytest
from django.core.cache import cache
from django.core.checks.security.base import _check_secret_key as secret_key_is_strong
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jobs.models import Job
from jobs.queue import send
from tokens import conf, models, tasks, visitors
from tokens.models import Token
from tokens.views import get_rows

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def asked(pending):
    """Return a pending token with its job."""
    pending.job = Job.objects.get(pk=tasks.make_token.enqueue(str(pending.pk)).id).pk
    pending.save()
    return pending


@pytest.fixture
def broken(monkeypatch):
    """Make every attempt of a job raise."""
    monkeypatch.setattr(tasks, "new_value", lambda: 1 / 0)


def test_a_job_makes_the_token(asked, work):
    work()
    asked.refresh_from_db()
    assert asked.state == Token.State.READY
    assert len(asked.value) == 64


def test_the_value_enters_neither_the_job_nor_the_log(asked, work, caplog):
    caplog.set_level("DEBUG")
    work()
    value = Token.objects.get().value
    client = cache.get_master_client()
    for key in client.scan_iter():
        assert value.encode() not in (client.dump(key) or b"")
    assert value not in caplog.text
    assert value not in str(Job.objects.values().get())


def test_a_failed_job_that_staff_run_again_makes_the_token(asked, work, monkeypatch):
    Job.objects.update(retries=[])
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "new_value", lambda: 1 / 0)
        work()
    asked.refresh_from_db()
    assert asked.state == Token.State.FAILED
    job = Job.objects.get()
    assert job.run_again()
    job.refresh_from_db()
    send([job])
    work()
    asked.refresh_from_db()
    assert asked.state == Token.State.READY


def test_the_job_of_a_deleted_token_does_nothing(asked, work):
    asked.delete()
    work()
    assert Token.objects.count() == 0
    assert Job.objects.get().status == "SUCCESSFUL"


def test_a_token_deleted_while_its_job_runs_stays_deleted(asked, work, monkeypatch):
    monkeypatch.setattr(tasks, "new_value", lambda: Token.objects.all().delete() and "value")
    work()
    assert Token.objects.count() == 0


def test_a_token_fails_with_its_job(asked, work, broken):
    Job.objects.update(retries=[])
    work()
    asked.refresh_from_db()
    assert asked.state == Token.State.FAILED


def shown():
    """Return the status and progress of the only token."""
    (row,) = get_rows(Token.objects.all())
    return row["status"], row["progress"]


def test_a_token_stays_pending_while_its_job_has_attempts_left(asked, work, broken):
    work()
    assert Token.objects.get().state == Token.State.PENDING
    assert shown() == ("retrying", 0)


def test_progress_is_reported_by_the_running_job(asked, work, monkeypatch):
    monkeypatch.setattr(conf, "WORK_SECONDS", 2)
    now = 0.0
    seen = []

    def sleep(seconds):
        nonlocal now
        now += seconds
        seen.append(shown())

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    work()
    assert seen[:10] == [("running", 10 * step) for step in range(10)]


def test_without_redis_progress_shows_queued(asked, no_redis):
    assert shown() == ("queued", 0)


def test_a_token_without_a_job_shows_queued(pending):
    assert shown() == ("queued", 0)


def test_expired_tokens_are_deleted_in_batches(visitor, token, monkeypatch):
    monkeypatch.setattr(tasks, "BATCH", 2)
    expired = timezone.now() - timedelta(hours=25)
    Token.objects.bulk_create(Token(visitor=visitor, created=expired) for _ in range(5))
    with CaptureQueriesContext(connection) as queries:
        tasks.tidy.call()
    assert list(Token.objects.all()) == [token]
    assert len([query for query in queries if query["sql"].startswith("DELETE")]) == 3


def test_a_pending_token_of_an_older_version_gets_a_job(pending, work):
    Token.objects.update(created=timezone.now() - timedelta(minutes=2))
    tasks.tidy.call()
    tasks.tidy.call()
    assert Job.objects.count() == 1
    work()
    assert Token.objects.get().state == Token.State.READY


def test_a_young_pending_token_is_left_alone(pending):
    tasks.tidy.call()
    assert Job.objects.count() == 0


def test_a_token_fails_if_its_jobs_failure_was_missed(asked):
    Token.objects.update(created=timezone.now() - timedelta(minutes=2))
    Job.objects.update(status="FAILED")
    tasks.tidy.call()
    assert Token.objects.get().state == Token.State.FAILED


def test_a_token_with_a_waiting_job_is_left_alone(asked):
    Token.objects.update(created=timezone.now() - timedelta(minutes=2))
    tasks.tidy.call()
    assert Token.objects.get().state == Token.State.PENDING
    assert Job.objects.count() == 1


# --- Models, settings and the cookie --------------------------------------------------------------


def test_a_value_can_be_a_secret_key_and_needs_no_quotes():
    values = {models.new_value() for _ in range(100)}
    assert len(values) == 100
    assert all(secret_key_is_strong(value) for value in values)
    assert all(value.isalnum() for value in values)


def test_sqlite_takes_no_lock(monkeypatch):
    monkeypatch.setattr(models, "connection", SimpleNamespace(vendor="sqlite"))
    assert models.lock(UUID(int=1)) is None


def test_postgres_takes_a_lock_for_the_visitor(monkeypatch):
    executed = []

    @contextmanager
    def cursor():
        yield SimpleNamespace(execute=lambda sql, params: executed.append((sql, params)))

    connection = SimpleNamespace(vendor="postgresql", cursor=cursor)
    monkeypatch.setattr(models, "connection", connection)
    models.lock(UUID(int=2**128 - 1))
    # The largest number that Postgres takes: a signed one with 64 bits.
    assert executed == [("SELECT pg_advisory_xact_lock(%s)", [2**63 - 1])]


def test_the_text_of_a_token_is_its_id_not_its_value():
    token = models.Token(value="secret")
    assert str(token) == str(token.pk)


def test_the_page_can_show_all_tokens_that_a_visitor_may_have():
    assert conf.PENDING_LIMIT <= conf.LIMIT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("TOKEN_WORK_SECONDS", value) for value in ("long", "-1", "60", "nan", "inf")],
        *[("TOKEN_RATE", value) for value in ("0", "-1", "often")],
        ("TOKEN_RATE_FILE", "/nowhere"),
    ],
)
def test_a_bad_value_stops_the_site_with_one_line(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=r"^The environment is wrong: .*$"):
        runpy.run_path(conf.__file__)


def test_over_https_the_cookie_has_the_host_prefix(settings):
    assert visitors.cookie_name() == "visitor"
    settings.SESSION_COOKIE_SECURE = True
    assert visitors.cookie_name() == "__Host-visitor"
