"""What staff see of jobs: the admin, mail about errors, and the page for alarms."""

import logging
import time
from datetime import timedelta
from uuid import uuid4

import django
import pytest
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.db import DatabaseError, transaction
from django.http import HttpResponse
from django.urls import path, reverse
from django.utils import timezone

from config.middleware import HealthMiddleware
from jobs import clock, worker
from jobs.mail import QUIET, AdminEmailHandler
from jobs.models import Job
from jobs.queue import COUNTS_KEY
from jobs.tests import tasks

pytestmark = pytest.mark.django_db

LIST = reverse("admin:jobs_job_changelist")


@pytest.fixture
def job():
    tasks.add.enqueue(1)
    return Job.objects.get()


@pytest.fixture
def failed(job):
    job.claim("worker")
    Job.objects.update(retries=[])
    job.retries = []
    job.fail(ValueError("what went wrong"))
    return Job.objects.get()


def act(client, action, job):
    return client.post(LIST, {"action": action, "_selected_action": [job.pk]}, follow=True)


def test_the_list_shows_state_attempts_and_age(admin_client, job):
    page = admin_client.get(LIST).text
    assert "jobs.tests.tasks.add" in page
    assert "Ready" in page
    assert "minutes" in page


def test_a_job_is_shown_with_the_traceback_of_each_attempt(admin_client, failed):
    page = admin_client.get(reverse("admin:jobs_job_change", args=[failed.pk])).text
    assert "ValueError: what went wrong" in page


def test_a_job_without_errors_is_shown(admin_client, job):
    assert admin_client.get(reverse("admin:jobs_job_change", args=[job.pk])).status_code == 200


def test_rows_that_postgres_quotes_are_not_shown(admin_client, job):
    job.claim("worker")
    job.fail(ValueError("duplicate\nDETAIL:  Key (value)=(secret) exists."))
    page = admin_client.get(reverse("admin:jobs_job_change", args=[job.pk])).text
    assert "DETAIL: left out" in page
    assert "secret" not in page


def test_jobs_can_be_neither_added_nor_deleted(admin_client, job):
    assert admin_client.get(reverse("admin:jobs_job_add")).status_code == 403
    assert admin_client.get(reverse("admin:jobs_job_delete", args=[job.pk])).status_code == 403


def test_the_page_of_a_job_cannot_be_saved(admin_client, job):
    url = reverse("admin:jobs_job_change", args=[job.pk])
    assert 'name="_save"' not in admin_client.get(url).text
    assert admin_client.post(url, {"_save": "Save"}).status_code == 403


def test_a_failed_job_runs_again(admin_client, failed):
    assert "1 will run again." in act(admin_client, "run_again", failed).text
    job = Job.objects.get()
    assert (job.status, job.failures, job.finished_at) == ("READY", 0, None)


def test_a_job_that_has_not_failed_does_not_run_again(admin_client, job):
    assert "0 will run again." in act(admin_client, "run_again", job).text


def test_an_unfinished_job_is_cancelled(admin_client, job):
    assert "1 cancelled." in act(admin_client, "cancel", job).text
    job = Job.objects.get()
    assert job.status == "FAILED"
    assert job.errors[0]["exception_class_path"] == "jobs.models.Cancelled"


def test_a_cancelled_attempt_commits_nothing(admin_client, job):
    job.claim("worker")
    act(admin_client, "cancel", job)
    assert not job.succeed()


def test_a_finished_job_is_not_cancelled(admin_client, failed):
    assert "0 cancelled." in act(admin_client, "cancel", failed).text
    assert not failed.cancel()


