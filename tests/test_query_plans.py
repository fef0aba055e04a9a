"""The plans of the site's queries, in a table with a million tokens of other visitors.

The site runs as in production. Postgres's extension auto_explain logs the plan of each statement
and how many rows it read.
"""

import json
import re
import subprocess
from types import SimpleNamespace

import pytest
from support import procfile
from support.http import Visitor
from support.million import MILLION_TOKENS
from support.processes import Process, answers, free_port, wait_for
from support.pythons import newest_django
from support.servers import execute

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("plans"),
    pytest.mark.parametrize("variant", [newest_django()], indirect=True),
]

EXPLAIN = """
ALTER DATABASE plans SET session_preload_libraries = 'auto_explain';
ALTER DATABASE plans SET auto_explain.log_min_duration = 0;
ALTER DATABASE plans SET auto_explain.log_analyze = on;
ALTER DATABASE plans SET auto_explain.log_format = 'json';
"""

# Rows that one statement may read: a purge deletes 1000, the admin counts 1000, and both look a
# little further.
READ = 1010
# Rows that it may sort: those of one visitor, or the few of a million that are pending or failed.
SORTED = 50


@pytest.fixture(scope="module")
def production(site, site_bin, postgres, redis, tmp_path_factory):
    """Start gunicorn on a full database; yield its address and a function that runs commands."""
    port = free_port()
    environment = procfile.production(
        site_bin,
        DATABASE_URL=postgres.url("plans"),
        REDIS_URL=f"{redis.url[:-1]}7",  # a queue that no other test uses
        PORT=str(port),
        TOKEN_WORK_SECONDS="0",
        DJANGO_SUPERUSER_PASSWORD="password",
    )

    def manage(*arguments):
        command = ["python", "manage.py", *arguments]
        subprocess.run(command, cwd=site, env=environment, check=True, capture_output=True)

    execute(postgres.url(), "CREATE DATABASE plans")
    manage("collectstatic", "--no-input")
    manage("migrate")
    manage("createsuperuser", "--no-input", "--username=admin", "--email=admin@example.com")
    execute(postgres.url("plans"), *MILLION_TOKENS, *EXPLAIN.strip().splitlines())
    log = tmp_path_factory.mktemp("plans") / "web.log"
    with Process(["gunicorn", "config.wsgi"], log, env=environment, cwd=site):
        address = f"http://localhost:{port}"
        wait_for(lambda: answers(f"{address}/readyz"))
        yield SimpleNamespace(address=address, manage=manage, url=postgres.url("plans"))


@pytest.fixture
def indexes(postgres, production):
    """A function that calls another, checks each plan, and returns the indexes used."""

    def look(action, *arguments, **options):
        start = len(postgres.output)
        action(*arguments, **options)
        found = re.findall(r" plan:\n((?:\t.*\n)+)", postgres.output[start:])
        explained = [json.loads(plan) for plan in found]
        used = set()
        for plan in explained:
            if "tokens_token" in plan["Query Text"]:
                for node in nodes(plan["Plan"]):
                    check(node, plan["Query Text"])
                    used.add(node.get("Index Name"))
        return used - {None}

    return look


def nodes(plan):
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def check(node, query):
    """Assert that a node of a plan reads and sorts few rows, and uses an index."""
    kind = node["Node Type"]
    assert kind != "Seq Scan" or node["Relation Name"] != "tokens_token", query
    removed = sum(count for name, count in node.items() if name.startswith("Rows Removed"))
    rows = (node["Actual Rows"] + removed) * node["Actual Loops"]
    assert rows <= (SORTED if kind == "Sort" else READ), f"{kind} of {rows} rows: {query}"


@pytest.fixture(scope="module")
def visitor(production):
    """A visitor with as many tokens as allowed."""
    visitor = Visitor(production.address)
    for _ in range(9):
        visitor.generate()
    visitor.generate_in_background()
    visitor.generate()
    assert "have 10 tokens" in visitor.page()
    return visitor


LIST = "token_visitor_created"
KEY = "tokens_token_pkey"
UNREADY = "token_unready"


def test_a_visitors_pages_use_the_index_for_the_list(visitor, indexes):
    assert indexes(visitor.page) == {LIST}
    assert indexes(visitor.page, "/delete-all/") == {LIST}
    (pending,) = visitor.ids("pending")
    assert indexes(visitor.page, f"/progress/?token={pending}") in ({LIST}, {KEY})


def test_a_visitors_changes_use_an_index(visitor, indexes, production):
    ready = visitor.ids("ready")
    assert indexes(visitor.post, "/delete/", token=ready[0]) <= {LIST, KEY}
    assert indexes(visitor.post, "/generate/") == {LIST}
    (pending,) = visitor.ids("pending")
    fail = (
        "from tokens.models import Token;"
        f"Token.objects.pending().filter(pk='{pending}').update(state='failed')"
    )
    assert indexes(production.manage, "shell", "--no-imports", "-c", fail) <= {KEY, UNREADY}
    assert visitor.ids("failed") == [pending]
    assert indexes(visitor.post, "/retry/", token=pending) <= {LIST, KEY, UNREADY}
    assert len(visitor.ids("pending")) == 1
    assert indexes(production.manage, "rqworker", "--burst") <= {KEY, UNREADY}
    assert len(visitor.ids("ready")) == 10
    assert indexes(visitor.post, "/delete-all/") == {LIST}


def test_the_schedule_uses_an_index(indexes, production):
    tidy = "from tokens.tasks import tidy; tidy.call()"
    used = indexes(production.manage, "shell", "--no-imports", "-c", tidy)
    tokens = {name for name in used if name.startswith("token")}  # not those of the jobs
    assert tokens == {UNREADY, "token_created", KEY}
    count = "SELECT count(*) FROM tokens_token WHERE created < now() - interval '24 hours'"
    assert execute(production.url, count) == [(0,)]


def test_the_admins_list_and_filters_use_an_index(indexes, production):
    staff = Visitor(production.address)
    staff.post("/admin/login/", "/admin/login/", username="admin", password="password")
    path = "/admin/tokens/token/"
    for query, index in (
        ("", "token_created"),
        ("?p=3", "token_created"),
        ("?state__exact=ready", "token_created"),
        ("?state__exact=pending", UNREADY),
        ("?state__exact=failed", UNREADY),
        ("?created__gte=2000-01-01+00:00:00Z", "token_created"),
    ):
        assert indexes(staff.page, path + query) == {index}
    assert "1000 tokens" in staff.page(path)
    ((token,),) = execute(production.url, "SELECT id FROM tokens_token LIMIT 1")
    assert indexes(staff.page, f"{path}{token}/change/") == {KEY}
