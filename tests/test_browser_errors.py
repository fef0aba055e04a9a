"""What a visitor sees when something goes wrong."""

import pytest
from playwright.sync_api import expect
from support.browser import (
    browse,
    button,
    check_accessibility,
    frozen,
    generate,
    heading,
    refused,
    start_job,
    tokens,
)
from support.processes import wait_for
from support.pythons import quick_variants
from support.servers import execute

# Chromium drops a request when Docker creates a network.
pytestmark = [
    pytest.mark.xdist_group("network"),
    pytest.mark.parametrize("variant", quick_variants(), indirect=True),
]


def test_a_form_without_its_cookie_reports_it_on_the_same_page(chromium, live_site):
    with browse(chromium, live_site, expected=refused(403)) as page:
        page.goto("/")
        generate(page)
        page.context.clear_cookies()
        button(page, "Generate").click()
        expect(heading(page, "This form has expired")).to_be_visible()
        assert page.title() == "This form has expired"
        check_accessibility(page)
        page.get_by_role("link", name="Back to the home page").click()
        expect(page.get_by_text("No tokens yet")).to_be_visible()
        generate(page)


def test_tokens_leave_the_page_when_the_visitors_cookie_expires(page, live_site):
    page.goto("/")
    start_job(page)
    page.context.clear_cookies(name="visitor")
    expect(page.locator("li.token")).to_have_count(0)


def test_a_site_that_does_not_answer_is_reported(chromium, live_site):
    with browse(chromium, live_site, expected="net::ERR|htmx:") as page:
        page.goto("/")
        page.context.set_offline(True)
        button(page, "Generate").click()
        expect(page.get_by_role("status")).to_contain_text("The site is not responding.")
        page.context.set_offline(False)
        generate(page)


@pytest.mark.parametrize("status", [502, 504])
def test_a_proxys_error_page_does_not_replace_ours(chromium, live_site, status):
    with browse(chromium, live_site, expected=refused(status)) as page:
        page.goto("/")
        generate(page)
        page.route("**/generate/", lambda route: route.fulfill(status=status, body="no answer"))
        button(page, "Generate").click()
        expect(page.get_by_role("status")).to_contain_text("The site is not responding.")
        expect(tokens(page)).to_have_count(1)
        page.unroute("**/generate/")
        generate(page)


def test_an_unanswered_poll_is_reported_once(chromium, live_site):
    with browse(chromium, live_site, expected="net::ERR|htmx:") as page:
        page.goto("/")
        with frozen(live_site.worker):
            button(page, "Generate in background").click()
            expect(page.get_by_text("Queued")).to_be_visible()
            page.evaluate(
                """() => {
                    window.said = window.failed = 0;
                    new MutationObserver(() => window.said++)
                        .observe(document.getElementById("messages"), {childList: true});
                    document.addEventListener("htmx:sendError", () => window.failed++);
                }"""
            )
            page.context.set_offline(True)
            wait_for(lambda: page.evaluate("window.failed") >= 3)
            page.context.set_offline(False)
            assert page.evaluate("window.said") == 1
        expect(tokens(page)).to_have_count(1)


def test_pages_for_bad_addresses_look_like_the_site(chromium, live_site):
    foreign = live_site.address.replace("localhost", "foreign.localhost")
    for url, status, text in (
        ("/nowhere/", 404, "Page not found"),
        (foreign, 400, "Bad request"),
    ):
        with browse(chromium, live_site, expected=refused(status)) as page:
            assert page.goto(url).status == status
            expect(heading(page, text)).to_be_visible()
            check_accessibility(page)


def test_error_pages_look_like_the_site(chromium, live_site):
    with browse(chromium, live_site, expected=refused(500)) as page:
        page.goto("/")
        generate(page)
        execute(live_site.database, "ALTER TABLE tokens_token RENAME TO elsewhere")
        try:
            button(page, "Generate").click()
            expect(heading(page, "Something went wrong")).to_be_visible()
            assert page.goto("/").status == 500
            check_accessibility(page)
        finally:
            execute(live_site.database, "ALTER TABLE elsewhere RENAME TO tokens_token")
        page.goto("/")
        expect(tokens(page)).to_have_count(1)


def test_without_a_database_pages_say_so_and_recover(chromium, live_site):
    name = live_site.database.rpartition("/")[2]
    with browse(chromium, live_site, expected=refused(503)) as page:
        page.goto("/")
        generate(page)
        execute(
            live_site.postgres,
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )
        try:
            assert page.goto("/").status == 503
            expect(heading(page, "Back in a moment")).to_be_visible()
            check_accessibility(page)
            # The other pages do not need the database.
            assert page.request.get("/nowhere/").status == 404
        finally:
            execute(live_site.postgres, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        page.goto("/")
        expect(tokens(page)).to_have_count(1)


@pytest.mark.slow
def test_a_failed_job_is_retried_and_then_the_visitor_can_try_again(page, live_site, tmp_path):
    page.goto("/")
    # Python imports this when it starts. Without a token's random bits every attempt fails.
    broken = (
        "import secrets\nreal = secrets.token_hex\n"
        "secrets.token_hex = lambda length: 1 / 0 if length == 32 else real(length)\n"
    )
    (tmp_path / "sitecustomize.py").write_text(broken)
    live_site.worker.stop()
    try:
        with live_site.process("worker", PYTHONPATH=str(tmp_path)):
            button(page, "Generate in background").click()
            expect(page.get_by_text("Retrying")).to_be_visible()
            check_accessibility(page)
            failed = page.get_by_text("This token could not be made.")

            def attempted():
                """Do not wait for the delays of 5, 15 and 45 s."""
                due = "UPDATE jobs_job SET due = now() WHERE status = 'READY' AND due > now()"
                execute(live_site.database, due)
                return failed.is_visible()

            wait_for(attempted, 120, what="the last attempt")
            expect(page.get_by_role("status")).to_contain_text("A token could not be made.")
            check_accessibility(page)
    finally:
        live_site.worker.start()
    button(page, "Try again: failed token", exact=False).click()
    expect(tokens(page)).to_have_count(1)
    expect(failed).to_have_count(0)
