import logging
import os
import re
import runpy
from pathlib import Path

import pytest
from django.core import mail

from config.environment import env, read_env_file
from config.mail import Formatter, mail_settings

ROOT = Path(__file__).parent.parent

# Bad values of each variable, each bad for a different reason.
REFUSED = {
    "DEBUG": ["perhaps", '"true"'],
    "HTTPS": ["perhaps"],
    "LOG_LEVEL": ["LOUD"],
    "PORT": ["http", '"8000"', "0", "65536"],
    "WEB_CONCURRENCY": ["many", "0"],
    "DRAIN_SECONDS": ["-1", "a while"],
    "SECURE_HSTS_SECONDS": ["a year", "-1"],
    "SECURE_HSTS_INCLUDE_SUBDOMAINS": ["perhaps"],
    "SECURE_HSTS_PRELOAD": ["perhaps"],
    "ALLOWED_HOSTS": [
        "https://a.example.org",
        "a.example.org/",
        "a.example.org:443",
        '"a.example.org"',
        "a.example.org, 'b.example.org'",
        "a.example.org b.example.org",
        "*.example.org",
        "example.org.",
        "::1",
        "bücher.example",
    ],
    "CSRF_TRUSTED_ORIGINS": [
        "a.example.org",
        "https://a.example.org/",
        "https://a.example.org/path",
        '"https://a.example.org"',
        "https://",
    ],
    "FORWARDED_ALLOW_IPS": ["10.0.0.5:8000", "10.0.0.5/8", "proxy", '"10.0.0.5"', "10.0.0.5 ::1"],
    "DATABASE_URL": [
        "nonsense://host/name",
        "mysql://user@host/name",
        '"postgres://user@host/name"',
        "user@host/name",
        "postgres://user@host",
        "postgres://user@host:port/name",
        "postgres://user:pass#word@host/name",
        "postgres://user:pass[word@host/name",
        "sqlite://db.sqlite3",
        "sqlite://:memory:",
        "timescale://user@host/name",
        "postgres://user@host/name/",
        "postgres://user@host/name?no_such_option=1",
        "postgres://user@host/name?isolation_level=serializable",
        f"postgres://user@host/{'n' * 64}",
        "postgres://user:%00@host/name",
        "sqlite:////no/such/folder/file",
        "sqlite:///~/file",
        "sqlite:///file::memory:",
        f"sqlite:////{'f' * 300}/file",
    ],
    "EMAIL_URL": [
        "mail.example.org",
        '"smtp://mail.example.org"',
        "smtp://user:12#34@mail.example.org",
    ],
    "DEFAULT_FROM_EMAIL": [
        "example.org",
        "The Site <example.org>",
        "Example Inc. <site@example.org>",
        "mailto:site@example.org",
        "The Site <site@example.org",
        "a@example.org, b@example.org",
        *("ada@", "<", "Ada <ada@[>", " "),
    ],
    "ADMINS": [
        "ada",
        "Ada:ada@example.org",
        "'ada@example.org'",
        "ada@example.org grace@example.org",
    ],
    "REDIS_URL": [
        "localhost:6379",
        "http://localhost:6379",
        "'redis://localhost:6379/0'",
        "redis:/localhost:6379",
        "redis://localhost:port",
        "redis://localhost:6379/name",
        "redis://localhost:6379/0?no_such_option=1",
        "redis://localhost:6379/0?socket_timeout=long",
        "redis://localhost:6379/0?decode_responses=true",
        "redis://localhost:6379/0?retry=3",
        "redis://localhost:6379/0?maint_notifications_config=x",
        "unix:///run/redis.sock?decode_responses=true",
        "redis://user:12#34@localhost:6379",
        "redis://",
    ],
}

