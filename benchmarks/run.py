"""Measure the site against baselines in the same run; write results.md and results.png.

Every figure is a ratio. Subject and baseline take turns, and each turn gives one ratio; the table
shows their median and range. How to read it is in README.md.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from conftest import TEMPLATE, bake, site_environment  # noqa: E402  (needs the path)
from processes import Postgres, Process, Redis, answers, find_program, free_port, wait_for  # noqa: E402

ROUNDS = 5
SECONDS = 3  # of load in each turn
CONNECTIONS = 8
JOBS = 200

BARE = HERE / "bare"


class Row:
    """One line of the table."""

    def __init__(self, name, baseline, goal, ratios):
        self.name, self.baseline, self.goal = name, baseline, goal
        self.ratios = ratios
        self.median = statistics.median(ratios)
        sign, bound = goal.split()
        self.met = self.median <= float(bound) if sign == "≤" else self.median >= float(bound)

    def __str__(self):
        low, high = min(self.ratios), max(self.ratios)
        mark = "yes" if self.met else "**no**"
        return (
            f"| {self.name} | {self.baseline} | {self.median:.2f} | {low:.2f} to {high:.2f} "
            f"| {self.goal} | {mark} |"
        )


def alternate(subject, baseline, rounds=ROUNDS):
    """Call both in turn; return the ratio of their results for each round."""
    ratios = []
    for number in range(rounds):
        first, second = (subject, baseline) if number % 2 else (baseline, subject)
        results = {first: first()}
        results[second] = second()
        ratios.append(results[subject] / results[baseline])
    return ratios


def seconds(command, **options):
    """Return how long a command takes."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)
    return time.perf_counter() - start


def wrk(url, *arguments, headers=()):
    """Put load on the URL; return requests per second and the 99th percentile in ms."""
    header_arguments = [argument for header in headers for argument in ("-H", header)]
    command = [find_program("wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency"]
    output = subprocess.run(
        [*command, *header_arguments, *arguments, url], capture_output=True, text=True, check=True
    ).stdout
    if failed := re.search(r"Non-2xx or 3xx responses: .*|Socket errors: .*", output):
        raise RuntimeError(f"{url}: {failed[0]}")
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", output).groups()
    p99 = float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]), p99


def memory(process):
    """Return the proportional memory of a process and its children, in bytes."""
    total = 0
    for pid in process.children():
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.M)[1]) * 1024
    return total


