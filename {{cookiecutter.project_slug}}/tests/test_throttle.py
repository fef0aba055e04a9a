"""Requests are counted by the address they come from, and every login form is throttled."""

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import aauthenticate, authenticate
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.views import LoginView
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from redis.exceptions import RedisError

from config import throttle, urls
from config.throttle import Throttle, client_address, throttled


@throttled(limit=2, period=60)
def counted(request):
    return HttpResponse("done")


@method_decorator(throttled(limit=2), name="dispatch")
class Counted(View):
    def post(self, request):
        return HttpResponse("done")


@method_decorator(throttled(limit=2), name="dispatch")
class Other(Counted):
    pass


class Plain(View):
    def post(self, request):
        return HttpResponse("done")


class PlainToo(Plain):
    pass


urlpatterns = [
    path("view/", counted),
    path("class/", Counted.as_view()),
    path("other/", Other.as_view()),
    path("wrapped/", throttled(limit=2)(Plain.as_view())),
    path("wrapped-too/", throttled(limit=2)(PlainToo.as_view())),
    # Django's login page, as an owner would add it. The test reads its form's errors.
    path("login/", LoginView.as_view(template_name="base.html", next_page="/")),
    *urls.urlpatterns,
]

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


@pytest.mark.parametrize("url", ["/view/", "/class/"])
def test_an_address_can_post_to_a_view_up_to_the_limit(client, url):
    assert [client.post(url).status_code for _ in range(3)] == [200, 200, 429]
    assert client.post(url, headers={"x-forwarded-for": "192.0.2.2"}).status_code == 200


@pytest.mark.parametrize(("url", "other"), [("/class/", "/other/"), ("/wrapped/", "/wrapped-too/")])
def test_each_class_of_views_has_a_throttle_of_its_own(client, url, other):
    assert [client.post(url).status_code for _ in range(3)] == [200, 200, 429]
    assert client.post(other).status_code == 200


def test_an_asynchronous_view_is_refused_where_it_is_declared():
    async def view(request):
        """Nobody calls it."""

    with pytest.raises(TypeError, match="synchronous"):
        throttled(limit=2)(view)


def test_past_the_limit_the_page_says_what_to_do(client):
    for _ in range(3):
        response = client.post("/view/")
    assert response["Retry-After"] == "60"
    assert response["HX-Reswap"] == "none"
    assert "Try again later" in response.text


def test_get_requests_are_not_counted(client):
    assert {client.get("/view/").status_code for _ in range(4)} == {200}


def test_without_redis_everything_is_allowed(client, no_redis):
    assert {client.post("/view/").status_code for _ in range(4)} == {200}


def test_a_count_ends_after_the_period():
    throttle = Throttle("test", 1, 60)
    assert throttle.allows("ada")
    assert not throttle.allows("ada")
    (key,) = cache.get_master_client().keys("*throttle:test:*")
    assert 0 < cache.get_master_client().ttl(key) <= 60
    cache.get_master_client().delete(key)
    assert throttle.allows("ada")


def test_client_addresses_are_not_stored_in_redis():
    Throttle("test", 1, 60).allows("ada")
    assert not cache.get_master_client().keys("*ada*")


# --- Addresses -------------------------------------------------------------------------------


@pytest.fixture
def address(rf, settings):
    """Return a function that returns the client's address behind a proxy on this machine."""

    def address(forwarded, *, trusted=("127.0.0.1",), remote="127.0.0.1"):
        settings.FORWARDED_ALLOW_IPS = list(trusted)
        headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
        return client_address(rf.get("/", headers=headers, REMOTE_ADDR=remote))

    return address


@pytest.mark.parametrize(
    "written",
    [
        "192.0.2.1",
        " 192.0.2.1 ",
        "192.0.2.1:51234",
        "::ffff:192.0.2.1",
        "::FFFF:C000:0201",
        "[::ffff:192.0.2.1]:443",
        '"192.0.2.1:51234"',
    ],
)
def test_every_spelling_of_an_ipv4_address_is_the_same_client(address, written):
    assert address(written) == "192.0.2.1"


