"""Every login form is throttled."""

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import aauthenticate, authenticate
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.views import LoginView
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.urls import path, reverse
from redis.exceptions import RedisError

from config import throttle, urls

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.urls(__name__),
    pytest.mark.ignore_template_errors,  # the admin's template, outside the admin
]

# Django's login page, as an owner would add it, and the admin's.
urlpatterns = [
    path("login/", LoginView.as_view(template_name="admin/login.html", next_page="/")),
    *urls.urlpatterns,
]


@pytest.fixture(params=["/login/", reverse("admin:login")])
def attempt(request, client, admin_user):
    """Return a function that tries to log in and returns whether it was let through."""

    def attempt(password, *, username="admin", address="192.0.2.1"):
        response = client.post(
            request.param,
            {"username": username, "password": password},
            headers={"x-forwarded-for": address},
        )
        if "Too many attempts" in response.text:
            return "refused"
        if "Nobody can log in right now" in response.text:
            return "closed"
        return "in" if response.status_code == 302 else "wrong"

    return attempt


def test_after_too_many_wrong_passwords_the_right_one_is_refused_too(attempt):
    outcomes = [attempt("wrong") for _ in range(6)]
    assert outcomes == ["wrong"] * 5 + ["refused"]
    assert attempt("password") == "refused"


def test_a_refused_attempt_checks_no_password(attempt, monkeypatch):
    for _ in range(5):
        attempt("wrong")
    monkeypatch.setattr(ModelBackend, "authenticate", lambda *args, **kwargs: pytest.fail())
    assert attempt("wrong") == "refused"


def test_other_addresses_and_names_are_not_affected(attempt):
    for _ in range(5):
        attempt("wrong")
    assert attempt("wrong", username="other") == "wrong"
    assert attempt("password", address="192.0.2.2") == "in"


def test_an_address_has_a_limit_for_all_names_together(attempt, monkeypatch):
    monkeypatch.setattr(throttle.BY_ADDRESS, "limit", 7)
    outcomes = [attempt("wrong", username=f"name{number}") for number in range(8)]
    assert outcomes == ["wrong"] * 7 + ["refused"]
    assert attempt("password") == "refused"
    assert attempt("password", address="192.0.2.2") == "in"


def test_the_right_password_resets_the_count_of_the_name(attempt):
    for _ in range(4):
        attempt("wrong")
    assert attempt("password") == "in"
    assert [attempt("wrong") for _ in range(5)] == ["wrong"] * 5


def test_the_right_password_does_not_count_against_the_address(attempt, monkeypatch):
    monkeypatch.setattr(throttle.BY_ADDRESS, "limit", 2)
    assert [attempt("password") for _ in range(5)] == ["in"] * 5
    assert [attempt("wrong") for _ in range(3)] == ["wrong", "wrong", "refused"]


def test_without_redis_nobody_can_log_in_and_the_form_says_so(attempt, no_redis):
    assert attempt("password") == "closed"


def test_a_login_succeeds_if_redis_fails_after_the_password_check(attempt, monkeypatch):
    def fail(*args, **kwargs):
        raise RedisError

    monkeypatch.setattr(type(cache._connections["default"]), "delete", fail)
    assert attempt("password") == "in"


def test_a_missing_name_counts_too(attempt):
    assert attempt("", username="") == "wrong"


def test_scripts_without_a_request_are_not_counted(admin_user):
    for _ in range(6):
        assert authenticate(username="admin", password="wrong") is None
    assert authenticate(username="admin", password="password") == admin_user


@pytest.mark.django_db(transaction=True)
def test_asynchronous_logins_are_throttled_too(rf):
    request = rf.post("/")
    for _ in range(5):
        assert async_to_sync(aauthenticate)(request, username="ada", password="wrong") is None
    with pytest.raises(ValidationError):
        async_to_sync(aauthenticate)(request, username="ada", password="wrong")
