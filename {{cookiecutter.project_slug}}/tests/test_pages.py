"""Pages of every site, whatever its apps: error pages, the icon, the admin's login."""

import logging

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError, ProgrammingError
from django.http import HttpResponse
from django.template import engines
from django.test import Client
from django.urls import path, reverse

from config import urls, views
from config.middleware import REQUEST_ID, RequestIDFilter, RequestIDMiddleware
from jobs.backend import QueueFull

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


# What Postgres says about them.
NULS = {
    "text": "A string literal cannot contain NUL (0x00) characters.",
    "JSON": "unsupported Unicode escape sequence\nDETAIL:  \\u0000 cannot be converted to text.",
}


def error(request):
    return 1 / 0


def nul(request):
    raise ValueError(NULS[request.GET["where"]])


def no_database(request):
    raise OperationalError("no database")


def page(request):
    return HttpResponse("a page")


def full(request):
    raise QueueFull("full")


urlpatterns = [
    path("error/", error),
    path("no-database/", no_database),
    path("nul/", nul),
    path("full/", full),
    path("page/", page),
    *urls.urlpatterns,
]
handler500 = urls.handler500


def test_an_error_answers_500(client):
    client.raise_request_exception = False
    response = client.get("/error/")
    assert response.status_code == 500
    assert "Something went wrong" in response.text
    assert "ZeroDivisionError" not in response.text


def test_an_exception_with_retry_after_answers_503(client):
    client.raise_request_exception = False
    response = client.get("/full/")
    assert response.status_code == 503
    assert response["Retry-After"] == "10"


def test_an_unreachable_database_answers_503(client):
    client.raise_request_exception = False
    response = client.get("/no-database/")
    assert response.status_code == 503
    assert response["Retry-After"]
    assert "Back in a moment" in response.text


def test_a_missing_page_answers_404_without_a_query(client, django_assert_num_queries):
    client.cookies["sessionid"] = "x"
    with django_assert_num_queries(0):
        response = client.get("/nowhere/")
    assert response.status_code == 404
    assert "Page not found" in response.text


def test_an_unknown_host_answers_400(client):
    response = client.get("/nowhere/", headers={"host": "example.org"})
    assert response.status_code == 400
    assert "Bad request" in response.text


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("&" * 2000, "application/x-www-form-urlencoded"),
        ("a=1", "application/x-www-form-urlencoded; charset=latin-1"),
        ("a=1", "multipart/form-data"),
    ],
)
@pytest.mark.parametrize("path", ["/nowhere/", reverse("admin:login")])
def test_a_broken_form_is_not_the_sites_fault(path, body, content_type):
    """Even where Django's own error page reads it."""
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    client.cookies["csrftoken"] = "a" * 32
    response = client.post(path, body, content_type)
    assert response.status_code in (400, 403, 404)


def test_the_first_page_says_what_to_do_next(rf):
    assert "config/urls.py" in views.welcome(rf.get("/")).text


def test_what_is_rendered_once_sees_no_variables():
    source = "{% load site %}{% once %}{% if x %}Hi{% endif %}{% now 'u' %}{% endonce %}{{ x }}"
    template = engines["django"].from_string(source)
    first, second = (template.render({"x": name}) for name in ("Ada", "Bob"))
    assert first.replace("Ada", "Bob") == second
    assert "Hi" not in first


def test_the_icon_is_found_where_browsers_look_for_it(client):
    assert client.get("/favicon.ico")["Location"] == "/static/config/favicon.svg"


@pytest.mark.parametrize(
    ("path", "queries"), [("/healthz", 0), ("/readyz", 1), (reverse("admin:login"), 0)]
)
def test_a_page_makes_only_the_queries_it_needs(client, path, queries, django_assert_num_queries):
    with django_assert_num_queries(queries):
        client.get(path)


@pytest.fixture
def form(admin_user):
    """Return a function that posts the login form without its CSRF token."""
    client = Client(enforce_csrf_checks=True)

    def form(**headers):
        return client.post(reverse("admin:login"), headers=headers)

    form.get = lambda: client.get(reverse("admin:login"))
    return form


def test_a_form_without_a_cookie_asks_for_cookies(form):
    response = form()
    assert response.status_code == 403
    assert "Allow cookies" in response.text
    assert "CSRF cookie not set." in response.text


def test_an_expired_form_says_what_was_wrong(form):
    form.get()
    assert "CSRF token missing." in form().text
    response = form(origin="https://example.org")
    assert "Origin checking failed" in response.text
    assert "cookies" not in response.text


