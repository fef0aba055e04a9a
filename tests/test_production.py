"""Production on one's own machine, on a real engine: deploy/compose.yaml behind Caddy's HTTPS."""

import http.client
import random
import re
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlencode

import pytest
import yaml
from conftest import bake
from processes import free_port, wait_for
from test_docker import ENVIRONMENT, Project, docker, engine, inspect  # noqa: F401  (a fixture)

pytestmark = pytest.mark.xdist_group("docker")

SITE = {"web-a", "web-b", "worker", "clock"}
SERVICES = SITE | {"caddy", "db", "redis"}

# Free ports, short jobs, and a health check of Caddy that needs no wget: Debian's has none.
OVERRIDE = """
services:
  caddy:
    ports: !override ["127.0.0.1:{http}:80", "127.0.0.1:{https}:443"]
    healthcheck:
      test: wget -q --spider http://127.0.0.1:2019/config/ || bash -c '< /dev/tcp/127.0.0.1/2019'
  worker:
    environment:
      TOKEN_WORK_SECONDS: "0.05"
"""


class Visitor:
    """A visitor over HTTPS who verifies the certificate and keeps cookies."""

    def __init__(self, port, context, keep_alive=True):
        self.arguments = ("localhost", port)
        self.context = context
        self.keep_alive = keep_alive
        self.cookies = {}
        self.accepted = 0
        self.connection = None

    def request(self, method, path, body=None):
        """Return the status and the text; open a connection unless one is kept."""
        self.connection = self.connection or http.client.HTTPSConnection(
            *self.arguments, context=self.context, timeout=60
        )
        headers = {
            "Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
            "Content-Type": "application/x-www-form-urlencoded",
            "Origin": "https://{}:{}".format(*self.arguments),
        }
        if not self.keep_alive:
            headers["Connection"] = "close"
        try:
            self.connection.request(method, path, body, headers)
            response = self.connection.getresponse()
            text = response.read().decode()
        except BaseException:
            self.close()
            raise
        for cookie in response.headers.get_all("Set-Cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        if not self.keep_alive:
            self.close()
        return response.status, text

    def close(self):
        self.connection.close()
        self.connection = None

    def get(self, path="/"):
        status, text = self.request("GET", path)
        assert status == 200, f"GET {path}: {status}"
        return text

    def post(self, path):
        """Press the button; the page is asked for first, for its CSRF token."""
        (csrf,) = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get())
        status, _ = self.request("POST", path, urlencode({"csrfmiddlewaretoken": csrf}))
        assert status == 302, f"POST {path}: {status}"
        self.accepted += 1

    def tokens(self):
        return re.findall(r"<code>([0-9a-f]{64})</code>", self.get())


