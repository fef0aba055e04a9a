import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from jobs.models import Job
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


def test_jobs_can_be_neither_added_nor_deleted(admin_client, job):
    assert admin_client.get(reverse("admin:jobs_job_add")).status_code == 403
    assert admin_client.get(reverse("admin:jobs_job_delete", args=[job.pk])).status_code == 403


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
