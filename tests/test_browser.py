"""A visitor's walk in a real browser, on the processes of production with real servers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright
from processes import Process, answers, cannot_run, free_port, wait_for

SCREENSHOTS = Path(os.environ.get("SCREENSHOTS", ""))


@pytest.fixture(scope="session")
def chromium():
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        cannot_run("chromium is not installed: see tests/install-servers")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def production(site, site_bin, variant, postgres, redis, tmp_path_factory):
    """Start gunicorn, a worker and a clock; yield their address."""
    folder = tmp_path_factory.mktemp("production")
    database = f"browser_{variant.replace('.', '_')}"
    port = free_port()
    environment = os.environ | {
        "PATH": f"{site_bin}:{os.environ['PATH']}",
        "DEBUG": "false",
        # Over plain HTTP, as the browser comes without a router before the site.
        "HTTPS": "false",
        "SECRET_KEY": "0123456789abcdef" * 4,
        "ALLOWED_HOSTS": "localhost",
        "DATABASE_URL": postgres.url(database),
        "REDIS_URL": redis.url,
        "PORT": str(port),
    }
    subprocess.run(
        [sys.executable, "-c", f"import psycopg2; c = psycopg2.connect('{postgres.url()}');"
         f"c.autocommit = True; c.cursor().execute('CREATE DATABASE {database}')"],
        check=True,
    )  # fmt: skip
    for command in (["collectstatic", "--no-input"], ["migrate"]):
        subprocess.run(
            ["python", "manage.py", *command],
            cwd=site, env=environment, check=True, capture_output=True,
        )  # fmt: skip
    commands = dict(
        line.split(": ", 1) for line in (site / "Procfile").read_text().splitlines() if line
    )
    processes = [
        Process(commands[name].split(), folder / f"{name}.log", env=environment, cwd=site).start()
        for name in ("web", "worker", "clock")
    ]
    address = f"http://localhost:{port}"
    try:
        wait_for(lambda: answers(f"{address}/readyz"))
        yield address
    finally:
        codes = [process.stop() for process in processes]
    assert codes == [0, 0, 0]


@pytest.fixture
def page(chromium, production):
    """A new visitor's page, which fails the test on any error in its console."""
    context = chromium.new_context(base_url=production)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    errors = []
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def tokens(page):
    return page.locator("li.ready code")


def screenshot(page, name):
    if SCREENSHOTS.name:
        page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def test_the_walk_of_a_visitor(page):
    page.goto("/")
    expect(page.get_by_text("No tokens yet")).to_be_visible()
    screenshot(page, "empty")

    page.get_by_role("button", name="Generate", exact=True).click()
    expect(tokens(page)).to_have_count(1)
    first = tokens(page).inner_text()
    assert re.fullmatch(r"[0-9a-f]{64}", first)

    page.evaluate("window.same = true")
    page.get_by_role("button", name="Generate in background").click()
    bar = page.get_by_role("progressbar")
    expect(bar).to_be_visible()
    wait_for(lambda: bar.evaluate("bar => bar.value") >= 30)
    screenshot(page, "progress")
    expect(tokens(page)).to_have_count(2)
    expect(bar).to_have_count(0)
    expect(page.get_by_role("status")).to_contain_text("Your token is ready.")
    # The page was never loaded anew.
    assert page.evaluate("window.same")
    # The newest is first.
    assert tokens(page).nth(1).inner_text() == first
    screenshot(page, "tokens")

    page.get_by_role("button", name="Copy token").nth(1).click()
    expect(page.get_by_role("status")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == first

    page.get_by_role("button", name="Delete ready token").nth(1).click()
    expect(tokens(page)).to_have_count(1)
    expect(page.get_by_role("status")).to_contain_text("Deleted.")
    assert tokens(page).inner_text() != first

    page.get_by_role("link", name="Delete all").click()
    expect(page.get_by_role("heading", name="Delete all tokens?")).to_be_visible()
    screenshot(page, "delete-all")
    page.get_by_role("button", name="Delete all").click()
    expect(page.get_by_text("No tokens yet")).to_be_visible()


def test_the_walk_without_javascript(chromium, production):
    context = chromium.new_context(base_url=production, java_script_enabled=False)
    page = context.new_page()
    page.goto("/")
    page.get_by_role("button", name="Generate in background").click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    # The page reloads itself until the token is there.
    expect(tokens(page)).to_have_count(1, timeout=15_000)
    assert page.get_by_role("button", name="Copy token").count() == 0
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(tokens(page)).to_have_count(2)
    page.get_by_role("button", name="Delete ready token").first.click()
    expect(tokens(page)).to_have_count(1)
    page.get_by_role("link", name="Delete all").click()
    page.get_by_role("button", name="Delete all").click()
    expect(page.get_by_text("No tokens yet")).to_be_visible()
    context.close()


def test_two_visitors_never_see_each_others_tokens(page, chromium, production):
    page.goto("/")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(tokens(page)).to_have_count(1)
    other = chromium.new_context(base_url=production).new_page()
    other.goto("/")
    expect(other.get_by_text("No tokens yet")).to_be_visible()
    other.context.close()