class Production(Project):
    """A baked site in production on this machine, as `make deploy` puts it there."""

    def __init__(self, folder, files="deploy/compose.yaml"):
        super().__init__(folder)
        self.name += "-production"
        self.port = free_port()
        override = OVERRIDE.format(http=free_port(), https=self.port)
        (self.site / "test.yaml").write_text(override)
        with (self.site / ".env").open("a") as env:
            env.write(f"COMPOSE_FILE={files}:test.yaml\n")

    def make(self, *arguments, check=True):
        done = subprocess.run(
            ["make", *arguments],
            cwd=self.site,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not check or done.returncode == 0, done.stdout[-5000:]
        return done

    def deploy(self, **options):
        done = self.make("deploy", **options)
        # Without -k: the certificate is verified by the root of Caddy's own authority.
        root = "/data/caddy/pki/authorities/local/root.crt"
        self.context = ssl.create_default_context(cadata=self.exec("caddy", "cat", root))
        return done

    def down(self):
        self.compose("down", "--volumes", "--remove-orphans")
        label = f"label=com.docker.compose.project={self.name}"
        images = docker("image", "ls", "--quiet", "--filter", label).split()
        if images:
            docker("image", "rm", "--force", *sorted(set(images)), check=False)

    def visitor(self, keep_alive=True):
        return Visitor(self.port, self.context, keep_alive)

    def ready(self):
        return self.visitor().request("GET", "/readyz")[0] == 200

    def container(self, service):
        return self.compose("ps", "--quiet", service)

    def containers(self):
        return {service: self.container(service) for service in self.states()}

    def shell(self, code):
        return self.exec("web-a", "python", "manage.py", "shell", "--verbosity", "0", "-c", code)

    def troubles(self):
        """Return what the proxy and the site have logged of failed requests and health checks."""
        logs = self.compose("logs", "--no-color", "--timestamps", "caddy", "web-a", "web-b")
        return "\n".join(re.findall(r".*(?:level=ERROR|status=5|health|\"error\").*", logs))

    def pending(self):
        return int(self.shell("print(Token.objects.pending().count())"))


def check_walk(production):
    visitor = production.visitor()
    visitor.post("/generate/")
    assert len(visitor.tokens()) == 1
    visitor.post("/generate-in-background/")
    wait_for(lambda: len(visitor.tokens()) == 2, 60, what="the token")
    return visitor


@contextmanager
def load(production, record_property, visitors=6):
    """Visitors who press the buttons all the time, half of them over a kept connection.

    At the end no request has failed, and everybody has every token that they asked for.
    """
    stop = threading.Event()
    failures, everybody, durations = [], [], []

    def press(keep_alive):
        while not stop.is_set():
            visitor = production.visitor(keep_alive)
            everybody.append(visitor)
            for _ in range(4):  # each has a limit
                path = "/generate/" if random.random() < 0.9 else "/generate-in-background/"
                stop.wait(0.1)
                started = time.monotonic()
                try:
                    visitor.post(path)
                except Exception as error:
                    failures.append(f"{time.strftime('%X')} keep_alive={keep_alive} {error!r}")
                durations.append(time.monotonic() - started)

    threads = [threading.Thread(target=press, args=(n % 2 == 0,)) for n in range(visitors)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(durations) > 50, what="the load")
        yield
        reached = len(durations)
        wait_for(lambda: len(durations) > reached + 50, what="the load afterwards")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    record_property(
        "load", f"{2 * len(durations)} requests, {len(failures)} failed, "
        f"slowest pair {max(durations):.1f} s, {len(everybody)} visitors",
    )  # fmt: skip
    assert failures == [], production.troubles()
    wait_for(lambda: production.pending() == 0, 180, what="the jobs")
    for visitor in everybody:
        if visitor.connection:
            visitor.close()  # Caddy may have done so, in minutes without a request
        assert len(visitor.tokens()) == visitor.accepted


@pytest.fixture(scope="module")
def production(engine, tmp_path_factory):  # noqa: F811
    production = Production(tmp_path_factory.mktemp("production"))
    try:
        production.deploy()
        yield production
    finally:
        production.down()


# --- The files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "services"),
    [
        ("deploy/compose.yaml", SERVICES),
        ("deploy/compose.yaml:deploy/sqlite.yaml", SERVICES - {"db"}),
    ],
)
def test_no_container_has_more_rights_or_room_than_it_needs(engine, tmp_path, files, services):  # noqa: F811
    site = bake(tmp_path, create_git_repo=False)
    arguments = [f"--file={file}" for file in files.split(":")]
    config = yaml.safe_load(docker("compose", *arguments, "config", cwd=site))
    assert config["name"] == "my_site-production"
    assert set(config["services"]) == services | {"migrate"}
    for name, service in config["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) <= 512 * 2**20, name
        assert service["pids_limit"] <= 200, name
        assert service["logging"]["driver"] == "local", name
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped"), name
        assert ("ports" in service) == (name == "caddy"), name
        assert set(service["networks"]) <= {"data", "proxy"} or name == "caddy", name
    networks = {name: set(service["networks"]) for name, service in config["services"].items()}
    assert networks["caddy"] == {"default", "proxy"}
    assert {name for name in networks if "proxy" in networks[name]} == {"caddy", "web-a", "web-b"}
    assert config["networks"]["data"]["internal"] and config["networks"]["proxy"]["internal"]


@pytest.mark.parametrize(
    ("version", "data"),
    [("17", "/var/lib/postgresql/data"), ("18", "/var/lib/postgresql")],
)
def test_postgres_keeps_its_data_in_the_volume(tmp_path, version, data):
    site = bake(tmp_path, create_git_repo=False, postgres_version=version)
    services = yaml.safe_load((site / "deploy/compose.yaml").read_text())["services"]
    assert services["db"]["image"] == f"postgres:{version}"
    assert services["db"]["volumes"] == [f"db:{data}"]


def test_the_caddyfile_is_formatted(engine, tmp_path):  # noqa: F811
    caddyfile = (bake(tmp_path, hooks=False) / "deploy/Caddyfile").read_text()
    formatted = docker("run", "--rm", "--interactive", "caddy:2", "caddy", "fmt", "-",
                       input=caddyfile)  # fmt: skip
    assert formatted == caddyfile.strip()


def test_the_secrets_are_written_once_and_for_nobody_else(tmp_path):
    site = bake(tmp_path)
    secrets = site / "secrets"

    def make():
        subprocess.run(["make", "secrets"], cwd=site, check=True, capture_output=True)
        return {path.name: path.read_text().strip() for path in secrets.iterdir()}

    written = make()
    assert set(written) == {"database_url", "postgres_password", "secret_key"}
    assert re.fullmatch(r"[0-9a-f]{64}", written["secret_key"])
    password = written["postgres_password"]
    assert written["database_url"] == f"postgres://postgres:{password}@db:5432/site"
    assert written["secret_key"] != password
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o644}
    assert make() == written
    (site / "backups").mkdir()
    (site / "backups" / "dump").touch()
    status = ["git", "status", "--porcelain", "--untracked-files=all"]
    assert subprocess.run(status, cwd=site, capture_output=True, text=True).stdout == ""


