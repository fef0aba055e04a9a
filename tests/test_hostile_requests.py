"""No address, form or cookie causes a 500: hypothesis looks for one."""

import http.client
import json
import socket
import subprocess
from contextlib import closing
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.processes import Process, answers, free_port, wait_for
from support.pythons import site_environment
from support.servers import execute

# Prints the site's routes, and a session for each kind of user.
PREPARE = """
import json, re
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.urls import get_resolver

def routes(patterns, before=""):
    for pattern in patterns:
        route = before + re.sub(r"[\\^$]|\\\\Z", "", str(pattern.pattern))
        if hasattr(pattern, "url_patterns"):
            yield from routes(pattern.url_patterns, route)
        else:
            argument = r"<[^>]+>|\\(\\?P<[^)]*\\)\\??|\\(\\?:[^)]*\\)\\??"
            yield re.sub(argument, "{}", route).replace("/?", "/")

sessions = {"nobody": ""}
for name in ("staff", "superuser"):
    user = get_user_model().objects.create_user(name, is_staff=True, is_superuser=name != "staff")
    session = SessionStore()
    session.update({
        "_auth_user_id": str(user.pk),
        "_auth_user_backend": settings.AUTHENTICATION_BACKENDS[0],
        "_auth_user_hash": user.get_session_auth_hash(),
    })
    session.save()
    sessions[name] = session.session_key
found = sorted(set(routes(get_resolver().url_patterns)))
print(json.dumps({"routes": found, "sessions": sessions}))
"""

HOSTILE = rb"""
\0 \xff\xfe 999999999 9999999999999999999999999999999999999999 -1 0 1 1e999 .. // [ ' % {} __ _5B
2026-13-45 0000-00-00 \xf0\x9f\xa6\x8a \xed\xa0\x80 a\r\nb default tokens user
00000000-0000-0000-0000-000000000000
""".decode("unicode_escape").encode("latin-1")
BYTES = st.sampled_from([*HOSTILE.strip(b"\n").replace(b"\n", b" ").split(b" "), b"x" * 300])
VALUES = st.one_of(BYTES, BYTES, st.binary(max_size=12)).map(
    lambda value: quote_from_bytes(value, "")
)

# Names that the admin, the dashboard and the site read from a query or a form.
NAMES = """
q p o all e _popup _to_field _changelist_filters _facets page token next app_label model_name
field_name term desc action created__year created__gte created__lt state__exact status__exact
id__exact is_staff__exact groups__id__exact last_login__isnull last_login__year pk__in id__gt
pk__range args__contains visitor username password _selected_action csrfmiddlewaretoken job_ids
scheduler
"""
PAIRS = st.lists(st.tuples(st.sampled_from(NAMES.split()), VALUES), max_size=3).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)
TYPES = st.sampled_from(
    ["application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=utf-16"]
    + [
        f"multipart/form-data; boundary=x; charset={c}"
        for c in ("utf-8", "utf-7", "rot13", "hex", "no")
    ]
    + ["multipart/form-data", "application/json", "text/plain; charset=idna"]
    + ["text/plain; x*=no'en'%41", "text/plain; x*=utf-8%00'en'%41"]
)
NUL = '"\\000\\000\\000\\000\\000\\000\\000\\000"'  # as in a cookie
COOKIES = st.sampled_from(
    ["", *(f"{name}={NUL}" for name in ("sessionid", "csrftoken", "messages")), "visitor=:"]
)


@pytest.fixture(scope="module")
def hostile(bake_session, tmp_path_factory, postgres, redis):
    """Start the site on real servers; yield its port, routes, sessions and log."""
    site, folder = bake_session(create_git_repo=False), tmp_path_factory.mktemp("hostile")
    bin_folder, port = site_environment(site, "6.1"), free_port()
    environment = {
        "PATH": f"{bin_folder}:/usr/bin:/bin",
        "PORT": str(port),
        "DEBUG": "false",
        "HTTPS": "false",
        "SECRET_KEY": "0123456789abcdef" * 4,
        "ALLOWED_HOSTS": "*",
        "DATABASE_URL": postgres.url("hostile"),
        "REDIS_URL": redis.url,
        "WEB_CONCURRENCY": "1",
    }

    def manage(*arguments):
        command = [bin_folder / "python", "manage.py", *arguments]
        done = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    execute(postgres.url(), "CREATE DATABASE hostile")
    manage("collectstatic", "--no-input")
    manage("migrate")
    prepared = json.loads(
        manage(
            "shell", "--no-imports", "-c", "from django.conf import settings\n" + PREPARE
        ).splitlines()[-1]
    )
    with Process(
        [bin_folder / "gunicorn", "config.wsgi"], folder / "log", environment, site
    ) as web:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/readyz"), 120, web.log)
        yield port, prepared["routes"], prepared["sessions"], web


@pytest.mark.slow
@pytest.mark.parametrize("who", ["nobody", "staff", "superuser"])
def test_no_request_answers_500(hostile, who):
    port, routes, sessions, web = hostile
    assert len(routes) > 50

    @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        route=st.sampled_from(routes),
        parts=st.lists(VALUES, min_size=4, max_size=4),
        query=PAIRS,
        method=st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "OPTIONS"]),
        body=PAIRS,
        content_type=TYPES,
        cookie=COOKIES,
    )
    def ask(route, parts, query, method, body, content_type, cookie):
        path = f"/{route.format(*parts)}"
        headers = {"Cookie": cookie or f"sessionid={sessions[who]}", "Content-Type": content_type}
        if content_type.startswith("multipart") and body:
            body = f'--x\r\nContent-Disposition: form-data; name="q"\r\n\r\n{body}\r\n--x--\r\n'
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with closing(connection):
            connection.request(
                method, f"{path}?{query}", body if method == "POST" else None, headers
            )
            status = connection.getresponse().status
        busy = route == "jobs/health/" and status == 503  # nobody works here
        assert status < 500 or busy, web.output[-4000:]

    ask()


@pytest.mark.slow
def test_what_gunicorn_itself_refuses_is_answered_and_logged(hostile):
    port, _, _, web = hostile
    both = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(both)
        assert connection.recv(2**16).startswith(b"HTTP/1.1 400 ")
    wait_for(lambda: "method=POST path=/ status=400" in web.output)


@pytest.mark.slow
def test_a_malformed_chunk_is_no_error_of_the_site_and_a_header_forges_no_field(hostile):
    port, _, _, web = hostile
    request = (
        b"POST /nowhere/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        b"X-Forwarded-For: 192.0.2.1 status=500\r\n\r\nzz\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        assert connection.recv(2**16).startswith(b"HTTP/1.1 4")
        while connection.recv(2**16):  # gunicorn hangs up when it is done with the request
            pass
    wait_for(lambda: "from=192.0.2.1status=500 " in web.output)
    assert "Exception in post_request hook" not in web.output


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "admin/users/user/1/change/?_to_field=",
        "admin/users/user/?pk__range=999999999999999999999999999999",
        "admin/jobs/job/?args__contains=abc",
        "admin/r/999999999999/1/",
    ],
)
def test_a_bad_address_in_the_admin_is_not_the_sites_fault(hostile, path):
    port, _, sessions, web = hostile
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(
            "GET", f"/{path}", headers={"Cookie": f"sessionid={sessions['superuser']}"}
        )
        assert connection.getresponse().status < 500, web.output[-4000:]
