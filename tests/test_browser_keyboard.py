"""Everything works with the keyboard, in a real browser."""

import pytest
from playwright.sync_api import expect
from support.browser import button, start_job, tokens
from support.processes import wait_for
from support.pythons import quick_variants

# Chromium drops a request when Docker creates a network.
pytestmark = [
    pytest.mark.xdist_group("network"),
    pytest.mark.parametrize("variant", quick_variants(), indirect=True),
]


def focus(page):
    """Return the accessible name, or the tag, of the element with the focus."""
    return page.evaluate(
        "(e => e.ariaLabel || (e.id === 'main' ? 'main' : e.innerText))(document.activeElement)"
    )


def tab_to(page, name):
    for _ in range(20):
        page.keyboard.press("Tab")
        if focus(page).startswith(name):
            return
    pytest.fail(f"Tab never reaches {name}")


def test_every_action_works_with_the_keyboard(page):
    page.goto("/")
    tab_to(page, "Generate")
    for count in (1, 2, 3):
        page.keyboard.press("Enter")
        expect(tokens(page)).to_have_count(count)
        # The button was swapped, but still has the focus.
        wait_for(lambda: focus(page) == "Generate")

    tab_to(page, "Copy ready token")
    page.keyboard.press("Space")
    expect(page.get_by_role("status")).to_contain_text("Copied")
    assert focus(page).startswith("Copy ready token")

    values = tokens(page).all_inner_texts()
    tab_to(page, "Delete ready token")
    page.keyboard.press("Enter")
    expect(tokens(page)).to_have_count(2)
    # The row that moved into the deleted one's place.
    wait_for(lambda: values[1] in focus(page))
    for count in (1, 0):
        tab_to(page, "Delete ready token")
        page.keyboard.press("Enter")
        expect(tokens(page)).to_have_count(count)
    wait_for(lambda: focus(page) == "main")

    tab_to(page, "Generate")
    page.keyboard.press("Enter")
    expect(tokens(page)).to_have_count(1)
    tab_to(page, "Delete all")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Delete all tokens?")).to_be_visible()
    tab_to(page, "Delete all")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No tokens yet")).to_be_visible()


def test_progress_does_not_take_the_focus(page):
    page.goto("/")
    # Nothing has the focus, and that stays so: a screen reader goes on reading.
    button(page, "Generate in background").evaluate("button => button.click()")
    expect(tokens(page)).to_have_count(1)
    assert page.evaluate("document.activeElement === document.body")
    # On the running token's button: it stays until the token arrives, then its twin has the focus.
    start_job(page)
    delete = page.get_by_role("button", name="Delete pending token")
    delete.evaluate("button => { button.focus(); window.kept = button }")
    bar = page.get_by_role("progressbar")
    wait_for(lambda: bar.evaluate("bar => bar.value") >= 60)
    assert page.evaluate("document.activeElement === window.kept")
    expect(tokens(page)).to_have_count(2)
    wait_for(lambda: focus(page).startswith("Delete ready token"))
