"""The two sides of the benchmarks, the site and the plain one, and the servers they share."""

import json
import re
import shlex
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support.commands import cookiecutter
from support.million import MILLION_TOKENS
from support.processes import Process, answers, find_program, free_port, wait_for
from support.procfile import production, read_procfile
from support.pythons import site_environment
from support.servers import Postgres, Redis, execute

__all__ = ["MILLION_TOKENS", "UNFINISHED_JOBS", "Servers", "Side", "find_program", "wait_for"]

DJANGO = "6.1"
CSRF = "abcdefghijklmnopqrstuvwxyzABCDEF"

# Makes ten tokens on one side, and prints the visitor's cookie if there is one.
TEN_TOKENS = """
import django
django.setup()
from uuid import uuid4
from django.http import HttpResponse
from tokens.models import Token
from tokens.visitors import remember_visitor
visitor, response = uuid4(), HttpResponse()
for _ in range(10):
    Token.objects.create(visitor=visitor, value="0" * 64, state="ready")
remember_visitor(response, visitor)
print(response.cookies.output(attrs=[], header="").strip())
"""
TEN_PLAIN_TOKENS = """
import plain
from django.core.management import call_command
from django.db import connection
call_command("migrate", verbosity=0)
with connection.schema_editor() as editor:
    editor.create_model(plain.Token)
for _ in range(10):
    plain.Token.objects.create(value="0" * 64)
call_command("collectstatic", interactive=False, verbosity=0)
"""
UNFINISHED_JOBS = """
INSERT INTO jobs_job (id, task, queue_name, args, kwargs, timeout, retries, status, attempts,
failures, due, enqueued_at, worker_ids, errors)
SELECT gen_random_uuid(), 'tokens.tasks.make_token', 'default', '[]', '{{}}', 30, '[]', 'READY', 0,
0,
now() - interval '1 hour', now() - interval '1 hour', '[]', '[]' FROM generate_series(1, {});
ANALYZE jobs_job
"""
# Prints the seconds of the fastest tick after the first one has filled Redis, and the memory in kB.
TICK = """
import django
django.setup()
import resource, time
from jobs import clock
times = []
for _ in range(6):
    start = time.perf_counter()
    assert clock.tick()
    times.append(time.perf_counter() - start)
print(min(times[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
STYLE = """
import sys
from importlib import import_module
import_module(sys.argv[1])
from django.templatetags.static import static
print(static(sys.argv[2]))
"""


class Servers:
    """Postgres and Redis, and a rendered site with its environment."""

    def __init__(self, folder, stack):
        self.folder = folder
        done = cookiecutter(folder, "--no-input", "--default-config", "--accept-hooks", "no")
        done.check_returncode()
        (self.site,) = (path.parent for path in folder.glob("*/manage.py"))
        # The pages that both sides have only for the benchmarks.
        with (self.site / "config/urls.py").open("a") as urls:
            urls.write("\nfrom pages import urlpatterns as pages\nurlpatterns[:0] = pages\n")
        self.programs = site_environment(self.site, DJANGO, "requirements.txt")
        self.postgres = stack.enter_context(Postgres(folder))
        self.redis = stack.enter_context(Redis(folder))

    def execute(self, database, *statements):
        """Execute statements in a database; return the rows of the last one, if it has any."""
        return execute(self.postgres.url(database), *statements)


class Web(Process):
    """gunicorn, at an address."""

    address = ""

    def memory(self):
        """Return the memory of all its processes in kB; shared memory counts once."""
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.children()]
        return sum(int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.M)[1]) for rollup in rollups)


class Side:
    """A side with its own database: how to start its processes, and what to request."""

    def __init__(self, servers, database, folder, module, web, worker, **environment):
        self.servers, self.database, self.folder, self.module = servers, database, folder, module
        self.web, self.worker = web, worker
        self.cookies = []
        self.environment = production(
            servers.programs,
            ALLOWED_HOSTS="127.0.0.1",
            DATABASE_URL=servers.postgres.url(database),
            REDIS_URL=servers.redis.url[:-1] + str(len(database)),
            PYTHONPATH=f"{folder}:{HERE}",
            PYTHONWARNINGS="ignore",
            WEB_CONCURRENCY="2",
            **environment,
        )
        servers.execute("postgres", f"CREATE DATABASE {database}")

    @classmethod
    def site(cls, servers, database="site", *statements):
        """Make the site's side, with a visitor who has ten tokens."""
        commands = read_procfile(servers.site)
        side = cls(
            servers,
            database,
            servers.site,
            "config.wsgi",
            commands["web"],
            commands["worker"],
            DJANGO_SETTINGS_MODULE="config.settings",
            TOKEN_WORK_SECONDS="0",
            TOKEN_RATE="1000000",
        )
        side.run("manage.py", "collectstatic", "--no-input")
        side.run("manage.py", "migrate")
        servers.execute(database, *statements, "SELECT 1")
        cookie = f"{side.python(TEN_TOKENS)}; csrftoken={CSRF}"
        side.cookies = [f"Cookie: {cookie}"]
        side.home = {"path": "/", "HTTP_COOKIE": cookie}
        side.generate = {
            "path": "/generate/",
            "status": "302",
            "method": "POST",
            "HTTP_COOKIE": f"csrftoken={CSRF}",
            "HTTP_X_CSRFTOKEN": CSRF,
        }
        side.style = side.python(STYLE, "config.wsgi", "config/site.css")
        side.unfinished = "SELECT count(*) FROM tokens_token WHERE state = 'pending'"
        return side

    @classmethod
    def plain(cls, servers):
        """Make the plain side, which has ten tokens."""
        side = cls(
            servers,
            "plain",
            HERE / "plain",
            "plain",
            "gunicorn plain",
            "python -c 'import plain; plain.work()'",
            STATIC_ROOT=str(servers.folder / "static"),
            STATIC_SOURCE=str(servers.site / "config/static/config"),
        )
        side.python(TEN_PLAIN_TOKENS)
        side.home = {"path": "/"}
        side.generate = {"path": "/generate/", "status": "302"}
        side.style = side.python(STYLE, "plain", "site.css")
        side.unfinished = "SELECT count(*) FROM plain_token WHERE value = 'in the making'"
        return side

    def run(self, *arguments):
        """Run Python in the side's folder and environment; return its output."""
        options = {"cwd": self.folder, "env": self.environment, "text": True}
        command = ["python", *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, **options).stdout.strip()

    def python(self, code, *arguments):
        return self.run("-c", code, *arguments)

    def start(self, stack, kind, command, name, **environment):
        log = self.servers.folder / f"{self.database}-{name}.log"
        environment = self.environment | environment
        process = kind(shlex.split(command), log, env=environment, cwd=self.folder)
        return stack.enter_context(process)

    def start_web(self, stack):
        """Start gunicorn; return it once it answers."""
        port = free_port()
        web = self.start(stack, Web, self.web, "web", PORT=str(port))
        web.address = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{web.address}/line/"), 120, web.log, pause=0.005)
        return web

    def start_worker(self, stack):
        """Start a worker; return it once it waits for jobs."""
        name = f"worker-{free_port()}"
        worker = self.start(stack, Process, self.worker, name)
        wait_for(lambda: re.search("Listening on|queues=default", worker.output), what=worker.log)
        return worker

    @contextmanager
    def application(self):
        """Start only the application; yield a function that returns the µs of CPU for a request."""
        command = ["python", HERE / "cpu.py", self.module]
        with (self.servers.folder / f"{self.database}-cpu.log").open("w") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

        def ask(request):
            process.stdin.write(f"{json.dumps(request)}\n")
            process.stdin.flush()
            if answer := process.stdout.readline():
                return float(answer)
            raise RuntimeError(Path(log.name).read_text())

        with process:
            yield ask
            process.stdin.close()

    def pending(self):
        """Return how many tokens are still to be made."""
        ((count,),) = self.servers.execute(self.database, self.unfinished)
        return count

    def tick(self):
        """Return the seconds of a tick of the clock, and its memory in kB."""
        seconds, memory = self.python(TICK).split()
        return float(seconds), int(memory)

    def enqueue(self, count):
        """Ask for that many tokens in the background."""
        self.run(HERE / "clients.py", self.module, "enqueue", str(count))

    def enqueue_to_ready(self):
        """Return the median seconds from enqueue to ready, once a worker runs."""
        return float(self.run(HERE / "clients.py", self.module, "latency"))