ACCEPTED = {
    "ALLOWED_HOSTS": {
        " a.example.org , B.example.org,": ["a.example.org", "b.example.org"],
        ".example.org,*,10.0.0.1,[::1],localhost": [
            *(".example.org", "*", "10.0.0.1", "[::1]", "localhost"),
        ],
        "": [],
    },
    "CSRF_TRUSTED_ORIGINS": {
        "https://A.example.org, http://*.example.org:8000": [
            *("https://a.example.org", "http://*.example.org:8000"),
        ],
    },
    "DEBUG": {"": False},
    "PORT": {"": 8000},  # Dokku's
    "DEFAULT_FROM_EMAIL": {
        address: address
        for address in (
            "The Site <site@example.org>",
            '"Example Inc." <site@example.org>',
            "Größe <site@example.org>",
            "site@localhost",
        )
    },
    "SECRET_KEY_FALLBACKS": {"one, two": ["one", "two"], "one\ntwo": ["one", "two"]},
    "FORWARDED_ALLOW_IPS": {
        "*": ["*"],
        "10.0.0.5, *": ["10.0.0.5/32", "::ffff:10.0.0.5/128", "*"],
        "10.0.0.5": ["10.0.0.5/32", "::ffff:10.0.0.5/128"],
        "10.0.0.0/8, 2001:db8::/32": ["10.0.0.0/8", "::ffff:10.0.0.0/104", "2001:db8::/32"],
        "::ffff:10.0.0.0/104": ["10.0.0.0/8", "::ffff:10.0.0.0/104"],
        "": [],
    },
    "REDIS_URL": {
        url: url
        for url in (
            "",
            "redis://redis",
            "redis://redis:6379/",
            "rediss://user:p%40ss@redis:6380/1?socket_timeout=2&ssl_ca_data=PEM",
            "unix:///run/redis.sock?db=1",
        )
    },
}


@pytest.fixture
def load(monkeypatch):
    """Return a function that runs the settings with only the given environment."""

    def load(**environment):
        monkeypatch.setattr("config.environment.read_env_file", lambda path: None)
        monkeypatch.setattr(env, "_environ", {})
        monkeypatch.setattr(os, "environ", environment)
        return runpy.run_path(str(ROOT / "config" / "settings.py"))

    return load


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values]
)
def test_a_bad_value_stops_the_site_with_one_line_that_names_it(load, name, value):
    with pytest.raises(SystemExit) as error:
        load(**{name: value})
    assert re.match(rf'^The environment is wrong: .*"{name}".*$', str(error.value))


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
def test_the_line_does_not_repeat_a_password(load, name):
    with pytest.raises(SystemExit) as error:
        load(**{name: '"redis://:secret@host:6379"'})
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [(name, *pair) for name, values in ACCEPTED.items() for pair in values.items()],
)
def test_a_good_value_is_read_without_spaces(load, name, value, parsed):
    assert load(**{name: value})[name] == parsed


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgres://user@host/name?sslmode=require", "sslmode"),
        ("postgres://user@host/name?assume_role=site", "assume_role"),
        ("postgres://user@host/name?isolation_level=3", "isolation_level"),
        ("sqlite:////tmp/file?timeout=5", "timeout"),
    ],
)
def test_a_database_may_have_options(load, url, name):
    assert name in load(DATABASE_URL=url)["DATABASES"]["default"]["OPTIONS"]


def test_every_variable_has_a_value_that_is_refused():
    """Except free text. config/checks.py looks at SECRET_KEY."""
    read = re.findall(r'env\.\w+\(\s*"(\w+)"', (ROOT / "config" / "settings.py").read_text())
    assert set(read) - {"SECRET_KEY", "SECRET_KEY_FALLBACKS"} == set(REFUSED)


def test_heroku_trusts_every_proxy(load):
    assert load(DYNO="web.1")["FORWARDED_ALLOW_IPS"] == ["*"]
    assert load(DYNO="web.1", FORWARDED_ALLOW_IPS="10.0.0.5")["FORWARDED_ALLOW_IPS"] != ["*"]
    assert "127.0.0.1/32" in load()["FORWARDED_ALLOW_IPS"]


def test_an_empty_url_counts_as_unset(load):
    settings = load(DATABASE_URL="", REDIS_URL="")
    assert settings["DATABASES"]["default"]["NAME"] == str(ROOT / "db.sqlite3")


