import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse
from django_rq import get_worker
from django_rq.urls import get_admin_urlpatterns, get_api_urlpatterns

# The dashboard's own templates use undefined variables.
pytestmark = [pytest.mark.django_db, pytest.mark.ignore_template_errors]

# A value for each argument that the dashboard's URLs take.
ARGUMENTS = {
    "queue_index": 0,
    "scheduler_index": 0,
    "connection_index": 0,
    "job_id": "job",
    "result_id": "result",
    "key": "rq:worker:name",
    "scheduler_name": "name",
    "cron_job_name": "name",
    "token": "token",
}

DASHBOARD = [
    reverse(
        f"admin:django_rq_{pattern.name}",
        kwargs={name: ARGUMENTS[name] for name in pattern.pattern.converters}
        | {name: ARGUMENTS[name] for name in pattern.pattern.regex.groupindex},
    )
    for pattern in get_admin_urlpatterns() + get_api_urlpatterns()
]


@pytest.fixture
def staff(django_user_model, client):
    user = django_user_model.objects.create_user("staff", password="password", is_staff=True)
    client.force_login(user)
    return user


@pytest.mark.django_db(transaction=True)
def test_the_dashboard_shows_the_queue_and_has_its_own_policy(admin_client, queue):
    job = queue.enqueue("operator.add", 1, 2)
    response = admin_client.get(reverse("admin:django_rq_jobs", args=[0]))
    assert job.id in response.text
    assert "'unsafe-inline'" in response["Content-Security-Policy"]


def test_a_field_that_a_form_names_but_does_not_exist_is_a_bad_request(client, django_user_model):
    user = django_user_model.objects.create_superuser("ada")
    client.force_login(user)
    client.raise_request_exception = False
    url = reverse("admin:users_user_change", args=[user.pk])
    assert client.post(f"{url}?_to_field=").status_code == 400


def test_staff_with_the_permission_can_open_the_dashboard(client, staff):
    staff.user_permissions.add(Permission.objects.get(codename="admin"))
    assert client.get(reverse("admin:django_rq_home")).status_code == 200


@pytest.mark.parametrize("url", DASHBOARD)
def test_every_page_of_the_dashboard_opens(admin_client, url):
    """Pages of existing things answer 200, those of missing ones 404, and actions need a POST."""
    assert admin_client.get(url).status_code in (200, 302, 404, 405)


@pytest.mark.parametrize("url", [reverse("admin:django_rq_jobs", args=[0])])
def test_without_redis_the_dashboard_says_so(admin_client, no_redis, url):
    assert admin_client.get(url).status_code == 503


@pytest.mark.django_db(transaction=True)
def test_the_dashboard_shows_and_requeues_a_failed_job(admin_client, queue, work):
    job = queue.enqueue("jobs.worker.run", "not an id", 1)
    work()
    assert job.id in admin_client.get(reverse("admin:django_rq_failed_jobs", args=[0])).text
    detail = reverse("admin:django_rq_result_detail", args=[0, job.id, job.latest_result().id])
    assert "not a valid UUID" in admin_client.get(detail).text
    admin_client.post(reverse("admin:django_rq_requeue_job", args=[0, job.id]))
    assert queue.job_ids == [job.id]


@pytest.mark.django_db(transaction=True)
def test_the_dashboard_shows_a_worker_without_unpickling_its_job(admin_client, queue, bomb):
    job = queue.enqueue("operator.add", 1, 2)
    worker = get_worker(serializer="json")
    worker.register_birth()
    worker.prepare_execution(job)
    queue.connection.hset(f"rq:job:{job.id}", "meta", bomb)
    response = admin_client.get(reverse("admin:django_rq_worker_details", args=[0, worker.key]))
    assert job.id in response.text


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("url", DASHBOARD)
def test_staff_without_the_permission_cannot_open_the_dashboard(client, staff, url, method):
    assert getattr(client, method)(url).status_code == 403


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("url", DASHBOARD)
def test_other_visitors_cannot_open_the_dashboard(client, url, method):
    response = getattr(client, method)(url)
    assert response.status_code in (302, 401)
    if response.status_code == 302:
        assert response["Location"].startswith(reverse("admin:login"))
