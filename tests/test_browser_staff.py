"""Staff in a real browser."""

import pytest
from playwright.sync_api import expect
from support.browser import button, generate, start_job, tokens
from support.pythons import quick_variants

# Chromium drops a request when Docker creates a network.
pytestmark = [
    pytest.mark.xdist_group("network"),
    pytest.mark.parametrize("variant", quick_variants(), indirect=True),
]


def log_in(page):
    page.goto("/admin/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill("password")
    button(page, "Log in").click()
    expect(page.get_by_role("heading", name="Site administration")).to_be_visible()


def test_staff_see_tokens_and_jobs_but_no_values(page):
    page.goto("/")
    generate(page)
    value = tokens(page).inner_text()
    start_job(page)
    expect(tokens(page)).to_have_count(2)
    log_in(page)
    page.get_by_role("link", name="Tokens", exact=True).last.click()
    expect(page.locator("#result_list")).to_contain_text("Ready")
    assert value not in page.content()
    page.goto("/admin/django_rq/dashboard/")
    page.get_by_role("link", name="default").first.click()
    expect(page.get_by_role("heading", name="Queue default")).to_be_visible()

    # The session expires; the visitor's tokens do not.
    page.context.clear_cookies(name="sessionid")
    page.goto("/admin/")
    expect(page.get_by_label("Username")).to_be_visible()
    page.goto("/")
    expect(tokens(page)).to_have_count(2)
