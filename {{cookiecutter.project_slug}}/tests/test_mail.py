import logging

import pytest
from django.core import mail

from config.mail import Formatter, mail_settings

OPTIONS = {"host": "mail.example.org", "username": "me", "password": "p@ss/word", "timeout": 5}


@pytest.mark.parametrize(
    ("scheme", "port", "encryption"),
    [
        ("smtp", 25, {}),
        ("smtp+tls", 587, {"use_tls": True}),
        ("smtps", 465, {"use_ssl": True}),
    ],
)
def test_the_scheme_of_the_url_sets_port_and_encryption(monkeypatch, scheme, port, encryption):
    url = f"{scheme}://me:p%40ss%2Fword@mail.example.org"
    monkeypatch.setattr("django.VERSION", (6, 1))
    mailer = mail_settings(url)["MAILERS"]["default"]
    assert mailer["BACKEND"] == "django.core.mail.backends.smtp.EmailBackend"
    assert mailer["OPTIONS"] == OPTIONS | encryption | {"port": port}
    assert mail_settings(f"{url}:2525")["MAILERS"]["default"]["OPTIONS"]["port"] == 2525


def test_older_djangos_get_a_setting_for_each_part(monkeypatch):
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
def test_a_bad_url_is_refused(url):
    with pytest.raises(ValueError, match=r"EMAIL_URL|Port"):
        mail_settings(url)


def test_djangos_own_functions_send_mail(mailoutbox):
    mail.send_mail("Hello", "Text", None, ["you@example.org"])
    assert mailoutbox[0].from_email == "root@localhost"


def test_rows_that_postgres_quotes_stay_out_of_the_log():
    text = "duplicate key\nDETAIL:  Key (value)=(the\nsecret) exists.\n"
    try:
        raise ValueError(text)
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "it failed: %s", "args": (error,)})
        record.exc_info = (ValueError, error, error.__traceback__)
    line = Formatter().format(record)
    assert line.count("duplicate key\nDETAIL: left out") == 2
    assert "secret" not in line.replace(r"(the\nsecret)", "")


def test_the_log_is_written_in_the_same_form():
    formatters = {handler.formatter for handler in logging.root.handlers if handler.name}
    assert [type(formatter) for formatter in formatters] == [Formatter]