def test_a_file_in_another_encoding_is_refused_with_the_variables_name(load, tmp_path):
    path = tmp_path / "secret_key"
    path.write_text("secret", encoding="utf-16")
    for variables in ({"SECRET_KEY_FILE": str(path)}, {"SECRET_KEY": "\udcfc"}):
        with pytest.raises(SystemExit, match=r'wrong: "SECRET_KEY" or .* is not UTF-8'):
            load(**variables)


# --- .env --------------------------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch, tmp_path):
    """Return a function that reads an `.env` with the given text and returns its variables."""

    def read(text):
        monkeypatch.setattr(env, "_environ", {})
        (tmp_path / ".env").write_bytes(text)
        read_env_file(tmp_path / ".env")
        return env._environ

    return read


def test_a_missing_env_file_is_no_error(tmp_path):
    read_env_file(tmp_path / ".env")


def test_quotes_comments_and_spaces_are_read_as_compose_does(read):
    text = b"# comment\n\nexport A = \"a b\" # comment\nB='b#'\nC=c#c\r\nD=\nE=\xc3\xbc\n"
    assert read(text) == {"A": "a b", "B": "b#", "C": "c#c", "D": "", "E": "ü"}


@pytest.mark.parametrize(
    "line",
    [
        *(b"A", b"A: a", b'A="a', b'A="a"b', b"A=a$b", b"A='$b'", b"A=${B:-c}", b"A= # comment"),
        *(b"A=a\t# comment", b"A='a\\\\b'", b'A="a\\0b"', b"A=a\0", b"'A'=a"),
    ],
)
def test_a_line_that_compose_reads_differently_is_refused_with_its_number(read, line):
    with pytest.raises(ValueError, match=r"^line 2 of \.env \(A.*\) is read differently"):
        read(b"B=b\n" + line + b"\n")


def test_another_encoding_is_refused(read):
    with pytest.raises(ValueError, match=r"^\.env is not UTF-8"):
        read(b"A=\xfc\n")


# --- Mail and the log -----------------------------------------------------------------------------


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
    monkeypatch.setattr("config.compat.mail_settings", lambda *arguments: arguments)
    backend, options = mail_settings(url)
    assert backend == "django.core.mail.backends.smtp.EmailBackend"
    assert options == OPTIONS | encryption | {"port": port}
    assert mail_settings(f"{url}:2525")[1]["port"] == 2525


def test_django_uses_the_server_of_the_url(settings):
    found = mail_settings("smtp+tls://me:secret@mail.example.org:2525")
    for name, value in found.items():
        setattr(settings, name, value)
    server = mail.mailers["default"] if "MAILERS" in found else mail.get_connection()
    assert (server.host, server.port, server.timeout) == ("mail.example.org", 2525, 5)
    assert (server.username, server.password, server.use_tls) == ("me", "secret", True)


@pytest.mark.parametrize(
    "url", ["mail.example.org", "http://example.org", "smtp:", "smtp://h:x", "smtp://h?tls=true"]
)
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
    assert line.count("duplicate key\n    DETAIL: left out") == 2
    assert "secret" not in line.replace(r"(the\nsecret)", "")


def test_rows_in_exception_groups_stay_out_of_the_log():
    first = ValueError("duplicate key\nDETAIL:  Key (name)=(secret)")
    group = ExceptionGroup("two", [first, ValueError("the second")])
    record = logging.makeLogRecord({"msg": "it failed", "exc_info": (type(group), group, None)})
    line = Formatter().format(record)
    assert "duplicate key" in line
    assert "the second" in line
    assert "secret" not in line


def test_a_visitors_line_break_does_not_start_a_line_of_the_log():
    for ending in ("\n", "\r", "\r\n", "\u2028"):
        record = logging.makeLogRecord({"msg": f"path=/{ending}2026-11-22T23:01:05.123Z\tERROR"})
        first, *others = Formatter("%(asctime)s %(message)s").format(record).splitlines()
        assert first.endswith("path=/")
        assert all(line.startswith("    ") for line in others)


def test_every_log_handler_hides_quoted_rows():
    formatters = {handler.formatter for handler in logging.root.handlers if handler.name}
    assert [type(formatter) for formatter in formatters] == [Formatter]
