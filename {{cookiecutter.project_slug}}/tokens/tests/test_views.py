import re
import time
from datetime import timedelta
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from jobs import clock
from jobs import queue as job_queue
from jobs.models import Job
from tokens import conf, tasks
from tokens.models import Token

pytestmark = pytest.mark.django_db(transaction=True)

HOME = reverse("tokens:home")
PROGRESS = reverse("tokens:progress")


def texts(response):
    return [str(message) for message in response.context["messages"]]


def test_a_new_visitor_sees_an_empty_list_without_a_query(client, django_assert_num_queries):
    with django_assert_num_queries(0):
        response = client.get(HOME)
    assert "No tokens yet" in response.text
    assert "visitor" not in response.cookies


def test_pages_with_tokens_are_not_stored(client, token):
    assert "no-store" in client.get(HOME)["Cache-Control"]


def test_generate_makes_a_token_at_once(client):
    response = client.post(reverse("tokens:generate"), follow=True)
    token = Token.objects.get()
    assert token.state == Token.State.READY
    assert re.fullmatch(r"[0-9a-f]{64}", token.value)
    assert token.value in response.text


def test_the_visitor_is_remembered_by_a_cookie_that_scripts_cannot_read(client):
    cookie = client.post(reverse("tokens:generate")).cookies["visitor"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    client.post(reverse("tokens:generate"))
    assert Token.objects.values("visitor").distinct().count() == 1


def test_a_forged_cookie_is_ignored(client, token):
    client.cookies["visitor"] = f"{token.visitor}:forged"
    assert token.value not in client.get(HOME).text


def test_a_row_says_when_it_was_made_and_names_its_buttons(client, visitor):
    created = timezone.now().replace(hour=0, minute=5)
    Token.objects.create(visitor=visitor, value="0123456789", state="ready", created=created)
    page = client.get(HOME).text
    assert "<small>00:05 UTC</small>" in page
    assert 'aria-label="Copy ready token 012345"' in page
    assert 'aria-label="Delete ready token 012345"' in page


def test_a_value_of_any_characters_is_escaped(client, visitor):
    Token.objects.create(visitor=visitor, value='"><script>', state="ready")
    page = client.get(HOME).text
    assert '"><script>' not in page
    assert 'aria-label="Copy ready token &quot;&gt;&lt;scr"' in page


def test_without_javascript_a_message_stays_long_enough_to_read(client, visitor):
    Token.objects.bulk_create(Token(visitor=visitor) for _ in range(conf.PENDING_LIMIT))
    response = client.post(reverse("tokens:generate_in_background"), follow=True)
    assert 'http-equiv="refresh" content="10"' in response.text
    assert 'http-equiv="refresh" content="2"' in client.get(HOME).text


def test_generate_in_background_shows_progress_then_the_token(client, work):
    response = client.post(reverse("tokens:generate_in_background"), follow=True)
    assert "<progress" in response.text
    assert "Queued" in response.text
    assert 'http-equiv="refresh"' in response.text
    work()
    response = client.get(HOME)
    assert Token.objects.get().value in response.text
    assert "<progress" not in response.text
    assert 'http-equiv="refresh"' not in response.text


def test_the_page_shows_the_progress_of_a_job(client):
    client.post(reverse("tokens:generate_in_background"))
    job = Job.objects.get()
    job.claim("worker")
    job_queue.report_progress(job, 35)
    response = client.get(HOME)
    assert "Running" in response.text
    assert 'value="35"' in response.text


def test_a_job_that_waits_for_another_attempt_shows_retrying(client):
    client.post(reverse("tokens:generate_in_background"))
    Job.objects.update(attempts=1)
    assert "Retrying" in client.get(HOME).text


def test_a_full_queue_answers_503_and_makes_no_token(client):
    counts = {"default": 10_000}
    cache.set(job_queue.COUNTS_KEY, {"at": time.time(), "unfinished": counts})
    response = client.post(reverse("tokens:generate_in_background"))
    assert response.status_code == 503
    assert response["Retry-After"] == "10"
    assert Token.objects.count() == Job.objects.count() == 0
    assert client.post(reverse("tokens:generate")).status_code == 302


def test_home_takes_one_query_however_much_it_shows(
    client, visitor, token, pending, django_assert_num_queries
):
    Token.objects.create(visitor=visitor, state="failed")
    with django_assert_num_queries(1):
        assert client.get(HOME).text.count('<li class="token"') == 3


def test_tokens_are_listed_newest_first(client, visitor):
    for age in (2, 1, 3):
        created = timezone.now() - timedelta(hours=age)
        Token.objects.create(visitor=visitor, state="ready", value=f"age {age}", created=created)
    shown = re.findall(r"<code>(.*)</code>", client.get(HOME).text)
    assert shown[-3:] == ["age 1", "age 2", "age 3"]


def test_expired_tokens_are_not_listed(client, token):
    Token.objects.update(created=timezone.now() - timedelta(hours=25))
    assert token.value not in client.get(HOME).text


def test_visitors_do_not_see_each_others_tokens(token):
    other = Client()
    other.post(reverse("tokens:generate"))
    assert token.value not in other.get(HOME).text
    assert token.value not in other.get(PROGRESS, {"token": token.pk}).text


@pytest.mark.parametrize("name", ["delete", "delete_all", "retry"])
def test_visitors_cannot_change_each_others_tokens(token, name):
    Token.objects.update(state="failed")
    Client().post(reverse(f"tokens:{name}"), {"token": token.pk})
    other = Client()
    other.post(reverse("tokens:generate"))
    other.post(reverse(f"tokens:{name}"), {"token": token.pk})
    assert Token.objects.filter(pk=token.pk, state="failed").exists()


# --- Progress --------------------------------------------------------------------------------


def test_progress_takes_one_query_and_no_session(client, pending, django_assert_num_queries):
    with django_assert_num_queries(1):
        response = client.get(PROGRESS, {"token": pending.pk})
    assert "<progress" in response.text
    assert f"token={pending.pk}" in response.text
    assert not response.cookies


def test_polling_ends_when_nothing_is_pending(client, token):
    response = client.get(PROGRESS, {"token": token.pk})
    assert token.value in response.text
    assert "Your token is ready." in response.text
    assert "hx-trigger" not in response.text


def test_progress_reports_a_token_that_could_not_be_made(client, visitor):
    failed = Token.objects.create(visitor=visitor, state="failed")
    assert "A token could not be made." in client.get(PROGRESS, {"token": failed.pk}).text


def test_progress_removes_deleted_tokens(client, token):
    gone = uuid4()
    row = f'hx-swap-oob="delete:li:has(#delete-{gone})"'
    assert row in client.get(PROGRESS, {"token": gone}).text


def test_progress_reloads_the_page_when_no_token_is_left(client, visitor):
    assert client.get(PROGRESS, {"token": uuid4()})["HX-Refresh"] == "true"


def test_progress_ignores_invalid_ids(client, visitor):
    assert client.get(PROGRESS, {"token": "<script>"}).status_code == 200


# --- Deleting and trying again ---------------------------------------------------------------


def test_delete_deletes_one_token(client, visitor, token, pending):
    response = client.post(reverse("tokens:delete"), {"token": token.pk}, follow=True)
    assert list(Token.objects.all()) == [pending]
    assert texts(response) == ["Deleted."]


def test_deleting_a_token_that_is_gone_shows_no_message(client, visitor):
    response = client.post(reverse("tokens:delete"), {"token": "none"}, follow=True)
    assert response.status_code == 200
    assert texts(response) == []


def test_delete_all_asks_first(client, token, pending):
    assert "You have 2 tokens" in client.get(reverse("tokens:delete_all")).text
    assert Token.objects.count() == 2
    response = client.post(reverse("tokens:delete_all"), follow=True)
    assert Token.objects.count() == 0
    assert texts(response) == ["Deleted 2 tokens."]


def test_a_failed_token_can_be_tried_again(client, visitor, work):
    failed = Token.objects.create(visitor=visitor, state="failed")
    assert "Try again" in client.get(HOME).text
    client.post(reverse("tokens:retry"), {"token": failed.pk})
    work()
    token = Token.objects.get()
    assert token.pk != failed.pk
    assert token.state == Token.State.READY


def test_only_a_failed_token_is_tried_again(client, token):
    client.post(reverse("tokens:retry"), {"token": token.pk})
    assert list(Token.objects.all()) == [token]


@pytest.mark.parametrize(
    "name", ["generate", "generate_in_background", "retry", "delete", "progress", "home"]
)
def test_only_post_changes_state(client, name):
    method = client.post if name in ("progress", "home") else client.get
    assert method(reverse(f"tokens:{name}")).status_code == 405


@pytest.mark.parametrize(
    "name", ["generate", "generate_in_background", "retry", "delete", "delete_all"]
)
def test_every_post_needs_a_csrf_token(name):
    response = Client(enforce_csrf_checks=True).post(reverse(f"tokens:{name}"))
    assert response.status_code == 403
    assert "This form has expired" in response.text


# --- Limits and faults -----------------------------------------------------------------------


def test_a_visitor_has_a_limit_of_tokens(client, visitor):
    Token.objects.bulk_create(Token(visitor=visitor, state="ready") for _ in range(conf.LIMIT))
    response = client.post(reverse("tokens:generate"), follow=True)
    assert Token.objects.count() == conf.LIMIT
    assert texts(response) == [f"You have {conf.LIMIT} tokens: delete one first."]


def test_a_visitor_has_a_limit_of_pending_tokens(client, visitor, queue):
    Token.objects.bulk_create(Token(visitor=visitor) for _ in range(conf.PENDING_LIMIT))
    response = client.post(reverse("tokens:generate_in_background"), follow=True)
    assert queue.count == 0
    assert texts(response) == ["5 of your tokens are still being made: wait for one."]
    client.post(reverse("tokens:generate"))
    assert Token.objects.filter(state="ready").count() == 1


@pytest.mark.parametrize("name", ["generate", "generate_in_background", "retry"])
def test_an_address_is_throttled(client, name, monkeypatch):
    monkeypatch.setattr(conf, "LIMIT", conf.RATE + 1)
    monkeypatch.setattr(conf, "PENDING_LIMIT", conf.RATE + 1)
    failed = Token.objects.create(visitor=uuid4(), state="failed")
    statuses = {
        client.post(reverse(f"tokens:{name}"), {"token": failed.pk}).status_code
        for _ in range(conf.RATE)
    }
    assert statuses == {302}
    made = Token.objects.count()
    response = client.post(reverse(f"tokens:{name}"))
    assert response.status_code == 429
    assert "Too many requests" in response.text
    assert Token.objects.count() == made


def test_without_redis_a_background_token_is_accepted_and_late(client, no_redis):
    response = client.post(reverse("tokens:generate_in_background"), follow=True)
    assert Token.objects.get().state == Token.State.PENDING
    assert "The queue is not responding" in texts(response)[0]
    assert "Queued" in response.text


def test_without_redis_a_token_is_made_at_once(client, no_redis):
    client.post(reverse("tokens:generate"))
    assert Token.objects.get().state == Token.State.READY


# --- Queries: as many for any number of tokens ----------------------------------------------------


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
    clock.publish()
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


# --- The admin ------------------------------------------------------------------------------------


def test_the_list_of_tokens_shows_no_values(admin_client, token):
    response = admin_client.get(reverse("admin:tokens_token_changelist"))
    assert str(token.pk) in response.text
    assert token.value not in response.text


def test_there_are_no_actions_on_many_tokens(admin_client, token):
    data = {"action": "delete_selected", "_selected_action": token.pk, "post": "yes"}
    admin_client.post(reverse("admin:tokens_token_changelist"), data)
    assert Token.objects.count() == 1


def test_a_tokens_page_shows_no_value_and_cannot_change_it(admin_client, token):
    url = reverse("admin:tokens_token_change", args=[token.pk])
    assert token.value not in admin_client.get(url).text
    assert admin_client.post(url, {"state": "failed"}).status_code == 403
    assert admin_client.get(reverse("admin:tokens_token_add")).status_code == 403
