"""The pages that a site has whatever its apps are: error pages, the icon, the admin's login."""

import pytest
from django.db import OperationalError
from django.test import Client
from django.urls import path, reverse

from config import urls
from jobs.exceptions import QueueFull

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


def error(request):
    return 1 / 0


def no_database(request):
    raise OperationalError("no database")


def full(request):
    raise QueueFull("full")


urlpatterns = [
    path("error/", error),
    path("no-database/", no_database),
    path("full/", full),
    *urls.urlpatterns,
]
handler500 = urls.handler500


def test_an_error_gives_a_500_page(client):
    client.raise_request_exception = False
    response = client.get("/error/")
    assert response.status_code == 500
    assert "Something went wrong" in response.text
    assert "ZeroDivisionError" not in response.text


def test_an_exception_that_knows_when_to_try_again_gives_a_503_page(client):
    client.raise_request_exception = False
    response = client.get("/full/")
    assert response.status_code == 503
    assert response["Retry-After"] == "10"


def test_an_unreachable_database_gives_a_503_page(client):
    client.raise_request_exception = False
    response = client.get("/no-database/")
    assert response.status_code == 503
    assert response["Retry-After"]
    assert "Back in a moment" in response.text


def test_a_missing_page_gives_a_404_page_without_a_query(client, django_assert_num_queries):
    client.cookies["sessionid"] = "x"
    with django_assert_num_queries(0):
        response = client.get("/nowhere/")
    assert response.status_code == 404
    assert "Page not found" in response.text


def test_a_foreign_host_gives_a_400_page(client):
    response = client.get("/nowhere/", headers={"host": "example.org"})
    assert response.status_code == 400
    assert "Bad request" in response.text


def test_the_icon_is_found_where_browsers_look_for_it(client):
    assert client.get("/favicon.ico")["Location"] == "/static/config/favicon.svg"


@pytest.mark.parametrize(
    ("path", "queries"), [("/healthz", 0), ("/readyz", 1), (reverse("admin:login"), 0)]
)
def test_a_page_asks_no_more_than_it_needs(client, path, queries, django_assert_num_queries):
    with django_assert_num_queries(queries):
        client.get(path)


@pytest.fixture
def form(admin_user):
    """Return a function that posts the form of the login without its token."""
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


def test_a_form_that_has_expired_says_what_was_wrong(form):
    form.get()
    assert "CSRF token missing." in form().text
    response = form(origin="https://example.org")
    assert "Origin checking failed" in response.text
    assert "cookies" not in response.text
