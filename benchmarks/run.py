"""Measure the site against baselines in the same run; write results.md and results.png.

Subject and baseline take turns, and each turn gives one ratio; the table shows their median and
range. What the baselines are, and how to read the table, is in README.md.
"""

import argparse
import html
import os
import re
import secrets
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psycopg2
import pytest
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
BARE = HERE / "bare"
sys.path.insert(0, str(HERE.parent / "tests"))

from support.commands import BIN, cookiecutter  # noqa: E402  (the path)
from support.docker import docker, engine_answers, inspect  # noqa: E402
from support.http import Visitor  # noqa: E402
from support.million import MILLION_TOKENS  # noqa: E402
from support.processes import Process, answers, find_program, free_port, wait_for  # noqa: E402
from support.procfile import read_procfile  # noqa: E402
from support.pythons import site_environment  # noqa: E402
from support.servers import Postgres, Redis  # noqa: E402
from support.template import TEMPLATE  # noqa: E402

DJANGO = "6.1"
ROUNDS = 5
LOADS = 3  # in each turn, of a second each
CONNECTIONS = 8
JOBS = 200
CLICKS = 20

# Click, and wait for the frame that shows the token.
CLICK = """() => new Promise(resolve => {
    const start = performance.now();
    new MutationObserver((_, observer) => {
        if (!document.querySelector(".token code")) return;
        observer.disconnect();
        requestAnimationFrame(() => resolve((performance.now() - start) / 1000));
    }).observe(document.body, {childList: true, subtree: true});
    document.getElementById("generate-in-background").click();
})"""

# The files of the packages in an image, their bytecode included.
PACKAGES = (
    "import pathlib, sys; print(sum(path.lstat().st_size "
    "for path in pathlib.Path(sys.prefix, 'lib').rglob('*') if path.is_file()))"
)


# --- Arithmetic and tools --------------------------------------------------------------------


class Row:
    """One line of the table.

    The goal is like "≤ 1.5", or empty. Without values nothing could be measured, and the unit says
    why.
    """

    def __init__(self, name, baseline, goal, values, unit="x"):
        self.name, self.baseline, self.goal = name, baseline, goal
        self.values, self.unit = list(values), unit

    @property
    def median(self):
        return statistics.median(self.values)

    def distance(self, value):
        """Return how far the value is from the goal: 1 just meets it, 2 is twice as bad."""
        sign, bound = self.goal.split()
        return value / float(bound) if sign == "≤" else float(bound) / value

    @property
    def met(self):
        return self.distance(self.median) <= 1

    def __str__(self):
        cells = [self.name, self.baseline, self.unit, "", self.goal, ""]
        if self.values:
            cells[2] = f"{self.median:.2f} {self.unit}"
            cells[3] = f"{min(self.values):.2f} to {max(self.values):.2f}"
            if self.goal:
                cells[5] = "yes" if self.met else "**no**"
        return f"| {' | '.join(cell or '-' for cell in cells)} |"


class Load(NamedTuple):
    """What wrk measures: requests per second, and the 99th percentile of their times in ms."""

    rate: float
    p99: float


class Life(NamedTuple):
    """The seconds that web takes to start, and the memory of web and a worker in kB."""

    start: float
    web: int
    worker: int


def take_turns(*subjects, rounds=ROUNDS):
    """Call all in turn, every second round backwards; return the list of results of each."""
    results = [[] for _ in subjects]
    turns = list(zip(subjects, results, strict=True))
    for _ in range(rounds):
        for subject, found in turns:
            found.append(subject())
        turns.reverse()
    return results


def ratios(subject, baseline):
    """Return the ratio of each round."""
    return [a / b for a, b in zip(subject, baseline, strict=True)]


def rates(subject, baseline):
    return ratios([load.rate for load in subject], [load.rate for load in baseline])


