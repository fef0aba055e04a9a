"""Chromium, and a site in production that it visits."""

import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from support.processes import Process, answers, cannot_run, free_port, wait_for
from support.procfile import production, read_procfile
from support.servers import Redis, execute

expect.set_options(timeout=20_000)


@pytest.fixture(scope="session")
def chromium():
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        cannot_run("chromium is not installed: see scripts/install-servers")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def live_site(site, site_bin, variant, postgres, tmp_path_factory):
    """Start gunicorn, a worker and a clock; yield them and their address."""
    folder = tmp_path_factory.mktemp("live_site")
    name = f"browser_{variant.replace('.', '_')}"
    execute(postgres.url(), f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    redis = Redis(folder)  # its own, because another test's worker would take its jobs
    port = free_port()
    environment = production(
        site_bin,
        DATABASE_URL=postgres.url(name),
        REDIS_URL=redis.url,
        PORT=str(port),
        DJANGO_SUPERUSER_PASSWORD="password",
        TOKEN_WORK_SECONDS="5",  # long enough to see progress, even if a poll comes late
    )
    for command in (
        ["collectstatic", "--no-input"],
        ["migrate"],
        ["createsuperuser", "--no-input", "--username=admin", "--email=admin@example.com"],
    ):
        subprocess.run(
            ["python", "manage.py", *command],
            cwd=site, env=environment, check=True, capture_output=True,
        )  # fmt: skip
    commands = read_procfile(site)

    def process(name, **variables):
        log = folder / f"{name}.log"
        return Process(commands[name].split(), log, env=environment | variables, cwd=site)

    address = f"http://localhost:{port}"
    processes = {}
    try:
        redis.start()
        processes |= {name: process(name).start() for name in ("web", "worker", "clock")}
        wait_for(lambda: answers(f"{address}/readyz"))
        yield SimpleNamespace(
            address=address,
            database=environment["DATABASE_URL"],
            postgres=postgres.url(),
            process=process,
            **processes,
        )
    finally:
        codes = [process.stop() for process in processes.values()]
        redis.stop()
    assert codes == [0, 0, 0]


@contextmanager
def frozen(process):
    """Freeze a worker and its job, to make a slow job."""
    pids = process.children()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


# If a button is pressed during a poll, htmx aborts the poll and logs that.
GIVEN_UP = "^htmx:(afterRequest|sendAbort) "


@contextmanager
def browse(chromium, live_site, expected="no error", **options):
    """Yield a new visitor's page. Afterwards its console may have only the expected errors."""
    context = chromium.new_context(base_url=live_site.address, reduced_motion="reduce", **options)
    context.set_default_timeout(20_000)
    errors = []
    context.on("console", lambda m: m.type == "error" and errors.append(f"{m.text} {m.page.url}"))
    context.on("weberror", lambda error: errors.append(str(error.error)))
    yield context.new_page()
    context.close()
    assert [error for error in errors if not re.search(f"{GIVEN_UP}|{expected}", error)] == []


@pytest.fixture
def page(chromium, live_site):
    permissions = ["clipboard-read", "clipboard-write"]
    with browse(chromium, live_site, permissions=permissions) as page:
        yield page


def button(page, name, exact=True):
    return page.get_by_role("button", name=name, exact=exact)


def heading(page, text):
    return page.get_by_role("heading", name=text, exact=True)


def tokens(page):
    return page.locator(".token code")


def generate(page):
    count = tokens(page).count()
    button(page, "Generate").click()
    expect(tokens(page)).to_have_count(count + 1)


def start_job(page):
    """Ask for a token in the background; return the progress bar once it moves."""
    button(page, "Generate in background").click()
    bar = page.get_by_role("progressbar")
    wait_for(lambda: bar.evaluate("bar => bar.value") >= 30)
    return bar


def check_accessibility(page):
    """Assert that axe finds no problem, in light or dark."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
    # Nothing is wider than the narrowest phone.
    size = page.viewport_size
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.set_viewport_size(size)


def refused(status):
    """Return Chromium's console message for a response with that status."""
    return f"the server responded with a status of {status} "
