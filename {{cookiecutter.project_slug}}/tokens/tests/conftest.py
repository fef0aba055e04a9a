from uuid import uuid4

import pytest
from django.http import HttpResponse

from tokens import conf
from tokens.models import Token
from tokens.visitors import remember_visitor


@pytest.fixture(autouse=True)
def _no_work(monkeypatch):
    """Skip the simulated work of the jobs."""
    monkeypatch.setattr(conf, "WORK_SECONDS", 0)


@pytest.fixture
def visitor(client):
    """Return the id of a visitor, and give their cookie to the test client."""
    visitor = uuid4()
    response = HttpResponse()
    remember_visitor(response, visitor)
    client.cookies.update(response.cookies)
    return visitor


@pytest.fixture
def token(visitor, db):
    return Token.objects.create(visitor=visitor, state="ready", value="a" * 64)


@pytest.fixture
def pending(visitor, db):
    return Token.objects.create(visitor=visitor)