def duration(command, **options):
    """Return how many seconds a command takes; if it fails, show what it printed."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{command}\n{done.stdout}{done.stderr}")
    return time.perf_counter() - start


def wrk(*arguments, **options):
    """Put load on a URL; return the best of a few.

    A kept connection stays with the worker of gunicorn that took it, and now and then one of the
    two takes all: then half of the machine does nothing.
    """
    return max(load(*arguments, **options) for _ in range(LOADS))


def load(url, *headers, post=False):
    """Put load on the URL for a second."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", "-d1s", "--latency"]
    command += [argument for header in headers for argument in ("-H", header)]
    command += ["-s", HERE / "post.lua"] if post else []
    output = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    if failed := re.search(r"Non-2xx or 3xx responses: .*|Socket errors: .*", output):
        raise RuntimeError(f"{url}: {failed[0]}")
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", output).groups()
    p99 = float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]
    return Load(float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]), p99)


def memory(process):
    """Return the memory of a process and its children in kB; what they share counts once."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in process.children()]
    return sum(int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.M)[1]) for rollup in rollups)


def visitor_with_tokens(address):
    """Return a visitor of the site who has ten tokens, the limit."""
    visitor = Visitor(address)
    while len(visitor.tokens()) < 10:
        visitor.generate()
    return visitor


def cookies(visitor):
    """Return the header with which the visitor comes back."""
    return f"Cookie: {visitor.headers()['Cookie']}"


def find_chromium():
    return shutil.which("google-chrome") or find_program("chromium")


# --- The site, and what it is compared with --------------------------------------------------


class Side:
    """The site or its baseline: how its processes are started, in which folder and environment.

    `latency` is the function of clients.py that runs jobs on it.
    """

    def __init__(self, folder, web, worker, latency, **environment):
        self.folder, self.web, self.worker, self.latency = folder, web, worker, latency
        self.environment = environment

    def process(self, command, **environment):
        handle, log = tempfile.mkstemp(".log", dir=self.environment["HOME"])
        os.close(handle)
        environment = self.environment | environment
        return Process(shlex.split(command), log, env=environment, cwd=self.folder)

    def start_web(self, stack, **environment):
        """Start gunicorn; return it and its address once it answers."""
        port = free_port()
        process = stack.enter_context(self.process(self.web, PORT=str(port), **environment))
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{address}/"), what=process.log, pause=0.005)
        return process, address

    def start_worker(self, stack, **environment):
        """Start a worker; return it once it waits for jobs."""
        process = stack.enter_context(self.process(self.worker, **environment))
        wait_for(lambda: "Listening on" in process.output, what=process.log)
        return process

    def python(self, code, **environment):
        """Run code in Python; return what it printed."""
        environment = self.environment | {"PYTHONPATH": str(HERE)} | environment
        command = ["python", "-c", code]
        return subprocess.run(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()

    def run_jobs(self):
        """Return the median seconds from enqueue to ready, once a worker runs."""
        return float(self.python(f"import clients; clients.{self.latency}()"))


class Benchmark:
    """The servers, what runs on them, and the rows that were measured."""

    def __init__(self, folder, stack):
        self.folder = folder
        self.rows, self.connections = [], {}
        cookiecutter(folder, "--no-input", "--default-config", check=True)
        baked = folder / "my_site"
        self.postgres = stack.enter_context(Postgres(folder))
        self.redis = stack.enter_context(Redis(folder))
        programs = site_environment(baked, DJANGO, "requirements.txt")
        environment = {
            "HOME": str(folder),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "SECRET_KEY": "0123456789abcdef" * 4,
            "ALLOWED_HOSTS": "127.0.0.1",
            "HTTPS": "false",
            "DATABASE_URL": self.postgres.url("site"),
            "REDIS_URL": self.redis.url,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "TOKEN_RATE": "1000000",  # counted, and never reached
        }
        commands = read_procfile(baked)
        self.site = Side(baked, commands["web"], commands["worker"], "site", **environment)
        # A queue of its own, and a table of its own with the same columns and indexes.
        environment |= {
            "REDIS_URL": f"{self.redis.url[:-1]}1",
            "DJANGO_SETTINGS_MODULE": "settings",
        }
        self.bare = Side(
            BARE,
            f"gunicorn --config {shlex.quote(str(baked / 'gunicorn.conf.py'))} bare",
            "python -c 'import alone; alone.work()'",
            "alone",
            **environment,
        )
        self.sql("CREATE DATABASE site", database="postgres")
        self.manage("collectstatic", "--no-input")
        self.manage("migrate")
        self.sql("CREATE TABLE bare (LIKE tokens_token INCLUDING ALL)")

    def add(self, *arguments, **options):
        row = Row(*arguments, **options)
        self.rows.append(row)
        print(row, flush=True)

    def sql(self, *statements, database="site"):
        """Execute statements; return the first row of the last one, if it has any."""
        if database not in self.connections:
            self.connections[database] = psycopg2.connect(self.postgres.url(database))
            self.connections[database].autocommit = True
        with self.connections[database].cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchone() if cursor.description else None

    def manage(self, *arguments, **environment):
        duration(
            ["python", "manage.py", *arguments],
            cwd=self.site.folder,
            env=self.site.environment | environment,
        )

    # --- What is measured: each method is a part for itself, see --only ----------------------

    def bake(self, stack):
        empty = self.folder / "empty"
        (empty / "hooks").mkdir(parents=True)
        for hook in ("pre", "post"):
            (empty / "hooks" / f"{hook}_gen_project.py").touch()
        (empty / "cookiecutter.json").write_text('{"project_slug": "empty"}')
        (empty / "{{cookiecutter.project_slug}}").mkdir()
        (empty / "{{cookiecutter.project_slug}}" / "README.md").touch()

        def run(template):
            with tempfile.TemporaryDirectory() as folder:
                return duration([BIN / "cookiecutter", "--no-input", "-o", folder, template])

        site, baseline = take_turns(partial(run, TEMPLATE), partial(run, empty))
        name = "a template with two empty hooks"
        self.add("bake the defaults", name, "≤ 1.15", ratios(site, baseline))

    def start(self, stack):
        """Start web and a worker, use both a little, and look at their memory."""

        def live(side, path, visitor=None):
            with ExitStack() as stack:
                start = time.perf_counter()
                web, address = side.start_web(stack)
                start = time.perf_counter() - start
                worker = side.start_worker(stack, TOKEN_WORK_SECONDS="0")
                load(address + path, post=True)
                load(f"{address}/", *([cookies(visitor(address))] if visitor else []))
                side.run_jobs()
                return Life(start, memory(web), memory(worker))

        def settings(side):
            command = ["python", "-c", "from django.conf import settings; settings.DEBUG"]
            return duration(command, cwd=side.folder, env=side.environment)

        site, bare = take_turns(
            partial(live, self.site, "/generate/", visitor_with_tokens),
            partial(live, self.bare, "/insert/"),
        )
        for name, baseline, goal, value in (
            ("start of web to its first answer", "bare Django", "≤ 1.5", lambda life: life.start),
            (
                "memory of web and a worker",
                "bare Django and RQ alone",
                "≤ 1.25",
                lambda life: sum(life[1:]),
            ),
            ("memory of web, its two workers", "bare Django", "", lambda life: life.web),
            ("memory of a worker", "RQ alone", "", lambda life: life.worker),
        ):
            self.add(name, baseline, goal, ratios(map(value, site), map(value, bare)))
        site, bare = take_turns(partial(settings, self.site), partial(settings, self.bare))
        self.add("import of the settings", "bare Django", "≤ 1.5", ratios(site, bare))

    def http(self, stack):
        self.sql("CREATE DATABASE million", database="postgres")
        million = {"DATABASE_URL": self.postgres.url("million")}
        self.manage("migrate", **million)
        self.sql(*MILLION_TOKENS, database="million")
        _, site = self.site.start_web(stack)
        _, crowded = self.site.start_web(stack, **million)
        _, bare = self.bare.start_web(stack)

        waiting = visitor_with_tokens(site)
        token = re.search(r'id="delete-(\S+)"', waiting.page())[1]
        waiting.post("/delete/", token=token)
        # Pending for as long as no worker runs.
        waiting.generate_in_background()
        page = waiting.page()
        poll_path = html.unescape(re.search(r'hx-get="(\S+)"', page)[1])
        style = re.search(r'href="(/static/\S+\.css)"', page)[1]

        home = partial(wrk, f"{site}/", cookies(visitor_with_tokens(site)))
        in_crowd = partial(wrk, f"{crowded}/", cookies(visitor_with_tokens(crowded)))
        poll = partial(wrk, site + poll_path, cookies(waiting))
        brotli = partial(wrk, site + style, "Accept-Encoding: br")
        gzip = partial(wrk, site + style, "Accept-Encoding: gzip")
        empty = partial(wrk, f"{bare}/")
        generate = partial(wrk, f"{site}/generate/", post=True)
        insert = partial(wrk, f"{bare}/insert/", post=True)
        for warm in (home, in_crowd, empty):
            warm()

        homes, brotlis, gzips, empties = take_turns(home, brotli, gzip, empty, rounds=7)
        name = "home page with 10 tokens (the limit)"
        self.add(f"{name}: requests/s", "an empty response", "≥ 0.30", rates(homes, empties))
        p99s = ratios([load.p99 for load in homes], [load.p99 for load in empties])
        self.add(f"{name}: 99th percentile", "an empty response", "≤ 4", p99s)
        self.add("stylesheet, Brotli", "an empty response", "≥ 1.0", rates(brotlis, empties))
        self.add("stylesheet, gzip", "an empty response", "≥ 1.0", rates(gzips, empties))
        crowds, polls, homes = take_turns(in_crowd, poll, home, rounds=7)
        name = "home page with 10 tokens among 1,000,000 of others"
        self.add(name, "the home page without those", "≥ 0.9", rates(crowds, homes))
        self.add("poll while a token is pending", "the home page", "≥ 1.5", rates(polls, homes))
        generated, inserted = take_turns(generate, insert, rounds=7)
        name = "one INSERT and a redirect"
        self.add("generate a token at once", name, "≥ 0.5", rates(generated, inserted))

    def jobs(self, stack):
        self.sql("TRUNCATE tokens_token, bare")
        with ExitStack() as workers:
            for side in (self.site, self.bare):
                side.start_worker(workers, TOKEN_WORK_SECONDS="0")
            site, alone = take_turns(self.site.run_jobs, self.bare.run_jobs)
        self.add("enqueue to ready, no simulated work", "RQ alone", "≤ 1.3", ratios(site, alone))

        def rate(count):
            """Return the jobs per second of so many workers, which begin at the same time."""
            with ExitStack() as stack:
                workers = [
                    self.site.start_worker(stack, TOKEN_WORK_SECONDS="0") for _ in range(count)
                ]
                for worker in workers:
                    worker.send_group(signal.SIGSTOP)
                self.site.python(f"import clients; clients.enqueue({JOBS})")
                for worker in workers:
                    worker.send_group(signal.SIGCONT)
                start = time.perf_counter()
                wait_for(lambda: not self.pending(), 120, "the jobs")
                return JOBS / (time.perf_counter() - start)

        one, two, four = take_turns(*(partial(rate, count) for count in (1, 2, 4)), rounds=3)
        self.add("jobs per second with two workers", "one worker", "≥ 1.7", ratios(two, one))
        self.add("jobs per second with four workers", "one worker", "", ratios(four, one))

    def pending(self):
        return self.sql("SELECT count(*) FROM tokens_token WHERE state = 'pending'")[0]

    def click(self, stack):
        self.site.start_worker(stack)
        _, address = self.site.start_web(stack)
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        stack.callback(browser.close)
        page = browser.new_page()
        code = "from tokens import conf; print(conf.WORK_SECONDS)"
        work = float(self.site.python(code))
        times = []
        for _ in range(CLICKS):
            # A new visitor each time.
            page.context.clear_cookies()
            page.goto(address)
            times.append(page.evaluate(CLICK) - work)
        name = f"click to visible in a browser, beyond {work:g} s of work"
        self.add(f"{name}: median", "", "≤ 0.5", times, unit="s")
        p95 = statistics.quantiles(times, n=20)[-1]
        self.add(f"{name}: 95th percentile", "", "≤ 1", [p95], unit="s")

    def image(self, stack):
        rebuild = ("image rebuild after a code edit", "the first build", "≤ 0.15")
        size = ("image size over the base", "the installed packages", "≤ 1.3")
        if not engine_answers():
            for row in (rebuild, size):
                self.add(*row, [], unit="not measured: no Docker engine")
            return
        site = self.site.folder
        dockerfile = (site / "Dockerfile").read_text()
        names = []

        def build(*options, dockerfile=dockerfile):
            names.append(f"benchmark-{secrets.token_hex(4)}")
            stack.callback(docker, "image", "rm", "--force", names[-1], check=False)
            # An edit that this engine has never built.
            with (site / "tokens/urls.py").open("a") as file:
                file.write(f"# {names[-1]}\n")
            start = time.perf_counter()
            options = [*options, "--tag", names[-1], "--file", "-"]
            docker("build", *options, ".", cwd=site, input=dockerfile)
            return time.perf_counter() - start

        # Docker's cache is not all that a first build has to do without.
        downloading = dockerfile.replace("uv pip sync", "uv pip sync --no-cache")
        assert downloading != dockerfile
        first = partial(build, "--no-cache", dockerfile=downloading)
        build()
        edited, firsts = take_turns(build, first, rounds=3)
        self.add(*rebuild, ratios(edited, firsts))
        base = re.search(r"^FROM (\S+)", dockerfile, re.M)[1]
        packages = int(docker("run", "--rm", names[0], "python", "-c", PACKAGES))
        self.add(*size, [(inspect(names[0], "Size") - inspect(base, "Size")) / packages])

    def tests(self, stack):
        programs = site_environment(self.site.folder, DJANGO)
        environment = {"HOME": str(self.folder), "PATH": f"{programs}:{os.environ['PATH']}"}
        command = ["pytest", "--cov", "--cov-fail-under=100"]
        times = [duration(command, cwd=self.site.folder, env=environment) for _ in range(3)]
        self.add("the site's own tests", "", "≤ 20", times, unit="s")


PARTS = ["bake", "start", "http", "jobs", "click", "image", "tests"]


# --- The table and the plot ------------------------------------------------------------------


def describe(benchmark):
    """Return what was measured, and on what."""
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    code = "import django, platform; print(platform.python_version(), django.__version__)"
    python, django = benchmark.site.python(code).split()
    (postgres,) = benchmark.sql("SHOW server_version")
    redis = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    return (
        f"Measured on {time.strftime('%d %B %Y')} on {os.cpu_count()} cores"
        f" ({processor[1] if processor else 'unknown'}) with Python {python}, Django {django},"
        f" Postgres {postgres.split()[0]} and Redis {re.search(r'v=([0-9.]+)', redis)[1]}."
    )


def table(rows):
    head = "| what | baseline | median | range | goal | met |\n|---|---|---|---|---|---|\n"
    return head + "".join(f"{row}\n" for row in rows)


def plot(rows, path):
    """Draw how far from its goal each row is. All goals are one line, better is to its left."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in reversed(rows) if row.goal and row.values]
    figure, axes = pyplot.subplots(figsize=(11, 0.42 * len(rows) + 1.2), layout="constrained")
    for place, row in enumerate(rows):
        colour = "tab:green" if row.met else "tab:red"
        distances = [row.distance(value) for value in row.values]
        axes.plot([min(distances), max(distances)], [place, place], color=colour, linewidth=6)
        axes.plot(row.distance(row.median), place, "o", color=colour, markeredgecolor="black")
        text = f"{row.median:.2f} {row.unit}  ({row.goal})"
        axes.text(1.02, place, text, va="center", transform=axes.get_yaxis_transform())
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("distance from the goal (line): median (dot) and range (bar); left is better")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=PARTS, help="measure one part and write nothing")
    only = parser.parse_args().only
    # However it ends, what it has started ends as well.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("Interrupted: nothing was written."))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        folder = Path(folder)
        # Cookiecutter and Git get a home of their own, with an identity for commits.
        os.environ["HOME"] = str(folder)
        (folder / ".gitconfig").write_text("[user]\nname = Bench\nemail = bench@example.com\n")
        try:
            find_program("wrk")
            find_chromium()
            benchmark = Benchmark(folder, servers)
        except (pytest.skip.Exception, pytest.fail.Exception) as missing:
            sys.exit(f"The benchmarks cannot run: {missing}")
        print(table([]), end="")
        for part in [only] if only else PARTS:
            with ExitStack() as stack:
                getattr(benchmark, part)(stack)
        if not only:
            # All at once, at the end: an earlier run's results are whole, or replaced.
            plot(benchmark.rows, folder / "results.png")
            text = f"{describe(benchmark)}\n\n{table(benchmark.rows)}"
            (HERE / "results.md").write_text(text)
            shutil.copy(folder / "results.png", HERE)


if __name__ == "__main__":
    main()