class Benchmark:
    """The servers and the two sites that are compared."""

    def __init__(self, folder, stack):
        self.folder, self.stack = folder, stack
        self.rows = []
        self.site = bake(folder)
        self.bin = site_environment(self.site, "6.1")
        self.postgres = stack.enter_context(Postgres(folder))
        self.redis = stack.enter_context(Redis(folder))
        self.env = os.environ | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "DEBUG": "false",
            "HTTPS": "false",
            "SECRET_KEY": "0123456789abcdef" * 4,
            "ALLOWED_HOSTS": "127.0.0.1",
            "DATABASE_URL": self.postgres.url("site"),
            "REDIS_URL": self.redis.url,
            "POSTGRES_PORT": str(self.postgres.port),
            "TOKEN_WORK_SECONDS": "0",
            "LOG_LEVEL": "WARNING",
        }
        self.sql("CREATE DATABASE site")
        self.sql("CREATE DATABASE million")
        self.sql("CREATE TABLE bare (id bigserial PRIMARY KEY, value text)")
        self.manage("migrate")
        self.manage("migrate", DATABASE_URL=self.postgres.url("million"))
        self.manage("collectstatic", "--no-input")

    def add(self, *arguments):
        row = Row(*arguments)
        self.rows.append(row)
        print(row, flush=True)

    def sql(self, statement, database="postgres"):
        code = (
            "import psycopg2, sys; c = psycopg2.connect(sys.argv[1]); c.autocommit = True; "
            "c.cursor().execute(sys.argv[2])"
        )
        command = [sys.executable, "-c", code, self.postgres.url(database), statement]
        subprocess.run(command, check=True)

    def manage(self, *arguments, **environment):
        command = ["python", "manage.py", *arguments]
        return subprocess.run(
            command,
            cwd=self.site,
            env=self.env | environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def shell(self, code, **environment):
        return self.manage("shell", "--no-imports", "-c", code, **environment).strip()

    def process(self, name, *command, bare=False, **environment):
        """Return a process of the site or of the bare project, not yet started."""
        return Process(
            command,
            self.folder / f"{name}.log",
            env=self.env | {"PORT": str(free_port())} | environment,
            cwd=BARE if bare else self.site,
        )

    def gunicorn(self, name, bare=False, **environment):
        """Return gunicorn with the site's configuration, and its address."""
        application = "bare" if bare else "config.wsgi"
        command = ["gunicorn", "--config", str(self.site / "gunicorn.conf.py"), application]
        process = self.process(name, *command, bare=bare, **environment)
        return process, f"http://127.0.0.1:{process.options['env']['PORT']}"

    def serve(self, name, bare=False, **environment):
        process, address = self.gunicorn(name, bare, **environment)
        self.stack.enter_context(process)
        wait_for(lambda: answers(f"{address}/"))
        return process, address

    def visitor(self, **environment):
        """Return the cookie header of a new visitor with ten tokens."""
        code = """
from uuid import uuid4
from django.conf import settings
from django.http import HttpResponse
from tokens.models import Token, new_value
from tokens.visitors import remember_visitor
visitor, response = uuid4(), HttpResponse()
for _ in range(settings.TOKEN_LIMIT):
    Token.objects.create(visitor=visitor, state="ready", value=new_value())
remember_visitor(response, visitor)
print(response.cookies.output(header="Cookie:").partition(";")[0])
"""
        return self.shell(code, **environment)

    # --- What is measured --------------------------------------------------------------------

    def bake(self):
        empty = self.folder / "empty"
        (empty / "hooks").mkdir(parents=True)
        for hook in ("pre", "post"):
            (empty / "hooks" / f"{hook}_gen_project.py").touch()
        (empty / "cookiecutter.json").write_text('{"project_slug": "empty"}')
        (empty / "{{cookiecutter.project_slug}}").mkdir()
        (empty / "{{cookiecutter.project_slug}}" / "README.md").touch()

        def run(template):
            cookiecutter = Path(sys.executable).with_name("cookiecutter")
            with tempfile.TemporaryDirectory() as folder:
                command = [cookiecutter, "--no-input", "-o", folder, template]
                return seconds(command, stderr=subprocess.DEVNULL)

        ratios = alternate(lambda: run(TEMPLATE), lambda: run(empty))
        self.add("bake the defaults", "an empty template with two empty hooks", "≤ 1.15", ratios)

    def http(self):
        self.sql(
            "INSERT INTO tokens_token (id, visitor, value, state, created) SELECT "
            "gen_random_uuid(), gen_random_uuid(), 'x', 'ready', now() - random() * interval "
            "'23 hours' FROM generate_series(1, 1000000)",
            "million",
        )
        self.sql("VACUUM ANALYZE tokens_token", "million")
        million = self.postgres.url("million")
        cookie, cookie_of_million = self.visitor(), self.visitor(DATABASE_URL=million)
        web, site = self.serve("web")
        bare_web, bare = self.serve("bare", bare=True)
        _, site_with_million = self.serve("million", DATABASE_URL=million)
        latencies = {"home": [], "empty": []}

        def home():
            rate, p99 = wrk(f"{site}/", headers=[cookie])
            latencies["home"].append(p99)
            return rate

        def empty():
            rate, p99 = wrk(f"{bare}/")
            latencies["empty"].append(p99)
            return rate

        def home_with_million():
            return wrk(f"{site_with_million}/", headers=[cookie_of_million])[0]

        def poll():
            return wrk(f"{site}/progress/?token={self.pending(cookie)}", headers=[cookie])[0]

        def generate():
            return wrk(f"{site}/generate/", "-s", str(HERE / "post.lua"))[0]

        def insert():
            return wrk(f"{bare}/insert/", "-s", str(HERE / "post.lua"))[0]

        def static():
            return wrk(f"{site}{style}", headers=["Accept-Encoding: br"])[0]

        (style,) = {
            f"/static/tokens/{path.name}"
            for path in (self.site / "staticfiles/tokens").glob("site.*.css")
        }
        for warm in (home, empty, home_with_million):
            warm()
        for values in latencies.values():
            values.clear()
        add = self.add
        add("home page, requests/s", "an empty response", "≥ 0.30", alternate(home, empty))
        ratios = [a / b for a, b in zip(latencies["home"], latencies["empty"], strict=True)]
        add("home page, 99th percentile", "an empty response", "≤ 4", ratios)
        ratios = alternate(home_with_million, home)
        add("home page beside 1,000,000 tokens", "the home page", "≥ 0.9", ratios)
        add("generate at once", "one INSERT and a redirect", "≥ 0.5", alternate(generate, insert))
        add("stylesheet, brotli", "an empty response", "≥ 1.0", alternate(static, empty))
        ratios = [memory(web) / memory(bare_web) for _ in range(ROUNDS)]
        add("memory of web", "the bare project under the same server", "≤ 1.25", ratios)
        add("poll while a token is pending", "the home page", "≥ 1.5", alternate(poll, home))

    def pending(self, cookie):
        """Return the id of a token of this visitor, pending for as long as no worker runs."""
        code = f"""
from http.cookies import SimpleCookie
from django.test import RequestFactory
from tokens.models import Token
from tokens.visitors import get_visitor
from tokens import jobs
request = RequestFactory().get("/")
request.COOKIES = {{k: m.value for k, m in SimpleCookie("{cookie[8:]}").items()}}
visitor = get_visitor(request)
token = Token.objects.filter(visitor=visitor, state="pending").first()
if token is None:
    token = Token.objects.filter(visitor=visitor).first()
    token.state = "pending"
    token.save()
    jobs.enqueue(token)
print(token.pk)
"""
        return self.shell(code)

    def start(self):
        def first_answer(bare):
            process, address = self.gunicorn("start", bare)
            start = time.perf_counter()
            with process:
                wait_for(lambda: answers(f"{address}/"))
                return time.perf_counter() - start

        ratios = alternate(lambda: first_answer(False), lambda: first_answer(True))
        self.add("start of web to the first answer", "the bare project", "≤ 1.5", ratios)

    def jobs(self):
        worker = ["python", "manage.py", "rqworker", "--serializer", "json"]
        rq = ["rq", "worker", "--url", f"redis://127.0.0.1:{self.redis.port}/1"]

        def site_latency():
            with self.process("worker", *worker) as process:
                wait_for(lambda: "Listening on" in process.output)
                return float(self.shell(SITE_LATENCY))

        def rq_latency():
            with self.process("rq", *rq, bare=True, PYTHONPATH=str(BARE)) as process:
                wait_for(lambda: "Listening on" in process.output)
                command = ["python", "-c", RQ_LATENCY, rq[-1]]
                done = subprocess.run(
                    command, cwd=BARE, env=self.env, capture_output=True, text=True, check=True
                )
                return float(done.stdout)

        ratios = alternate(site_latency, rq_latency)
        self.add("enqueue to ready, no simulated work", "rq alone", "≤ 1.3", ratios)

        def rate(workers):
            self.shell(ENQUEUE.format(count=JOBS))
            with ExitStack() as stack:
                for number in range(workers):
                    stack.enter_context(self.process(f"worker{number}", *worker))
                self.shell(WAIT.format(done=JOBS // 5))
                start = time.perf_counter()
                self.shell(WAIT.format(done=JOBS))
                return JOBS * 4 / 5 / (time.perf_counter() - start)

        ratios = alternate(lambda: rate(2), lambda: rate(1), 3)
        self.add("jobs per second with two workers", "one worker", "≥ 1.7", ratios)
        ratios = alternate(lambda: rate(4), lambda: rate(1), 3)
        self.add("jobs per second with four workers", "one worker", "≥ 1.7", ratios)


SITE_LATENCY = """
import statistics, time
from uuid import uuid4
from tokens import jobs
from tokens.models import Token
times = []
for _ in range(30):
    token = Token.objects.create(visitor=uuid4())
    start = time.perf_counter()
    jobs.enqueue(token)
    while not Token.objects.filter(pk=token.pk, state="ready").exists():
        time.sleep(0.001)
    times.append(time.perf_counter() - start)
print(statistics.median(times))
"""

RQ_LATENCY = """
import statistics, sys, time
import bare
from django.db import connection
from redis import Redis
from rq import Queue
queue = Queue(connection=Redis.from_url(sys.argv[1]))
cursor = connection.cursor()
cursor.execute("SELECT count(*) FROM bare")
(count,) = cursor.fetchone()
times = []
for _ in range(30):
    start = time.perf_counter()
    queue.enqueue(bare.job)
    seen = count
    while seen == count:
        time.sleep(0.001)
        cursor.execute("SELECT count(*) FROM bare")
        (seen,) = cursor.fetchone()
    count = seen
    times.append(time.perf_counter() - start)
print(statistics.median(times))
"""

ENQUEUE = """
from uuid import uuid4
from tokens import jobs
from tokens.models import Token
Token.objects.all().delete()
for token in Token.objects.bulk_create(Token(visitor=uuid4()) for _ in range({count})):
    jobs.enqueue(token)
"""

WAIT = """
import time
from tokens.models import Token
while Token.objects.filter(state="ready").count() < {done}:
    time.sleep(0.01)
"""


def plot(rows):
    """Draw each ratio with its range beside its goal."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 0.5 * len(rows) + 1.5), layout="constrained")
    for place, row in enumerate(reversed(rows)):
        colour = "tab:green" if row.met else "tab:red"
        axes.plot([min(row.ratios), max(row.ratios)], [place, place], color=colour, linewidth=6)
        axes.plot(row.median, place, "o", color="black")
        axes.plot(float(row.goal.split()[1]), place, "|", color="black", markersize=16)
    axes.set_yticks(range(len(rows)), [f"{row.name}\n({row.goal})" for row in reversed(rows)])
    axes.set_xscale("log")
    axes.set_xlabel("ratio to the baseline: median (dot), range (bar), goal (line)")
    figure.savefig(HERE / "results.png", dpi=110)


def main():
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        # Cookiecutter and Git get a home of their own.
        os.environ["HOME"] = folder
        benchmark = Benchmark(Path(folder), stack)
        benchmark.bake()
        benchmark.start()
        benchmark.http()
        benchmark.jobs()
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    table = "\n".join(map(str, benchmark.rows))
    (HERE / "results.md").write_text(
        f"Measured on {time.strftime('%d %B %Y')} with {os.cpu_count()} cores"
        f" ({processor[1] if processor else 'unknown'}), Python 3.13, Django 6.1.\n\n"
        "| what | baseline | ratio | range | goal | met |\n|---|---|---|---|---|---|\n"
        f"{table}\n"
    )
    plot(benchmark.rows)


if __name__ == "__main__":
    main()
