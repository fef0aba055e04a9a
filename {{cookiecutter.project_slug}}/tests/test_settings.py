import encodings
import os
import runpy
import shutil
from pathlib import Path

import pytest

from config import checks
from config.environment import env

ROOT = Path(__file__).parent.parent

PRODUCTION = {
    "SECRET_KEY": "k" * 50,
    "DATABASE_URL": "postgres://user:secret@db:5432/name",
    "REDIS_URL": "redis://redis:6379/0",
}


@pytest.fixture
def load(monkeypatch):
    """Return a function that runs the settings with only the given environment."""

    def load(file=ROOT / "config" / "settings.py", **environment):
        monkeypatch.setattr("config.environment.read_env_file", lambda path: None)
        monkeypatch.setattr(env, "_environ", {})
        monkeypatch.setattr(os, "environ", environment)
        return runpy.run_path(str(file))

    return load


def test_an_empty_environment_means_production(load):
    settings = load()
    assert settings["DEBUG"] is False
    assert settings["SECRET_KEY"] == ""
    assert "debug_toolbar" not in settings["INSTALLED_APPS"]
    assert not settings["EMBEDDED"]


def test_production_is_https_only(load):
    settings = load(**PRODUCTION)
    assert settings["SECURE_SSL_REDIRECT"]
    assert settings["SECURE_HSTS_SECONDS"] == 31_536_000
    assert settings["SECURE_HSTS_INCLUDE_SUBDOMAINS"]
    assert not settings["SECURE_HSTS_PRELOAD"]
    for cookie in ("SESSION", "CSRF"):
        assert settings[f"{cookie}_COOKIE_NAME"].startswith("__Host-")


def test_development_has_the_toolbar_and_an_embedded_queue(load):
    settings = load(DEBUG="true")
    assert "debug_toolbar" in settings["INSTALLED_APPS"]
    assert settings["DEBUG_TOOLBAR_CONFIG"]["SHOW_TOOLBAR_CALLBACK"](None)
    assert settings["EMBEDDED"]
    assert "SECURE_SSL_REDIRECT" not in settings
    assert settings["SECURE_HSTS_SECONDS"] == 0


def test_debug_without_the_development_packages_stops_with_one_line(load, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"^DEBUG needs .* heroku config:unset DEBUG$"):
        load(DEBUG="true")
    assert not load()["DEBUG"]


def test_sqlite_works_in_a_folder_of_any_name(load, tmp_path):
    folder = tmp_path / "C# 50%20? ü"
    (folder / "config").mkdir(parents=True)
    file = shutil.copy(ROOT / "config" / "settings.py", folder / "config")
    assert load(file)["DATABASES"]["default"]["NAME"] == str(folder / "db.sqlite3")


def test_sqlite_waits_for_its_lock(load):
    options = load(DATABASE_URL="sqlite:////tmp/db.sqlite3")["DATABASES"]["default"]["OPTIONS"]
    assert options["transaction_mode"] == "IMMEDIATE"
    assert options["timeout"] == 20
    assert "WAL" in options["init_command"]


def test_postgres_connections_are_persistent_and_checked(load):
    database = load(**PRODUCTION)["DATABASES"]["default"]
    assert database["CONN_MAX_AGE"] == 600
    assert database["CONN_HEALTH_CHECKS"]
    assert database["OPTIONS"]["tcp_user_timeout"] == 5000
    assert "sslmode" not in database["OPTIONS"]


def test_options_in_the_url_override_the_defaults(load):
    url = f"{PRODUCTION['DATABASE_URL']}?sslmode=verify-full&connect_timeout=9"
    settings = load(**PRODUCTION | {"DYNO": "web.1", "DATABASE_URL": url})
    options = settings["DATABASES"]["default"]["OPTIONS"]
    assert options["sslmode"] == "verify-full"
    assert options["connect_timeout"] == 9
    assert options["tcp_user_timeout"] == 5000


def test_heroku_uses_unauthenticated_tls_and_allows_its_own_hosts(load):
    settings = load(
        **PRODUCTION | {"DYNO": "web.1", "REDIS_URL": "rediss://:secret@host:6380"},
        ALLOWED_HOSTS="example.org",
    )
    assert settings["DATABASES"]["default"]["OPTIONS"]["sslmode"] == "require"
    assert settings["CACHES"]["default"]["OPTIONS"]["ssl_cert_reqs"] is None
    assert settings["ALLOWED_HOSTS"] == ["example.org", ".herokuapp.com"]


def test_only_heroku_skips_authentication(load):
    settings = load(**PRODUCTION | {"REDIS_URL": "rediss://host:6380"})
    assert "ssl_cert_reqs" not in settings["CACHES"]["default"]["OPTIONS"]