@pytest.mark.parametrize(
    "written",
    [
        "2001:db8:0:1::1",
        "2001:DB8:0:1:ffff::2",
        "2001:0db8:0000:0001:0000:0000:0000:0003",
        "[2001:db8:0:1::4]",
        "[2001:db8:0:1::5]:443",
        '"[2001:db8:0:1::6]:443"',
        "2001:db8:0:1::7%eth0",
    ],
)
def test_every_address_of_an_ipv6_network_is_the_same_client(address, written):
    assert address(written) == "2001:db8:0:1::/64"


def test_different_ipv6_networks_are_different_clients(address):
    assert address("2001:db8:0:2::1") != address("2001:db8:0:1::1")


@pytest.mark.parametrize("written", ["unknown", "_hidden", "1.2.3", "[::1", "a:b", "%"])
def test_text_that_is_not_an_address_counts_as_it_is(address, written):
    assert address(written) in {written, "::/64"}


def test_an_address_that_the_client_claims_is_not_trusted(address):
    assert address("10.0.0.1, 192.0.2.1") == "192.0.2.1"
    assert address("10.0.0.1, 192.0.2.1", trusted=["*"]) == "192.0.2.1"


def test_without_a_proxy_the_header_is_not_trusted(address):
    assert address("10.0.0.1", remote="192.0.2.1") == "192.0.2.1"
    assert address(None, remote="192.0.2.1") == "192.0.2.1"
    assert address(" , ") == "127.0.0.1"


@pytest.mark.parametrize("cdn", ["198.51.100.7", "::ffff:198.51.100.7", "[::ffff:198.51.100.7]:80"])
def test_a_chain_of_known_proxies_leads_to_the_first_unknown_address(address, cdn):
    forwarded = f"10.0.0.1, 192.0.2.1, {cdn}"
    for trusted in (["127.0.0.1", "198.51.100.0/24"], ["*", "198.51.100.0/24"]):
        assert address(forwarded, trusted=trusted) == "192.0.2.1"


def test_ipv4_addresses_on_an_ipv6_socket_are_recognised(address):
    assert address("192.0.2.1", remote="::ffff:127.0.0.1") == "192.0.2.1"


def test_a_unix_socket_has_no_address(address):
    assert address("192.0.2.1", trusted=["*"], remote="") == "192.0.2.1"
    assert address(None, trusted=["*"], remote="") == ""


# --- Logins ---------------------------------------------------------------------------------------


@pytest.fixture
def attempt(client, admin_user):
    """Return a function that tries to log in and returns whether it was let through."""

    def attempt(password, *, username="admin", address="192.0.2.1", url="/login/"):
        response = client.post(
            url,
            {"username": username, "password": password},
            headers={"x-forwarded-for": address},
        )
        if response.status_code == 302:
            return "in"
        errors = str(response.context["form"].errors)
        if "Too many attempts" in errors:
            return "refused"
        if "Nobody can log in right now" in errors:
            return "closed"
        return "wrong"

    return attempt


def test_after_too_many_wrong_passwords_the_right_one_is_refused_too(attempt):
    outcomes = [attempt("wrong") for _ in range(6)]
    assert outcomes == ["wrong"] * 5 + ["refused"]
    assert attempt("password") == "refused"


@pytest.mark.ignore_template_errors  # the admin's own template
def test_every_login_form_counts(attempt):
    outcomes = [attempt("wrong", url=url) for url in ["/login/", "/admin/login/"] * 3]
    assert outcomes == ["wrong"] * 5 + ["refused"]


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


def test_credentials_of_another_backend_are_not_counted(rf):
    for _ in range(6):
        assert authenticate(rf.post("/"), token="good") is None


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
