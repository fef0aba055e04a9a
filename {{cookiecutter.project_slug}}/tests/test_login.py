import pytest
from django.urls import reverse

from config import login

pytestmark = pytest.mark.django_db

LOGIN = reverse("admin:login")


@pytest.fixture
def attempt(client, admin_user):
    """Return a function that tries to log in, and says whether that was let through."""

    def attempt(password, *, username="admin", address="192.0.2.1"):
        response = client.post(
            LOGIN,
            {"username": username, "password": password},
            headers={"x-forwarded-for": address},
        )
        if "Too many attempts" in response.text:
            return "refused"
        return "in" if response.status_code == 302 else "wrong"

    return attempt


def test_after_a_few_wrong_passwords_the_right_one_is_refused_too(attempt):
    outcomes = [attempt("wrong") for _ in range(login.ATTEMPTS + 1)]
    assert outcomes == ["wrong"] * login.ATTEMPTS + ["refused"]
    assert attempt("password") == "refused"


def test_other_addresses_and_names_are_not_affected(attempt):
    for _ in range(login.ATTEMPTS):
        attempt("wrong")
    assert attempt("wrong", username="other") == "wrong"
    assert attempt("password", address="192.0.2.2") == "in"


def test_what_the_client_says_of_its_address_is_not_believed(attempt):
    outcomes = [attempt("wrong", address=f"10.0.0.{i}, 192.0.2.1") for i in range(6)]
    assert outcomes[-1] == "refused"


def test_the_addresses_of_one_ipv6_network_are_counted_together(attempt):
    outcomes = [attempt("wrong", address=f"2001:db8:0:1:{i}::1") for i in range(1, 7)]
    assert outcomes[-1] == "refused"
    assert attempt("password", address="2001:db8:0:2::1") == "in"


def test_ipv4_addresses_are_told_apart_however_they_are_written(attempt):
    outcomes = [attempt("wrong", address=f"::ffff:192.0.2.{i}") for i in range(1, 7)]
    assert "refused" not in outcomes


def test_what_is_no_address_is_counted_as_it_stands(attempt):
    assert [attempt("wrong", address="unknown") for _ in range(6)][-1] == "refused"


def test_without_redis_nobody_logs_in_and_the_form_says_so(client, admin_user, no_redis):
    response = client.post(LOGIN, {"username": "admin", "password": "password"})
    assert response.status_code == 200
    assert "Nobody can log in just now" in response.text


def test_the_right_password_starts_the_count_anew(attempt):
    for _ in range(login.ATTEMPTS - 1):
        attempt("wrong")
    assert attempt("password") == "in"
    assert attempt("wrong") == "wrong"


def test_the_name_is_counted_even_if_it_is_missing(attempt):
    assert attempt("", username="") == "wrong"