# --- The stack -------------------------------------------------------------------------------


def test_one_command_puts_the_site_behind_https(production):
    states = production.states()
    assert {name for name, state in states.items() if state["Health"] == "healthy"} == SERVICES
    visitor = check_walk(production)
    assert visitor.get("/readyz") == "ok\n"
    # Django knows that the visitor came over HTTPS, and nobody that it is gunicorn's port.
    assert {"__Host-visitor", "__Host-csrftoken"} <= set(visitor.cookies)
    port = production.compose("port", "caddy", "80").rpartition(":")[2]
    plain = http.client.HTTPConnection("localhost", int(port), timeout=10)
    plain.request("GET", "/")
    response = plain.getresponse()
    assert (response.status, response.headers["Location"]) == (308, "https://localhost/")


def test_a_stranger_to_caddys_authority_is_warned(production):
    context = ssl.create_default_context()
    with (
        pytest.raises(ssl.SSLCertVerificationError),
        socket.create_connection(("localhost", production.port)) as connection,
    ):
        context.wrap_socket(connection, server_hostname="localhost")


def test_no_secret_is_where_docker_shows_it(production):
    values = [path.read_text().strip() for path in (production.site / "secrets").iterdir()]
    shown = docker("inspect", *production.containers().values())
    shown += docker("history", "--no-trunc", production.name)
    assert "/run/secrets/secret_key" in shown
    assert not any(value in shown for value in values)
    environments = [production.exec(name, "env") for name in SERVICES]
    assert not any(value in env for value in values for env in environments)


def test_the_containers_write_to_nothing_but_memory_and_volumes(production):
    for name, container in production.containers().items():
        assert inspect(container, "HostConfig.ReadonlyRootfs"), name
        done = subprocess.run(["docker", "exec", container, "touch", "/usr/written"])
        assert done.returncode != 0, name
    for name in SITE:
        assert production.exec(name, "id", "-u") == "10001"
    for name in ("db", "redis"):
        assert production.exec(name, "id", "-u") != "0"


# In the network of another container, whose image may lack every tool.
CONNECT = """
import socket, sys
for address in sys.argv[1:]:
    host, port = address.split(":")
    try:
        socket.create_connection((host, port), 2)
        print(address, "open")
    except OSError as error:
        print(address, "closed")
"""


def test_the_servers_are_reached_by_the_site_alone(production):
    def connect(container, *addresses):
        network = f"--network=container:{container}"
        output = docker(
            "run", "--rm", network, production.name, "python", "-c", CONNECT, *addresses
        )
        return {line.split()[0] for line in output.splitlines() if line.endswith("open")}

    containers = production.containers()
    addresses = set()
    for name, port in (("db", 5432), ("redis", 6379)):
        for network in inspect(containers[name], "NetworkSettings.Networks").values():
            addresses.add(f"{network['IPAddress']}:{port}")
    assert len(addresses) == 2
    assert connect(containers["worker"], *addresses) == addresses
    assert connect(containers["caddy"], *addresses, "db:5432", "redis:6379") == set()
    assert connect(containers["caddy"], "web-a:8000") == {"web-a:8000"}
    # No way out but Caddy's, and no other port on this machine.
    for name in SERVICES - {"caddy"}:
        routes = docker("run", "--rm", f"--network=container:{containers[name]}", production.name,
                        "cat", "/proc/net/route")  # fmt: skip
        assert not re.search(r"^\S+\t00000000\t", routes, re.M), name
        assert inspect(containers[name], "HostConfig.PortBindings") in ({}, None), name


