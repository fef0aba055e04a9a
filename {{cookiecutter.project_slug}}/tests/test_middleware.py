import logging

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError
from django.http import HttpResponse

from config.middleware import RequestIDFilter, RequestIDMiddleware

pytestmark = pytest.mark.django_db

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
    assert client.get("/", headers={"x-request-id": GIVEN})["X-Request-ID"] == GIVEN


@pytest.mark.parametrize("given", ["", "short", "x" * 201, "a b c d e f g h i j k\nforged"])
def test_a_request_without_a_valid_id_gets_a_new_one(client, given):
    made = client.get("/", headers={"x-request-id": given})["X-Request-ID"]
    assert len(made) == 36
    assert made != client.get("/")["X-Request-ID"]


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
    policy = client.get("/")["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_a_long_body_is_refused_before_it_is_read(client, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    upload = SimpleUploadedFile("file", b"x" * 1000)
    assert client.post("/", {"file": upload}).status_code == 413
    assert client.post("/", {"file": "x"}).status_code != 413


def test_a_body_that_does_not_arrive_is_not_the_sites_error(client, monkeypatch, caplog):
    def read(self, *args):
        raise OSError("timed out")

    monkeypatch.setattr("django.test.client.FakePayload.read", read)
    client.raise_request_exception = False
    response = client.post("/admin/login/", {"username": "x"})
    assert response.status_code == 408
    assert {record.levelname for record in caplog.records} == {"WARNING"}
