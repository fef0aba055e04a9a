"""Compare the site with the same site written plainly, in the same run; write results.md.

Both take turns. README.md says what is compared, and how to read the table.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from sides import MILLION_TOKENS, UNFINISHED_JOBS, Servers, Side, find_program, wait_for

HERE = Path(__file__).parent
ROUNDS = 3
JOBS = 200

# For each name, the goal for the site's figure divided by the plain one's, and what it tells.
ROWS = {
    "home page with ten tokens, CPU": (
        "≤ 2.0",
        "forms that work without JavaScript, names for screen readers, copying and live progress",
    ),
    "a view that returns a line, CPU": (
        "≤ 1.15",
        "the middleware: health checks, request ids and the Content-Security-Policy",
    ),
    "a path that is not there, CPU": (
        "≤ 1.4",
        "an error page with the site's own look, and its line in the log",
    ),
    "generate at once, CPU": (
        "≤ 2.2",
        "POST with CSRF, and a count of the visitor's tokens in one transaction, where the plain"
        " site inserts by GET",
    ),
    "home page with ten tokens, requests/s": ("≥ 0.6", "the same page through gunicorn"),
    "stylesheet, requests/s": ("≥ 0.95", "a static file, served through the site's middleware"),
    "a page that waits 30 ms for Postgres, requests/s": (
        "≥ 2.6",
        "threads: a worker does not stand still while one request waits",
    ),
    "home page among 1,000,000 tokens of others, requests/s": (
        "≥ 0.95",
        "the index serves the list; the other side is the site's own page without those tokens",
    ),
    "start of web to its first answer": (
        "≤ 1.0",
        "the site has more code, but loads it once for all workers",
    ),
    "memory of web after traffic": ("≤ 0.8", "workers share what was loaded before they forked"),
    "from enqueue to ready": ("≤ 1.3", "a job that is committed with its row, and runs once"),
    "jobs per second, one worker": ("≥ 0.8", "the same, when many wait"),
    "jobs per second, two workers by one": ("≥ 1.8", "both sides of this ratio are the site's"),
    "a tick of the clock with 1,000,000 unfinished jobs, by one with 100": (
        "≤ 2.0",
        "the clock reads a bounded number of rows by an index, whatever the backlog",
    ),
    "memory of that clock": ("≤ 1.2", "it keeps a bounded number of rows"),
}


class Row:
    """A line of the table: the ratio between the best of both sides, and the ratio in each round.

    `better` is `min` if less is better, or `max` if more is.
    """

    def __init__(self, name, site, plain, better):
        self.name = name
        self.goal, self.lesson = ROWS[name]
        self.ratio = better(map(better, site)) / better(map(better, plain))
        self.rounds = [better(a) / better(b) for a, b in zip(site, plain, strict=True)]

    @property
    def met(self):
        sign, bound = self.goal.split()
        value = round(self.ratio, 2)
        return value <= float(bound) if sign == "≤" else value >= float(bound)

    @property
    def range(self):
        return f"{min(self.rounds):.2f} to {max(self.rounds):.2f}"

    def __str__(self):
        verdict = "met" if self.met else "missed"
        return f"{self.ratio:5.2f}  ({self.range})  goal {self.goal}, {verdict}  {self.name}"


def take_turns(*subjects, rounds=ROUNDS, turns=5):
    """Call the subjects in turn, in reverse order every second time.

    Return what each subject returned, as a list for each round.
    """
    results = [[[] for _ in range(rounds)] for _ in subjects]
    order = list(enumerate(subjects))
    for number in range(rounds):
        for _ in range(turns):
            for place, subject in order:
                results[place][number].append(subject())
            order.reverse()
    return results


def load(url, headers=()):
    """Put load on the URL for a second with eight connections; return the requests per second."""
    options = [option for header in headers for option in ("-H", header)]
    command = ["wrk", "-t1", "-c8", "-d1s", *options, url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if failed := re.search(r"Non-2xx or 3xx responses: .*|Socket errors: .*", output):
        raise RuntimeError(f"{url}: {failed[0]}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])


class Benchmark:
    """Both sides, and the measured rows."""

    def __init__(self, servers):
        self.servers = servers
        self.site, self.plain = Side.site(servers), Side.plain(servers)
        self.rows = []

    def add(self, name, site, plain, better):
        self.rows.append(Row(name, site, plain, better))
        print(self.rows[-1], flush=True)

    def cpu(self, stack):
        """Measure the CPU time of requests inside a process: the best of many short turns."""
        site, plain = (stack.enter_context(side.application()) for side in (self.site, self.plain))
        for name, ours, theirs in (
            ("home page with ten tokens", self.site.home, self.plain.home),
            ("a view that returns a line", {"path": "/line/"}, {"path": "/line/"}),
            ("a path that is not there", *[{"path": "/nowhere/", "status": "404"}] * 2),
            ("generate at once", self.site.generate, self.plain.generate),
        ):
            turns = take_turns(partial(site, ours), partial(plain, theirs), turns=25)
            self.add(f"{name}, CPU", *turns, min)

    def http(self, stack):
        """Put load on both sides over HTTP, through gunicorn."""
        site, plain = (side.start_web(stack) for side in (self.site, self.plain))
        gzip = ["Accept-Encoding: gzip"]
        for name, ours, theirs in (
            ("home page with ten tokens", ("/", self.site.cookies), ("/", [])),
            ("stylesheet", (self.site.style, gzip), (self.plain.style, gzip)),
            ("a page that waits 30 ms for Postgres", ("/wait/", []), ("/wait/", [])),
        ):
            turns = take_turns(
                partial(load, site.address + ours[0], ours[1]),
                partial(load, plain.address + theirs[0], theirs[1]),
            )
            self.add(f"{name}, requests/s", *turns, max)

    def million(self, stack):
        crowded = Side.site(self.servers, "million", *MILLION_TOKENS)
        urls = [
            (f"{side.start_web(stack).address}/", side.cookies) for side in (crowded, self.site)
        ]
        turns = take_turns(*(partial(load, *url) for url in urls))
        self.add("home page among 1,000,000 tokens of others, requests/s", *turns, max)

    def start(self, stack):
        """Start web, request each page a few times, and measure its memory."""

        def live(side):
            with ExitStack() as stack:
                start = time.perf_counter()
                web = side.start_web(stack)
                seconds = time.perf_counter() - start
                load(f"{web.address}/", side.cookies)
                load(f"{web.address}/line/")
                return seconds, web.memory()

        sides = take_turns(partial(live, self.site), partial(live, self.plain), turns=2)
        for place, name in enumerate(
            ("start of web to its first answer", "memory of web after traffic")
        ):
            figures = [[[life[place] for life in turns] for turns in side] for side in sides]
            self.add(name, *figures, min)

    def jobs(self, stack):
        with ExitStack() as workers:
            for side in (self.site, self.plain):
                side.start_worker(workers)
            times = take_turns(self.site.enqueue_to_ready, self.plain.enqueue_to_ready, turns=2)
        self.add("from enqueue to ready", *times, min)

        def rate(side, count):
            """Return the jobs per second of that many workers, which start at the same time."""
            with ExitStack() as stack:
                workers = [side.start_worker(stack) for _ in range(count)]
                for worker in workers:
                    worker.send_group(signal.SIGSTOP)
                side.enqueue(JOBS)
                for worker in workers:
                    worker.send_group(signal.SIGCONT)
                start = time.perf_counter()
                wait_for(lambda: not side.pending(), 120, "the jobs", pause=0.005)
                return JOBS / (time.perf_counter() - start)

        two, one, plain = take_turns(
            partial(rate, self.site, 2),
            partial(rate, self.site, 1),
            partial(rate, self.plain, 1),
            turns=1,
        )
        self.add("jobs per second, one worker", one, plain, max)
        self.add("jobs per second, two workers by one", two, one, max)

    def backlog(self, stack):
        """Time the clock's ticks with many unfinished jobs, and with few."""
        many, few = (
            Side.site(self.servers, name, UNFINISHED_JOBS.format(count))
            for name, count in (("backlog", 1_000_000), ("few", 100))
        )
        sides = take_turns(many.tick, few.tick, turns=1)
        for place, name in enumerate(
            (
                "a tick of the clock with 1,000,000 unfinished jobs, by one with 100",
                "memory of that clock",
            )
        ):
            self.add(
                name, *[[[tick[place] for tick in turns] for turns in side] for side in sides], min
            )


