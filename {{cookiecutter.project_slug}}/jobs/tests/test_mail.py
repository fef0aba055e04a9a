import logging

import django
import pytest
from django.core.cache import cache
from django.db import DatabaseError
from django.urls import path

from jobs.mail import QUIET, AdminEmailHandler
from jobs.tests import tasks

logger = logging.getLogger("anything")

pytestmark = pytest.mark.django_db

ADDRESSES = ["one@example.org", "two@example.org"]


def broken(request):
    raise RuntimeError(request.POST["reason"])


urlpatterns = [path("broken/", broken)]


@pytest.fixture
def sent(settings, mailoutbox):
    """Let errors be mailed; return a function that returns the mails sent since its last call."""
    settings.TASKS = {"default": {"BACKEND": "jobs.testing.ImmediateBackend"}}
    pairs = django.VERSION < (6, 0)
    settings.ADMINS = [("", address) for address in ADDRESSES] if pairs else ADDRESSES

    def sent():
        taken = mailoutbox[:]
        mailoutbox.clear()
        return taken

    return sent


def log_failure(message="it failed"):
    try:
        raise RuntimeError(message)
    except RuntimeError:
        logger.exception("sorry: %s", message)


@pytest.mark.urls(__name__)
def test_the_error_of_a_request_is_mailed_to_the_admins_without_its_posted_data(client, sent):
    client.raise_request_exception = False
    form = {"reason": "out of luck", "password": "hunter2"}
    client.post("/broken/", form, headers={"x-request-id": "0123456789-0123456789"})
    (message,) = sent()
    assert message.to == ADDRESSES
    assert message.subject == "[localhost] ERROR: Internal Server Error: /broken/"
    assert "request_id=0123456789-0123456789" in message.body
    assert "RuntimeError: out of luck" in message.body
    assert "hunter2" not in message.body
    assert "Cookie" not in message.body


def test_the_same_error_is_mailed_once_every_ten_minutes(sent):
    for number in range(3):
        log_failure(str(number))
    logger.error("another")
    assert [m.subject.partition("ERROR: ")[2] for m in sent()] == ["sorry: 0", "another"]
    redis = cache.get_master_client()
    assert [0 < redis.ttl(key) <= QUIET for key in redis.scan_iter("*mailed:*")] == [True, True]


def test_without_redis_one_error_is_mailed_every_ten_minutes(sent, no_redis, monkeypatch):
    monkeypatch.setattr(AdminEmailHandler, "quiet_until", 0)
    log_failure()
    logger.error("another")
    assert len(sent()) == 1


def test_nobody_is_mailed_without_admins(mailoutbox):
    log_failure()
    assert mailoutbox == []


def test_warnings_and_robots_are_not_mailed(client, sent, settings):
    logger.warning("careful")
    settings.ALLOWED_HOSTS = []
    assert client.get("/", headers={"host": "elsewhere"}).status_code == 400
    assert sent() == []


def test_a_job_that_failed_for_good_is_mailed(sent):
    tasks.fail.enqueue("out of luck")
    (message,) = sent()
    assert "has failed for good" in message.subject
    assert "ValueError: out of luck" in message.body


def test_a_mail_that_cannot_be_enqueued_is_only_logged(sent, monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise DatabaseError("no database")

    monkeypatch.setattr("jobs.backend.Backend.enqueue", refuse)
    log_failure()
    line = 'mail="ERROR: sorry: it failed" outcome="not sent: no database"'
    assert ("jobs.mail", logging.WARNING, line) in caplog.record_tuples


def test_a_mail_that_cannot_be_sent_causes_one_more_and_no_flood(sent, monkeypatch):
    def refuse(*args, **kwargs):
        tried.append(args)
        raise ConnectionRefusedError("no server")

    tried = []
    monkeypatch.setattr("django.core.mail.mail_admins", refuse)
    log_failure()
    assert len(tried) == 2