def test_staff_who_can_only_view_jobs_have_no_actions(client, django_user_model, failed):
    user = django_user_model.objects.create_user("staff", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_job"))
    client.force_login(user)
    assert failed.task in client.get(LIST).text
    act(client, "run_again", failed)
    assert Job.objects.get().status == "FAILED"


@pytest.mark.parametrize(
    ("method", "path", "data"),
    [
        ("post", LIST, {"action": "run_again", "_selected_action": "x"}),
        ("post", LIST + "?enqueued_at__year=0", {}),
        ("options", LIST + "?enqueued_at__year=0", {}),
    ],
)
def test_a_bad_value_in_the_admin_is_not_the_sites_fault(admin_client, method, path, data):
    admin_client.raise_request_exception = False
    assert getattr(admin_client, method)(path, data).status_code == 400


def test_a_mistake_in_an_apps_admin_is_the_sites_fault(admin_client, job, monkeypatch):
    monkeypatch.setattr("jobs.admin.timesince", lambda time: {}["mistake"])
    admin_client.raise_request_exception = False
    assert admin_client.get(LIST).status_code == 500


# --- Mail -----------------------------------------------------------------------------------

logger = logging.getLogger("anything")

FORM = "application/x-www-form-urlencoded"


ADDRESSES = ["one@example.org", "two@example.org"]


def broken(request):
    raise RuntimeError(request.POST["reason"])


def busy(request, number=0):
    return HttpResponse(status=503)


urlpatterns = [
    path("broken/", broken),
    path("busy/<int:number>/", busy),
    path("busier/", busy),
]


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
    assert client.get("/favicon.ico", headers={"host": "elsewhere"}).status_code == 400
    settings.ALLOWED_HOSTS = ["testserver"]
    assert client.post("/admin/login/", "&" * 2000, FORM).status_code == 400
    assert client.post("/nowhere/", "&" * 2000, FORM).status_code == 404
    assert sent() == []


@pytest.mark.urls(__name__)
def test_each_page_that_is_unavailable_is_mailed(client, sent, monkeypatch):
    for url in ("/busy/1/", "/busy/2/", "/busier/"):
        assert client.get(url).status_code == 503
    assert [m.subject.partition("ERROR: ")[2] for m in sent()] == [
        "Service Unavailable: /busy/1/",
        "Service Unavailable: /busier/",
    ]


def test_a_process_that_is_about_to_stop_is_no_error(client, sent, monkeypatch):
    monkeypatch.setattr(HealthMiddleware, "draining", True)
    assert client.get("/healthz").status_code == 503
    assert sent() == []


def test_an_error_is_mailed_even_if_the_queue_is_full(sent, settings):
    settings.JOBS_MAX_UNFINISHED = 0
    log_failure()
    assert len(sent()) == 1


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


@pytest.mark.django_db(transaction=True)
def test_a_mail_that_cannot_be_enqueued_leaves_the_callers_transaction_alone(
    sent, monkeypatch, caplog, django_user_model
):
    def insert_twice(backend, task, *args, **kwargs):
        Job.objects.bulk_create([Job(pk=uuid4(), task="t", queue_name="q", timeout=1)] * 2)

    monkeypatch.setattr("jobs.backend.Backend.enqueue", insert_twice)
    with transaction.atomic():
        django_user_model.objects.create_user("ada")
        log_failure()
        assert django_user_model.objects.count() == 1
    assert "not sent" in caplog.text
    assert not Job.objects.exists()


def test_a_log_call_with_wrong_arguments_does_not_raise(sent, caplog):
    AdminEmailHandler().handle(logging.makeLogRecord({"msg": "%s and %s", "args": ("one",)}))
    assert 'outcome="not sent: not enough arguments' in caplog.text


def test_the_handler_honours_filters(sent):
    handler = AdminEmailHandler()
    handler.addFilter(lambda record: False)
    handler.handle(logging.makeLogRecord({"msg": "sorry"}))
    assert sent() == []


def test_characters_that_postgres_cannot_store_are_replaced_in_mail(sent):
    log_failure("a\0b\ud800")
    (message,) = sent()
    assert "a?b?" in message.subject


def test_jobs_of_different_tasks_that_lose_their_workers_are_different_errors(sent):
    for task in (tasks.add, tasks.fail):
        job = Job.objects.create(task=task.module_path, timeout=1, status="FAILED")
        worker.finish(job)
    assert len(sent()) == 2


def test_a_mail_that_cannot_be_sent_causes_one_more_and_no_flood(sent, monkeypatch):
    def refuse(*args, **kwargs):
        tried.append(args)
        raise ConnectionRefusedError("no server")

    tried = []
    monkeypatch.setattr("django.core.mail.mail_admins", refuse)
    log_failure()
    assert len(tried) == 2


# --- The page that shows whether the clock ticks --------------------------------------------------


HEALTH = reverse("jobs-health")


# A tick closes old connections, so these need transactions of their own.
@pytest.mark.django_db(transaction=True)
def test_health_is_good_while_the_clock_ticks_and_no_job_waits_long(client):
    tasks.add.enqueue(1)
    clock.tick()
    response = client.get(HEALTH)
    assert response.status_code == 200
    answer = response.json()
    assert 0 <= answer["last_tick_seconds"] < 60
    assert 0 <= answer["oldest_job_seconds"] < 60


def test_a_clock_that_never_ticked_raises_an_alarm(client):
    response = client.get(HEALTH)
    assert response.status_code == 503
    assert response.json() == {"last_tick_seconds": None, "oldest_job_seconds": 0}


def test_a_stopped_clock_raises_an_alarm(client):
    cache.set(COUNTS_KEY, {"at": time.time() - 90, "unfinished": {}})
    response = client.get(HEALTH)
    assert response.status_code == 503
    assert response.json()["last_tick_seconds"] >= 90


@pytest.mark.django_db(transaction=True)
def test_a_job_that_no_worker_takes_raises_an_alarm(client):
    clock.tick()
    tasks.add.enqueue(1)
    Job.objects.update(due=timezone.now() - timedelta(minutes=11))
    response = client.get(HEALTH)
    assert response.status_code == 503
    assert response.json()["oldest_job_seconds"] >= 660


def test_a_missing_redis_raises_an_alarm(client, no_redis):
    assert client.get(HEALTH).status_code == 503
