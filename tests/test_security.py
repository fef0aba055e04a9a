"""Security, as seen from outside."""

import concurrent.futures
import re
import secrets
import socket

import pytest
from support.heroku import SECRET_KEY, Browser, address_of, log_in
from support.pythons import quick_variants

# All of them use one set of dynos.
pytestmark = [
    pytest.mark.xdist_group("heroku"),
    pytest.mark.parametrize("variant", quick_variants(), indirect=True),
]

YEAR = 60 * 60 * 24 * 365


POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
}


HEADERS = {
    "Strict-Transport-Security": f"max-age={YEAR}; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/admin/login/", 200), ("/nothing-here", 404), ("/generate/", 405)],
)
def test_every_answer_has_the_security_headers(browser, path, status):
    response = browser.get(path)
    assert response.status == status
    for name, value in HEADERS.items():
        assert response.headers.get_all(name) == [value]
    (policy,) = response.headers.get_all("Content-Security-Policy")
    assert {part.strip() for part in policy.split(";")} == POLICY


@pytest.mark.parametrize("encoding", ["br", "gzip", "identity"])
def test_static_files_have_security_headers_and_are_compressed_and_cached(browser, encoding):
    path = re.search(r'href="(/static/[^"]+\.css)"', browser.get().text)[1]
    headers = browser.get(path, encoding=encoding).headers
    for name in ("Strict-Transport-Security", "X-Content-Type-Options"):
        assert headers[name] == HEADERS[name]
    assert headers["Cache-Control"] == f"max-age={10 * YEAR}, public, immutable"
    assert headers["Vary"] == "Accept-Encoding"
    assert headers.get("Content-Encoding", "identity") == encoding
    assert int(headers["Content-Length"]) < (5_000 if encoding == "identity" else 1_500)


def test_no_answer_reveals_a_version(browser):
    for path in ("/", "/nothing-here", "/healthz"):
        response = browser.get(path)
        assert response.headers["Server"] == "gunicorn"
        assert "X-Powered-By" not in response.headers
    with socket.create_connection(("127.0.0.1", browser.port), 5) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = connection.recv(4096).decode()
    assert "400 Bad Request" in answer
    assert not re.search(r"\d+\.\d+\.\d+|Traceback|gunicorn/", answer)


def test_cookies_are_limited_to_this_host_and_https_and_hidden_from_scripts(browser):
    browser.generate()
    browser = Browser(browser.port)
    response = browser.get()
    response = browser.post("/generate/")
    (visitor,) = (c for name, c in response.cookies.items() if name == "__Host-visitor")
    assert visitor["secure"] and visitor["httponly"]
    assert (visitor["path"], visitor["domain"], visitor["samesite"]) == ("/", "", "Lax")
    csrf = Browser(browser.port).get().cookies["__Host-csrftoken"]
    assert csrf["secure"] and csrf["samesite"] == "Lax"
    assert (csrf["path"], csrf["domain"]) == ("/", "")


POSTS = ["/generate/", "/generate-in-background/", "/retry/", "/delete/", "/delete-all/",
         "/admin/login/", "/admin/logout/"]  # fmt: skip


@pytest.mark.parametrize("path", POSTS)
def test_a_post_without_csrf_token_is_refused(browser, path):
    browser.generate()
    assert browser.request("POST", path, "token=1").status == 403
    forged = browser.form().replace("csrfmiddlewaretoken=", "csrfmiddlewaretoken=x")
    assert browser.request("POST", path, forged).status == 403
    assert len(browser.tokens()) == 1


def test_a_form_from_another_site_is_refused(browser):
    body = browser.form()
    origin = browser.headers
    browser.headers = lambda **router: origin(**router) | {"Origin": "https://evil.example"}
    assert browser.request("POST", "/generate/", body).status == 403


def test_visitors_cannot_reach_each_others_tokens(browser):
    browser.generate()
    (token,) = browser.tokens()
    (token_id,) = browser.ids()
    stranger = Browser(browser.port, "192.0.2.2")
    stranger.generate()
    assert token not in stranger.get("/").text
    assert token not in stranger.get(f"/progress/?token={token_id}").text
    for path in ("/delete/", "/retry/", "/delete-all/"):
        assert stranger.post(path, token=token_id).status in (302, 404)
    stranger.cookies["__Host-visitor"] = browser.cookies["__Host-visitor"][:-1] + "_"
    assert token not in stranger.get("/").text
    assert browser.tokens() == [token]
    assert "no-store" in browser.get("/").headers["Cache-Control"]


def test_the_dashboard_is_for_staff_with_the_permission(browser, accounts):
    dashboard = "/admin/django_rq/dashboard/"
    assert "/admin/login/" in browser.get(dashboard).headers["Location"]
    clerk = Browser(browser.port)
    assert log_in(clerk, "clerk").status == 302
    assert clerk.get("/admin/").status == 200
    assert clerk.get(dashboard).status == 403
    root = Browser(browser.port)
    response = log_in(root, "root")
    assert response.status == 302
    session = response.cookies["__Host-sessionid"]
    assert session["secure"] and session["httponly"]
    assert (session["path"], session["domain"], session["samesite"]) == ("/", "", "Lax")
    assert root.get(dashboard).status == 200
    browser.generate()
    assert browser.tokens()[0] not in root.get("/admin/tokens/token/").text


def test_guessing_passwords_is_stopped_after_a_few_attempts(browser, accounts):
    # In a network that no other run of this test has used.
    guesser = Browser(browser.port, f"2001:db8:{secrets.token_hex(2)}::1")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        texts = pool.map(
            lambda i: log_in(Browser(browser.port, guesser.client), "root", f"wrong {i}").text,
            range(12),
        )
        refused = [text for text in texts if "Too many attempts" in text]
    assert len(refused) == 12 - 5
    assert "Too many attempts" in log_in(guesser, "root").text
    assert log_in(Browser(browser.port, "198.51.100.8"), "root").status == 302


def test_tokens_survive_a_new_secret_key_with_the_old_one_as_fallback(app, dynos, browser):
    browser.generate()
    tokens = browser.tokens()
    rotated = {"SECRET_KEY": "fedcba9876543210" * 4}
    with app.formation("web", **rotated, SECRET_KEY_FALLBACKS=SECRET_KEY) as new:
        browser.address = address_of(new)
        assert browser.tokens() == tokens
    with app.formation("web", **rotated) as new:
        browser.address = address_of(new)
        assert browser.tokens() == []