PARTS = ["cpu", "http", "million", "start", "jobs", "backlog"]


def describe(benchmark, load_before):
    """Return a description of the machine and the versions."""
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    python, django = benchmark.plain.python(
        "import django, platform; print(platform.python_version(), django.__version__)"
    ).split()
    ((postgres,),) = benchmark.servers.execute("postgres", "SHOW server_version")
    redis = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    return (
        f"Measured on {time.strftime('%d %B %Y')} on {os.cpu_count()} cores"
        f" ({processor[1] if processor else 'unknown'}), load {load_before:.1f} before the run,"
        f" with Python {python}, Django {django}, Postgres {postgres.split()[0]}"
        f" and Redis {re.search(r'v=([0-9.]+)', redis)[1]}."
    )


def table(rows):
    lines = ["| what | ratio | range | what it tells |", "|---|---|---|---|"]
    lines += [f"| {row.name} | {row.ratio:.2f} | {row.range} | {row.lesson} |" for row in rows]
    return "".join(f"{line}\n" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=PARTS, help="measure one part and write nothing")
    only = parser.parse_args().only
    load_before = os.getloadavg()[0]
    # However this ends, everything that it started ends too.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("Interrupted: nothing was written."))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        os.environ["HOME"] = folder
        try:
            find_program("wrk")
            benchmark = Benchmark(Servers(Path(folder), servers))
        except (pytest.skip.Exception, pytest.fail.Exception) as missing:
            sys.exit(f"The benchmarks cannot run: {missing}")
        for part in [only] if only else PARTS:
            with ExitStack() as stack:
                getattr(benchmark, part)(stack)
        if not only:
            text = f"{describe(benchmark, load_before)}\n\n{table(benchmark.rows)}"
            (HERE / "results.md").write_text(text)


if __name__ == "__main__":
    main()
