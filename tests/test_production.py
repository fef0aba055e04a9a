"""Production on one's own machine, on a real engine: deploy/compose.yaml behind Caddy's HTTPS."""

import re
import socket
import ssl
import subprocess
import time

import pytest
import yaml
from support.docker import docker, inspect
from support.http import Visitor
from support.processes import wait_for
from support.production import Production, load

pytestmark = pytest.mark.xdist_group("network")

SITE = {"web-a", "web-b", "worker", "clock"}
SERVICES = SITE | {"caddy", "db", "redis"}

# --- The files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "services"),
    [
        ("deploy/compose.yaml", SERVICES),
        ("deploy/compose.yaml:deploy/sqlite.yaml", SERVICES - {"db"}),
    ],
)
def test_no_container_has_more_rights_or_room_than_it_needs(engine, bake, files, services):
    site = bake(create_git_repo=False)
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
def test_postgres_keeps_its_data_in_the_volume(bake, version, data):
    site = bake(create_git_repo=False, postgres_version=version)
    services = yaml.safe_load((site / "deploy/compose.yaml").read_text())["services"]
    assert services["db"]["image"] == f"postgres:{version}"
    assert services["db"]["volumes"] == [f"db:{data}"]


def test_the_caddyfile_is_formatted(engine, bake):
    caddyfile = (bake(create_git_repo=False) / "deploy/Caddyfile").read_text()
    formatted = docker("run", "--rm", "--interactive", "caddy:2", "caddy", "fmt", "-",
                       input=caddyfile)  # fmt: skip
    assert formatted == caddyfile.strip()


def test_the_secrets_are_written_once_and_for_nobody_else(bake):
    site = bake()
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
    visitor = production.visitor().walk()
    assert visitor.page("/readyz") == "ok\n"
    # Django knows that the visitor came over HTTPS, and nobody that it is gunicorn's port.
    assert {"__Host-visitor", "__Host-csrftoken"} <= set(visitor.cookies)
    port = production.compose("port", "caddy", "80").rpartition(":")[2]
    response = Visitor(f"http://localhost:{port}").get(Host="localhost")
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
    visitor.generate_in_background()
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
    assert production.name in production.visitor().page()


FAILING_MIGRATION = """
from django.db import migrations

class Migration(migrations.Migration):
    dependencies = [("tokens", "0001_initial")]
    operations = [migrations.RunSQL("SELECT nothing FROM nowhere")]
"""


@pytest.mark.slow
def test_a_version_that_cannot_run_leaves_the_old_one_and_says_why(production):
    before = production.containers()
    visitor = production.visitor().walk()
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
    production.visitor().walk()


def check_backup(production):
    """Back up, lose everything, put it back on an empty stack."""
    visitor = production.visitor().walk()
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
    production.visitor().walk()
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
def test_sqlite_bears_the_load_of_everybody_writing(engine, bake, record_property):
    production = Production(bake, "deploy/compose.yaml:deploy/sqlite.yaml")
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