def test_whatever_is_killed_comes_back(production, record_property):
    visitor = production.visitor()
    visitor.post("/generate-in-background/")
    for name in SERVICES:
        pid = inspect(production.container(name), "State.Pid")
        kill = ["run", "--rm", "--pid=host", "--privileged", "--user=0", production.name]
        docker(*kill, "python", "-c", f"import os; os.kill({pid}, 9)")
    started = time.monotonic()
    wait_for(production.ready, 60, what="the site")
    record_property("recovery", f"{time.monotonic() - started:.1f} s after every kill")
    wait_for(lambda: len(visitor.tokens()) == 1, 120, what="the token")
    wait_for(lambda: {s["Health"] for s in production.states().values()} == {"healthy"}, 60)


@pytest.mark.slow
def test_a_new_version_drops_no_request_and_no_job(production, record_property):
    before = production.containers()
    with load(production, record_property):
        production.edit("tokens/templates/tokens/home.html", "Random tokens", production.name)
        production.deploy()
    after = production.containers()
    assert {name for name in before if before[name] != after[name]} == SITE
    assert production.name in production.visitor().get()


FAILING_MIGRATION = """
from django.db import migrations

class Migration(migrations.Migration):
    dependencies = [("tokens", "0001_initial")]
    operations = [migrations.RunSQL("SELECT nothing FROM nowhere")]
"""


@pytest.mark.slow
def test_a_version_that_cannot_run_leaves_the_old_one_and_says_why(production):
    before = production.containers()
    visitor = check_walk(production)
    migration = production.site / "tokens/migrations/0002_failing.py"
    migration.write_text(FAILING_MIGRATION)
    done = production.make("deploy", check=False)
    assert done.returncode != 0
    assert 'relation "nowhere" does not exist' in done.stdout
    migration.unlink()

    secure = ("config/settings.py", "SECURE_SSL_REDIRECT = True", "SECURE_SSL_REDIRECT = False")
    production.edit(*secure)
    done = production.make("deploy", check=False)
    assert done.returncode != 0
    assert "security.W008" in done.stdout
    production.edit(secure[0], secure[2], secure[1])
    assert production.containers() == before

    # What the checks do not see stops at the first of the two.
    gunicorn = production.site / "gunicorn.conf.py"
    good = gunicorn.read_text()
    gunicorn.write_text(good + "\nraise SystemExit('no start')\n")
    done = production.make("deploy", check=False)
    assert done.returncode != 0
    assert "no start" in done.stdout
    after = production.containers()
    assert {name for name in before if before[name] != after[name]} == {"web-a"}
    assert len(visitor.tokens()) == 2
    gunicorn.write_text(good)
    production.deploy()
    check_walk(production)


def check_backup(production):
    """Back up, lose everything, put it back on an empty stack."""
    visitor = check_walk(production)
    tokens = visitor.tokens()
    production.make("backup")
    (backup,) = (production.site / "backups").iterdir()
    assert backup.stat().st_mode & 0o777 == 0o600
    production.compose("down", "--volumes")
    production.deploy()
    visitor.close()
    visitor.context = production.context  # Caddy has made a new authority
    assert visitor.tokens() == []
    production.make("restore", f"FILE=backups/{backup.name}")
    assert visitor.tokens() == tokens
    half = production.site / "half a backup"
    half.write_bytes(backup.read_bytes()[: backup.stat().st_size // 2])
    assert production.make("restore", f"FILE={half.name}", check=False).returncode != 0
    assert visitor.tokens() == tokens
    check_walk(production)
    return backup


@pytest.mark.slow
def test_a_backup_is_restored_into_an_empty_stack(production):
    backup = check_backup(production)
    # One that fails leaves no file that looks like one, and the data as it is.
    production.compose("stop", "db")
    assert production.make("backup", check=False).returncode != 0
    names = {path.name for path in backup.parent.iterdir()}
    assert names <= {backup.name, "partial"}
    production.compose("start", "db")
    wait_for(production.ready, 60, what="the site")
    assert "make restore FILE=" in production.make("restore", check=False).stdout


# --- SQLite ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_sqlite_bears_the_load_of_everybody_writing(engine, tmp_path, record_property):  # noqa: F811
    production = Production(tmp_path, "deploy/compose.yaml:deploy/sqlite.yaml")
    try:
        production.deploy()
        assert set(production.states()) == SERVICES - {"db"}
        with load(production, record_property, visitors=8):
            production.edit("tokens/views.py", "from uuid", f"# {production.name}\nfrom uuid")
            production.deploy()
        logs = production.compose("logs")
        assert 'outcome="ready"' in logs
        assert "locked" not in logs
        check_backup(production)
    finally:
        production.down()
