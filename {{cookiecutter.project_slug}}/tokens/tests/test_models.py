import runpy
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import UUID

import pytest
from django.core.checks.security.base import _check_secret_key as secret_key_is_strong

from tokens import conf, models, visitors


def test_a_value_can_be_a_secret_key_and_needs_no_quotes():
    values = {models.new_value() for _ in range(100)}
    assert len(values) == 100
    assert all(secret_key_is_strong(value) for value in values)
    assert all(value.isalnum() for value in values)


def test_sqlite_takes_no_lock(monkeypatch):
    monkeypatch.setattr(models, "connection", SimpleNamespace(vendor="sqlite"))
    assert models.lock(UUID(int=1)) is None


def test_postgres_takes_a_lock_for_the_visitor(monkeypatch):
    executed = []

    @contextmanager
    def cursor():
        yield SimpleNamespace(execute=lambda sql, params: executed.append((sql, params)))

    connection = SimpleNamespace(vendor="postgresql", cursor=cursor)
    monkeypatch.setattr(models, "connection", connection)
    models.lock(UUID(int=2**128 - 1))
    # The largest number that Postgres takes: a signed one with 64 bits.
    assert executed == [("SELECT pg_advisory_xact_lock(%s)", [2**63 - 1])]


def test_the_text_of_a_token_is_its_id_not_its_value():
    token = models.Token(value="secret")
    assert str(token) == str(token.pk)


def test_the_label_of_a_token_is_its_state_and_the_start_of_its_value():
    assert models.Token(value="0123456789", state="ready").label == "ready token 012345"


def test_the_time_of_a_token_is_in_utc():
    assert models.Token(created=datetime(2026, 11, 22, 7, 5, tzinfo=UTC)).time == "07:05 UTC"


def test_the_page_can_show_all_tokens_that_a_visitor_may_have():
    assert conf.PENDING_LIMIT <= conf.LIMIT


@pytest.mark.parametrize("value", ["long", "-1", "nan", "inf"])
def test_a_bad_value_stops_the_site_with_one_line(monkeypatch, value):
    monkeypatch.setenv("TOKEN_WORK_SECONDS", value)
    with pytest.raises(SystemExit, match=r"^The environment is wrong: .*TOKEN_WORK_SECONDS.*$"):
        runpy.run_path(conf.__file__)


def test_over_https_the_cookie_has_the_host_prefix(settings):
    assert visitors.cookie_name() == "visitor"
    settings.SESSION_COOKIE_SECURE = True
    assert visitors.cookie_name() == "__Host-visitor"
