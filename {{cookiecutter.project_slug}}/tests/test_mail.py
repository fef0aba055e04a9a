import logging

import django
import pytest
from django.core import mail
from django.core.cache import cache
from django.db import IntegrityError
from django.urls import path

from config.mail import QUIET, AdminEmailHandler, Formatter, mail_settings

logger = logging.getLogger("anything")

ADDRESSES = ["one@example.org", "two@example.org"]
OPTIONS = {"host": "mail.example.org", "username": "me", "password": "p@ss/word", "timeout": 5}


def broken(request):
    raise RuntimeError(request.POST["reason"])


urlpatterns = [path("broken/", broken)]


@pytest.fixture
def admins(settings):
    pairs = django.VERSION < (6, 0)
    settings.ADMINS = [("", address) for address in ADDRESSES] if pairs else ADDRESSES


@pytest.fixture
def sent(admins, mailoutbox):
    """Return a function that takes the mails sent since it was called last."""

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


# --- EMAIL_URL -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "port", "encryption"),
    [
        ("smtp", 25, {}),
        ("smtp+tls", 587, {"use_tls": True}),
        ("smtps", 465, {"use_ssl": True}),
    ],
)
def test_the_scheme_of_the_url_says_how_to_connect(monkeypatch, scheme, port, encryption):
    url = f"{scheme}://me:p%40ss%2Fword@mail.example.org"
    monkeypatch.setattr("django.VERSION", (6, 1))
    mailer = mail_settings(url)["MAILERS"]["default"]
    assert mailer["BACKEND"] == "django.core.mail.backends.smtp.EmailBackend"
    assert mailer["OPTIONS"] == OPTIONS | encryption | {"port": port}
    assert mail_settings(f"{url}:2525")["MAILERS"]["default"]["OPTIONS"]["port"] == 2525


def test_older_djangos_have_a_setting_for_each_part(monkeypatch):
    monkeypatch.setattr("django.VERSION", (5, 2))
    settings = mail_settings("smtp+tls://me:secret@mail.example.org:2525")
    assert settings == {
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "EMAIL_HOST": "mail.example.org",
        "EMAIL_PORT": 2525,
        "EMAIL_HOST_USER": "me",
        "EMAIL_HOST_PASSWORD": "secret",
        "EMAIL_USE_TLS": True,
        "EMAIL_TIMEOUT": 5,
    }


@pytest.mark.parametrize("url", ["mail.example.org", "http://example.org", "smtp:", "smtp://h:x"])
def test_a_url_that_cannot_work_is_refused(url):
    with pytest.raises(ValueError, match=r"EMAIL_URL|Port"):
        mail_settings(url)


# --- Errors ----------------------------------------------------------------------------------


@pytest.mark.urls(__name__)
def test_an_error_of_a_request_is_mailed_to_the_admins_but_not_what_was_posted(client, sent):
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


def test_a_row_that_postgres_quotes_is_in_no_mail_and_in_no_log(sent):
    text = "duplicate key\nDETAIL:  Key (value)=(the\nsecret) exists.\n"
    try:
        raise IntegrityError(text)
    except IntegrityError as error:
        logger.exception("it failed: %s", error)
    (message,) = sent()
    assert message.body.count("duplicate key\nDETAIL: left out") == 2
    assert "secret" not in message.body


def test_the_same_error_is_mailed_once_in_a_while(sent):
    for number in range(3):
        log_failure(str(number))
    logger.error("another")
    assert [m.subject.partition("ERROR: ")[2] for m in sent()] == ["sorry: 0", "another"]
    redis = cache.get_master_client()
    assert [0 < redis.ttl(key) <= QUIET for key in redis.scan_iter("*mailed:*")] == [True, True]


def test_without_redis_one_error_is_mailed_in_a_while(sent, no_redis, monkeypatch):
    monkeypatch.setattr(AdminEmailHandler, "quiet_until", 0)
    log_failure()
    logger.error("another")
    assert len(sent()) == 1


def test_a_mail_that_cannot_be_sent_is_logged_and_harms_nobody(sent, monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise ConnectionRefusedError("no server")

    monkeypatch.setattr("config.mail.mail_admins", refuse)
    log_failure()
    line = 'mail="ERROR: sorry: it failed" outcome="not sent: no server"'
    assert ("config.mail", logging.WARNING, line) in caplog.record_tuples


def test_the_log_is_written_in_the_same_form():
    formatters = {handler.formatter for handler in logging.root.handlers if handler.name}
    assert [type(formatter) for formatter in formatters] == [Formatter]


def test_nobody_is_mailed_where_there_are_no_admins(mailoutbox):
    log_failure()
    assert mailoutbox == []


def test_warnings_and_robots_are_not_mailed(client, sent, settings):
    logger.warning("careful")
    settings.ALLOWED_HOSTS = []
    assert client.get("/", headers={"host": "elsewhere"}).status_code == 400
    assert sent() == []


def test_mail_goes_out_by_djangos_own_functions(mailoutbox):
    mail.send_mail("Hello", "Text", None, ["you@example.org"])
    assert mailoutbox[0].from_email == "root@localhost"