@pytest.mark.parametrize("where", NULS)
def test_a_nul_that_the_database_refuses_answers_400(client, where):
    client.raise_request_exception = False
    assert client.get("/nul/", {"where": where}).status_code == 400


def test_an_impossible_year_in_the_admin_answers_400(admin_client):
    admin_client.raise_request_exception = False
    url = reverse("admin:users_user_changelist")
    response = admin_client.get(url, {"last_login__year": "9" * 40})
    assert response.status_code in (302, 400)


def test_a_mistake_while_the_admin_writes_answers_500(admin_client, monkeypatch):
    def fail(*args, **kwargs):
        raise ProgrammingError("there is no such column")

    monkeypatch.setattr("django.db.models.Model.save", fail)
    admin_client.raise_request_exception = False
    password = {"usable_password": "true", "password1": "a" * 9 + "9", "password2": "a" * 9 + "9"}
    response = admin_client.post(reverse("admin:users_user_add"), {"username": "ada"} | password)
    assert response.status_code == 500


@pytest.mark.parametrize("queue", [99, 10**30])
def test_a_missing_queue_answers_404(admin_client, queue):
    assert admin_client.get(reverse("admin:django_rq_jobs", args=[queue])).status_code == 404


@pytest.mark.parametrize("page", ["add", "1/change", "1/delete", "1/history"])
def test_the_dashboard_has_no_pages_for_rows(admin_client, page):
    url = f"{reverse('admin:index')}django_rq/dashboard/{page}/"
    assert admin_client.get(url).status_code in (302, 403)


# --- Middleware -----------------------------------------------------------------------------------


GIVEN = "12345678-1234-1234-1234-123456789012"


def test_healthz_answers_any_host_without_a_query(client, settings, no_redis):
    settings.SECURE_SSL_REDIRECT = True
    response = client.get("/healthz", headers={"host": "10.0.0.1"})
    assert (response.status_code, response.text) == (200, "ok\n")


def test_healthz_fails_when_the_process_is_about_to_stop(client, monkeypatch):
    monkeypatch.setattr("config.middleware.HealthMiddleware.draining", True)
    assert client.get("/healthz").status_code == 503


def test_readyz_checks_database_and_redis(client):
    assert client.get("/readyz").status_code == 200


def test_readyz_names_what_does_not_answer(client, no_redis, monkeypatch):
    def cursor():
        raise OperationalError("no database")

    monkeypatch.setattr("config.servers.connection.cursor", cursor)
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.text == "no answer from: database, redis\n"


def test_the_routers_request_id_comes_back(client):
    assert client.get("/page/", headers={"x-request-id": GIVEN})["X-Request-ID"] == GIVEN


@pytest.mark.parametrize("given", ["", "short", "x" * 201, "a b c d e f g h i j k\nforged"])
def test_a_request_without_a_valid_id_gets_a_new_one(client, given):
    made = client.get("/page/", headers={"x-request-id": given})["X-Request-ID"]
    assert REQUEST_ID.fullmatch(made)
    assert made != client.get("/page/")["X-Request-ID"]


def test_log_lines_carry_the_id_of_their_request(rf):
    def view(request):
        record = logging.makeLogRecord({"msg": "seen"})
        RequestIDFilter().filter(record)
        return HttpResponse(record.request_id)

    response = RequestIDMiddleware(view)(rf.get("/", headers={"x-request-id": GIVEN}))
    assert response.text == GIVEN


def test_djangos_last_line_carries_the_id_too(client, caplog):
    caplog.handler.addFilter(RequestIDFilter())
    client.get("/nothing-here", headers={"x-request-id": GIVEN})
    assert [record.request_id for record in caplog.records] == [GIVEN]


def test_log_lines_outside_requests_have_a_dash():
    record = logging.makeLogRecord({})
    assert RequestIDFilter().filter(record)
    assert record.request_id == "-"


def test_pages_have_a_policy_against_inline_scripts_and_styles(client):
    policy = client.get("/page/")["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_a_long_body_is_refused_before_it_is_read(client, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    upload = SimpleUploadedFile("file", b"x" * 1000)
    assert client.post("/page/", {"file": upload}).status_code == 413
    assert client.post("/page/", {"file": "x"}).status_code != 413


def test_a_body_that_does_not_arrive_is_not_the_sites_error(client, monkeypatch, caplog):
    def read(self, *args):
        raise OSError("timed out")

    monkeypatch.setattr("django.test.client.FakePayload.read", read)
    client.raise_request_exception = False
    response = client.post("/admin/login/", {"username": "x"})
    assert response.status_code == 408
    assert {record.levelname for record in caplog.records} == {"WARNING"}
