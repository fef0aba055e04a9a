"""The queries of each page and of the job, which do not depend on the number of tokens."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tokens import tasks
from tokens.models import Token

pytestmark = pytest.mark.django_db(transaction=True)


def asked(function, *args):
    """Call the function; return the first word of each of its queries, like ["SELECT"].

    The start and end of a transaction and the lock on the visitor are left out.
    """
    with CaptureQueriesContext(connection) as queries:
        function(*args)
    sql = [query["sql"] for query in queries if "pg_advisory_xact_lock" not in query["sql"]]
    words = [statement.partition(" ")[0] for statement in sql]
    return [word for word in words if word in ("SELECT", "INSERT", "UPDATE", "DELETE")]


@pytest.fixture
def failed(visitor, db):
    return Token.objects.create(visitor=visitor, state="failed")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("get", reverse("tokens:home"), ["SELECT"]),
        ("get", reverse("tokens:progress"), ["SELECT"]),
        ("post", reverse("tokens:generate"), ["SELECT", "INSERT"]),
        ("post", reverse("tokens:generate_in_background"), ["INSERT", "SELECT", "INSERT"]),
        ("post", reverse("tokens:retry"), ["DELETE", "INSERT", "SELECT", "INSERT"]),
        ("post", reverse("tokens:delete"), ["DELETE"]),
        ("get", reverse("tokens:delete_all"), ["SELECT"]),
        ("post", reverse("tokens:delete_all"), ["DELETE"]),
    ],
)
def test_a_page_makes_only_the_queries_it_needs(client, token, failed, method, path, expected):
    assert asked(getattr(client, method), path, {"token": failed.pk}) == expected


def test_the_admins_list_queries_session_user_count_and_tokens(admin_client, token, failed):
    path = reverse("admin:tokens_token_changelist")
    assert asked(admin_client.get, path) == ["SELECT"] * 4


def test_a_page_makes_one_query_for_all_unfinished_jobs(client, visitor):
    for _ in range(3):
        client.post(reverse("tokens:generate_in_background"))
    assert asked(client.get, reverse("tokens:home")) == ["SELECT"] * 2


def test_a_job_claims_makes_the_token_and_ends(pending, work):
    tasks.make_token.enqueue(str(pending.pk))
    assert asked(work) == [
        *("SELECT", "UPDATE", "SELECT"),  # the claim
        *("SELECT", "UPDATE", "UPDATE"),  # the token and the job's success
        "SELECT",  # the result, for task_finished
    ]
