"""Visitors and staff in a real browser, on the processes of production with real servers."""

import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright
from support.processes import Process, answers, cannot_run, free_port, wait_for
from support.procfile import read_procfile
from support.servers import execute

FIRST_PAGE = 30_000  # bytes transferred, htmx included

expect.set_options(timeout=20_000)


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
    """Start gunicorn, a worker and a clock; yield them with their address."""
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
        "DJANGO_SUPERUSER_PASSWORD": "password",
        "TOKEN_WORK_SECONDS": "5",  # time to see progress, however late a poll comes
    }
    execute(postgres.url(), f"CREATE DATABASE {database}")
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

    processes = {name: process(name).start() for name in ("web", "worker", "clock")}
    address = f"http://localhost:{port}"
    try:
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
    assert codes == [0, 0, 0]


@contextmanager
def frozen(process):
    """Stop a worker, and the job that it runs, in their tracks: a slow job."""
    pids = process.children()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


# When a button is pressed while a poll is under way, htmx gives the poll up and says so.
GIVEN_UP = "^htmx:(afterRequest|sendAbort) "


@contextmanager
def browse(chromium, production, expected="no error", **options):
    """Yield a new visitor's page. Afterwards its console must hold no error but the expected."""
    context = chromium.new_context(base_url=production.address, reduced_motion="reduce", **options)
    context.set_default_timeout(20_000)
    errors = []
    context.on("console", lambda m: m.type == "error" and errors.append(f"{m.text} {m.page.url}"))
    context.on("weberror", lambda error: errors.append(str(error.error)))
    yield context.new_page()
    context.close()
    assert [error for error in errors if not re.search(f"{GIVEN_UP}|{expected}", error)] == []


@pytest.fixture
def page(chromium, production):
    permissions = ["clipboard-read", "clipboard-write"]
    with browse(chromium, production, permissions=permissions) as page:
        yield page


def button(page, name, exact=True):
    return page.get_by_role("button", name=name, exact=exact)


def tokens(page):
    return page.locator("li.ready code")


def generate(page):
    count = tokens(page).count()
    button(page, "Generate").click()
    expect(tokens(page)).to_have_count(count + 1)


def start_job(page):
    """Generate in the background; return the progress bar once it moves."""
    button(page, "Generate in background").click()
    bar = page.get_by_role("progressbar")
    wait_for(lambda: bar.evaluate("bar => bar.value") >= 30)
    return bar