def test_a_secret_is_read_from_its_file_without_the_line_break(load, tmp_path):
    files = {}
    for name, value in PRODUCTION.items():
        file = tmp_path / name
        file.write_text(f"{value}\n")
        files[f"{name}_FILE"] = str(file)
    settings = load(**files, SECRET_KEY="the file wins")
    assert settings["SECRET_KEY"] == PRODUCTION["SECRET_KEY"]
    assert settings["REDIS_URL"] == PRODUCTION["REDIS_URL"]
    assert settings["DATABASES"]["default"]["PASSWORD"] == "secret"


@pytest.mark.parametrize("path", ["missing", ".", "file/below"])
def test_an_unreadable_file_stops_the_site_with_one_line(load, tmp_path, path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"^The environment is wrong: ") as error:
        load(**PRODUCTION, SECRET_KEY_FILE=str(tmp_path / path))
    assert "SECRET_KEY_FILE" in str(error.value) or path in str(error.value)
    assert "\n" not in str(error.value)


# --- The checks ------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(PRODUCTION))
    return os.environ


def messages():
    return [error.msg for error in checks.check_environment()]


def test_a_complete_environment_passes(environment):
    assert messages() == []


@pytest.mark.parametrize("name", PRODUCTION)
def test_a_missing_variable_is_named_with_the_command_that_sets_it(environment, name):
    environment[name] = ""
    (message,) = messages()
    assert message.startswith(f"{name} is not set. On Heroku: heroku ")


def test_mail_for_development_is_refused(environment):
    environment |= {"EMAIL_URL": "console:", "DEFAULT_FROM_EMAIL": "site@example.org"}
    (message,) = messages()
    assert message.startswith("EMAIL_URL is console:. On Heroku: heroku config:set EMAIL_URL=")


def test_missing_hosts_are_named(environment, settings):
    settings.ALLOWED_HOSTS = []
    assert messages() == ["ALLOWED_HOSTS is not set: your domains"]


@pytest.mark.parametrize("wish", ["ADMINS", "EMAIL_URL"])
def test_mail_needs_a_server_and_a_sender(environment, wish):
    environment[wish] = "anything"
    missing = {"EMAIL_URL", "DEFAULT_FROM_EMAIL"} - {wish}
    assert {message.split()[0] for message in messages()} == missing
    environment |= dict.fromkeys(missing, "anything")
    assert messages() == []


def test_a_file_is_enough_unless_it_is_empty(environment, tmp_path):
    file = tmp_path / "key"
    file.write_text(environment.pop("SECRET_KEY"))
    environment["SECRET_KEY_FILE"] = str(file)
    assert messages() == []
    file.write_text("\n")
    (message,) = messages()
    assert message.startswith("SECRET_KEY is not set.")


def test_development_needs_no_variables(environment, settings):
    environment.clear()
    settings.DEBUG = True
    assert messages() == []


def test_debug_on_heroku_is_an_error(environment, settings):
    settings.DEBUG = settings.HEROKU = True
    assert messages() == ["DEBUG is on: heroku config:unset DEBUG"]


def test_the_server_refuses_to_start_without_its_variables(environment):
    environment["SECRET_KEY"] = ""
    with pytest.raises(SystemExit, match="SECRET_KEY is not set"):
        runpy.run_path(str(ROOT / "config" / "wsgi.py"))


@pytest.fixture
def application(environment):
    return runpy.run_path(str(ROOT / "config" / "wsgi.py"))["application"]


@pytest.mark.django_db
def test_unknown_charsets_leave_nothing_in_pythons_memory(application, rf):
    before = len(encodings._cache)
    for number in range(10):
        environ = rf.get("/").environ | {"CONTENT_TYPE": f"text/plain; charset=x{number}"}
        application(environ, lambda status, headers: None)
    assert len(encodings._cache) == before


@pytest.mark.django_db
@pytest.mark.parametrize(
    "charset",
    ["charset=rot13", "charset=hex", "charset=undefined", "charset=none", "charset*=hex''a"],
)
def test_the_server_refuses_an_invalid_charset(application, rf, charset):
    environ = rf.get("/?q=1").environ | {"CONTENT_TYPE": f"multipart/form-data; {charset}"}
    answers = []
    application(environ, lambda status, headers: answers.append(status))
    assert answers == ["400 Bad Request"]


@pytest.mark.django_db
def test_the_server_starts_with_its_variables(application, rf):
    answers = []
    application(rf.get("/healthz").environ, lambda status, headers: answers.append(status))
    assert answers == ["200 OK"]
