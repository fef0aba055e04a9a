"""Visitors in a real browser, with real processes and servers (the fixture `live_site`)."""

import re

import pytest
from playwright.sync_api import expect
from support.browser import browse, button, check_accessibility, frozen, generate, start_job, tokens
from support.pythons import quick_variants

# Chromium drops a request when Docker creates a network.
pytestmark = [
    pytest.mark.xdist_group("network"),
    pytest.mark.parametrize("variant", quick_variants(), indirect=True),
]

FIRST_PAGE = 30_000  # bytes transferred, htmx included


def test_a_visitor_makes_copies_and_deletes_tokens(page):
    page.goto("/")
    expect(page.get_by_text("No tokens yet")).to_be_visible()
    check_accessibility(page)

    generate(page)
    first = tokens(page).inner_text()
    assert re.fullmatch(r"[0-9a-f]{64}", first)

    page.evaluate("window.same = true")
    bar = start_job(page)
    expect(tokens(page)).to_have_count(2)
    expect(bar).to_have_count(0)
    expect(page.get_by_role("status")).to_contain_text("Your token is ready.")
    # The newest is first.
    assert tokens(page).nth(1).inner_text() == first
    check_accessibility(page)

    button(page, "Copy ready token", exact=False).nth(1).click()
    expect(page.get_by_role("status")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == first

    button(page, "Delete ready token", exact=False).nth(1).click()
    expect(tokens(page)).to_have_count(1)
    expect(page.get_by_role("status")).to_contain_text("Deleted.")
    assert tokens(page).inner_text() != first
    # The page was never reloaded.
    assert page.evaluate("window.same")

    page.get_by_role("link", name="Delete all").click()
    expect(page.get_by_role("heading", name="Delete all tokens?")).to_be_visible()
    check_accessibility(page)
    button(page, "Delete all").click()
    expect(page.get_by_text("No tokens yet")).to_be_visible()


def test_everything_works_without_javascript(chromium, live_site):
    with browse(chromium, live_site, java_script_enabled=False) as page:
        page.goto("/")
        button(page, "Generate in background").click()
        expect(page.get_by_role("progressbar")).to_be_visible()
        # The page reloads itself until the token arrives.
        expect(tokens(page)).to_have_count(1)
        assert button(page, "Copy ready token", exact=False).count() == 0
        generate(page)
        button(page, "Delete ready token", exact=False).first.click()
        expect(tokens(page)).to_have_count(1)
        page.get_by_role("link", name="Delete all").click()
        button(page, "Delete all").click()
        expect(page.get_by_text("No tokens yet")).to_be_visible()


def test_two_visitors_never_see_each_others_tokens(page, chromium, live_site):
    page.goto("/")
    generate(page)
    with browse(chromium, live_site) as other:
        other.goto("/")
        expect(other.get_by_text("No tokens yet")).to_be_visible()


def test_a_slow_job_looks_the_same_in_every_tab(page, live_site):
    page.goto("/")
    bar = start_job(page)
    with frozen(live_site.worker):
        button(page, "Generate in background").click()
        expect(page.get_by_text("Queued")).to_be_visible()
        check_accessibility(page)
        value = bar.last.evaluate("bar => bar.value")
        other = page.context.new_page()
        other.goto("/")
        assert other.get_by_role("progressbar").last.evaluate("bar => bar.value") == value
    for tab in (page, other):
        expect(tokens(tab)).to_have_count(2)


def test_copying_without_access_to_the_clipboard_selects_the_token(chromium, live_site):
    with browse(chromium, live_site) as page:
        page.add_init_script("delete Navigator.prototype.clipboard")
        page.goto("/")
        generate(page)
        button(page, "Copy ready token", exact=False).click()
        expect(page.get_by_role("status")).to_contain_text("Selected")
        assert page.evaluate("getSelection().toString()") == tokens(page).inner_text()


def test_the_first_page_is_small_and_loads_nothing_from_elsewhere(page, live_site):
    responses = []
    page.on("response", lambda response: responses.append(response))
    page.goto("/", wait_until="networkidle")
    assert {response.status for response in responses} == {200}
    assert all(response.url.startswith(live_site.address) for response in responses)
    sizes = [response.request.sizes() for response in responses]
    names = ("responseBodySize", "responseHeadersSize")
    assert 10_000 < sum(size[name] for size in sizes for name in names) < FIRST_PAGE