def check_accessibility(page):
    """Assert that axe finds nothing, neither in light nor in dark."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
    # Nothing is wider than the narrowest phone.
    size = page.viewport_size
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.set_viewport_size(size)


# --- Visitors --------------------------------------------------------------------------------


def test_the_walk_of_a_visitor(page):
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
    # The page was never loaded anew.
    assert page.evaluate("window.same")

    page.get_by_role("link", name="Delete all").click()
    expect(page.get_by_role("heading", name="Delete all tokens?")).to_be_visible()
    check_accessibility(page)
    button(page, "Delete all").click()
    expect(page.get_by_text("No tokens yet")).to_be_visible()


def test_the_walk_without_javascript(chromium, production):
    with browse(chromium, production, java_script_enabled=False) as page:
        page.goto("/")
        button(page, "Generate in background").click()
        expect(page.get_by_role("progressbar")).to_be_visible()
        # The page reloads itself until the token is there.
        expect(tokens(page)).to_have_count(1)
        assert button(page, "Copy ready token", exact=False).count() == 0
        generate(page)
        button(page, "Delete ready token", exact=False).first.click()
        expect(tokens(page)).to_have_count(1)
        page.get_by_role("link", name="Delete all").click()
        button(page, "Delete all").click()
        expect(page.get_by_text("No tokens yet")).to_be_visible()


def test_two_visitors_never_see_each_others_tokens(page, chromium, production):
    page.goto("/")
    generate(page)
    with browse(chromium, production) as other:
        other.goto("/")
        expect(other.get_by_text("No tokens yet")).to_be_visible()


def test_a_slow_job_is_the_same_in_every_tab(page, production):
    page.goto("/")
    bar = start_job(page)
    with frozen(production.worker):
        button(page, "Generate in background").click()
        expect(page.get_by_text("Queued")).to_be_visible()
        check_accessibility(page)
        value = bar.last.evaluate("bar => bar.value")
        other = page.context.new_page()
        other.goto("/")
        assert other.get_by_role("progressbar").last.evaluate("bar => bar.value") == value
    for tab in (page, other):
        expect(tokens(tab)).to_have_count(2)


def test_copying_without_access_to_the_clipboard_selects_the_token(chromium, production):
    with browse(chromium, production) as page:
        page.add_init_script("delete Navigator.prototype.clipboard")
        page.goto("/")
        generate(page)
        button(page, "Copy ready token", exact=False).click()
        expect(page.get_by_role("status")).to_contain_text("Selected")
        assert page.evaluate("getSelection().toString()") == tokens(page).inner_text()


def test_the_first_page_is_small_and_comes_from_here_alone(page, production):
    responses = []
    page.on("response", lambda response: responses.append(response))
    page.goto("/", wait_until="networkidle")
    assert {response.status for response in responses} == {200}
    assert all(response.url.startswith(production.address) for response in responses)
    sizes = [response.request.sizes() for response in responses]
    names = ("responseBodySize", "responseHeadersSize")
    assert 10_000 < sum(size[name] for size in sizes for name in names) < FIRST_PAGE


# --- The keyboard ----------------------------------------------------------------------------


def focus(page):
    """Return what has the focus: its accessible name, or its tag."""
    return page.evaluate(
        "(e => e.ariaLabel || (e.id === 'main' ? 'main' : e.innerText))(document.activeElement)"
    )


def tab_to(page, name):
    for _ in range(20):
        page.keyboard.press("Tab")
        if focus(page).startswith(name):
            return
    pytest.fail(f"Tab never reaches {name}")


def test_every_action_by_keyboard(page):
    page.goto("/")
    tab_to(page, "Generate")
    for count in (1, 2, 3):
        page.keyboard.press("Enter")
        expect(tokens(page)).to_have_count(count)
        # Swapped, and yet where it was.
        wait_for(lambda: focus(page) == "Generate")

    tab_to(page, "Copy ready token")
    page.keyboard.press("Space")
    expect(page.get_by_role("status")).to_contain_text("Copied")
    assert focus(page).startswith("Copy ready token")

    values = tokens(page).all_inner_texts()
    tab_to(page, "Delete ready token")
    page.keyboard.press("Enter")
    expect(tokens(page)).to_have_count(2)
    # The row that took the deleted one's place.
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
    # Nowhere: it stays nowhere, and a screen reader goes on reading.
    button(page, "Generate in background").evaluate("button => button.click()")
    expect(tokens(page)).to_have_count(1)
    assert page.evaluate("document.activeElement === document.body")
    # On the running token: its button is the same until the token is there, then it is its twin.
    start_job(page)
    delete = page.get_by_role("button", name="Delete pending token")
    delete.evaluate("button => { button.focus(); window.kept = button }")
    bar = page.get_by_role("progressbar")
    wait_for(lambda: bar.evaluate("bar => bar.value") >= 60)
    assert page.evaluate("document.activeElement === window.kept")
    expect(tokens(page)).to_have_count(2)
    wait_for(lambda: focus(page).startswith("Delete ready token"))


# --- What goes wrong -------------------------------------------------------------------------


def refused(status):
    """Return how Chromium reports a response of that status on its console."""
    return f"the server responded with a status of {status} "


def heading(page, text):
    return page.get_by_role("heading", name=text, exact=True)


def test_a_form_without_its_cookie_says_so_where_the_visitor_is(chromium, production):
    with browse(chromium, production, expected=refused(403)) as page:
        page.goto("/")
        generate(page)
        page.context.clear_cookies()
        button(page, "Generate").click()
        expect(heading(page, "This form has expired")).to_be_visible()
        assert page.title() == "This form has expired"
        check_accessibility(page)
        page.get_by_role("link", name="Back to the start").click()
        expect(page.get_by_text("No tokens yet")).to_be_visible()
        generate(page)


def test_the_tokens_of_a_visitor_whose_cookie_expires_leave_the_page(page, production):
    page.goto("/")
    start_job(page)
    page.context.clear_cookies(name="visitor")
    expect(page.locator("li.token")).to_have_count(0)


def test_a_site_that_does_not_answer_is_said(chromium, production):
    with browse(chromium, production, expected="net::ERR|htmx:") as page:
        page.goto("/")
        page.context.set_offline(True)
        button(page, "Generate").click()
        expect(page.get_by_role("status")).to_contain_text("The site does not answer.")
        page.context.set_offline(False)
        generate(page)


@pytest.mark.parametrize("status", [502, 504])
def test_the_page_of_a_proxy_does_not_take_the_place_of_ours(chromium, production, status):
    with browse(chromium, production, expected=refused(status)) as page:
        page.goto("/")
        generate(page)
        page.route("**/generate/", lambda route: route.fulfill(status=status, body="no answer"))
        button(page, "Generate").click()
        expect(page.get_by_role("status")).to_contain_text("The site does not answer.")
        expect(tokens(page)).to_have_count(1)
        page.unroute("**/generate/")
        generate(page)


def test_that_a_poll_is_not_answered_is_said_once(chromium, production):
    with browse(chromium, production, expected="net::ERR|htmx:") as page:
        page.goto("/")
        with frozen(production.worker):
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


def test_bad_addresses_have_pages_of_the_same_look(chromium, production):
    foreign = production.address.replace("localhost", "foreign.localhost")
    for url, status, text in (
        ("/nowhere/", 404, "Page not found"),
        (foreign, 400, "Bad request"),
    ):
        with browse(chromium, production, expected=refused(status)) as page:
            assert page.goto(url).status == status
            expect(heading(page, text)).to_be_visible()
            check_accessibility(page)


def test_errors_have_pages_of_the_same_look(chromium, production):
    with browse(chromium, production, expected=refused(500)) as page:
        page.goto("/")
        generate(page)
        execute(production.database, "ALTER TABLE tokens_token RENAME TO elsewhere")
        try:
            button(page, "Generate").click()
            expect(heading(page, "Something went wrong")).to_be_visible()
            assert page.goto("/").status == 500
            check_accessibility(page)
        finally:
            execute(production.database, "ALTER TABLE elsewhere RENAME TO tokens_token")
        page.goto("/")
        expect(tokens(page)).to_have_count(1)


def test_without_a_database_pages_say_so_and_come_back(chromium, production):
    name = production.database.rpartition("/")[2]
    with browse(chromium, production, expected=refused(503)) as page:
        page.goto("/")
        generate(page)
        execute(
            production.postgres,
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )
        try:
            assert page.goto("/").status == 503
            expect(heading(page, "Back in a moment")).to_be_visible()
            check_accessibility(page)
            # The other pages do not need it.
            assert page.request.get("/nowhere/").status == 404
        finally:
            execute(production.postgres, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        page.goto("/")
        expect(tokens(page)).to_have_count(1)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["6.1"], indirect=True)
def test_a_job_that_fails_is_tried_again_and_then_by_the_visitor(page, production):
    page.goto("/")
    # A worker that cannot sleep so long raises in every attempt.
    production.worker.stop()
    with production.process("worker", TOKEN_WORK_SECONDS="-1"):
        button(page, "Generate in background").click()
        expect(page.get_by_text("Retrying")).to_be_visible()
        check_accessibility(page)
        failed = page.get_by_text("This token could not be made.")
        expect(failed).to_be_visible(timeout=120_000)
        expect(page.get_by_role("status")).to_contain_text("A token could not be made.")
        check_accessibility(page)
    production.worker.start()
    button(page, "Try again: failed token", exact=False).click()
    expect(tokens(page)).to_have_count(1)
    expect(failed).to_have_count(0)


# --- Staff -----------------------------------------------------------------------------------


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


# --- Screenshots -----------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["6.1"], indirect=True)
def test_screenshots(chromium, production, tmp_path):
    """`make screenshots` keeps them, in the folder that SCREENSHOTS names."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))

    def shoot(name):
        page.screenshot(path=folder / f"{name}.png", animations="disabled")
        assert 5_000 < (folder / f"{name}.png").stat().st_size < 60_000

    with browse(chromium, production, viewport={"width": 900, "height": 540}) as page:
        page.goto("/")
        shoot("empty")
        generate(page)
        start_job(page)
        with frozen(production.worker):
            page.mouse.move(0, 0)
            shoot("light")
            page.emulate_media(color_scheme="dark")
            shoot("dark")
            page.set_viewport_size({"width": 375, "height": 640})
            shoot("phone")
