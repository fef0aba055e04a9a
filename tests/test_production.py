"""Production on your own server, on a real engine: deploy/compose.yaml behind Caddy's HTTPS."""

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
from support.production import SERVICES, SITE

pytestmark = pytest.mark.xdist_group("network")

# --- The files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "services"),
    [
        ("deploy/compose.yaml", SERVICES),
        ("deploy/compose.yaml:deploy/sqlite.yaml", SERVICES - {"db"}),
    ],
)
def test_containers_have_no_privileges_and_limited_resources(engine, bake, files, services):
    site = bake(create_git_repo=False)
    arguments = [f"--file={file}" for file in files.split(":")]
    variables = {"DOMAIN": "www.example.org"}
    config = yaml.safe_load(docker("compose", *arguments, "config", cwd=site, variables=variables))
    assert config["name"] == "my_site-production"
    assert set(config["services"]) == services
    for name, service in config["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) <= 512 * 2**20, name
        assert service["pids_limit"] <= 200, name
        assert service["logging"]["driver"] == "local", name
        assert service["restart"] == "unless-stopped", name
        assert ("ports" in service) == (name == "caddy"), name
    networks = {name: set(service["networks"]) for name, service in config["services"].items()}
    # Caddy reaches out for its certificates, the worker for the mail server; the rest cannot.
    assert {name for name in networks if "default" in networks[name]} == {"caddy", "worker"}
    assert networks["caddy"] == {"default", "proxy"}
    assert set().union(*networks.values()) == {"data", "default", "proxy"}
    assert {name for name in networks if "proxy" in networks[name]} == {"caddy", "web-a", "web-b"}
    assert config["networks"]["data"]["internal"] and config["networks"]["proxy"]["internal"]


@pytest.mark.parametrize(
    ("version", "data"),
    [("17", "/var/lib/postgresql/data"), ("18", "/var/lib/postgresql")],
)
def test_postgres_keeps_its_data_in_the_volume(bake, version, data):
    site = bake(create_git_repo=False, postgres_version=version)
    services = yaml.safe_load((site / "deploy/compose.yaml").read_text())["services"]
    assert services["db"]["image"] == f"postgres:{version}-trixie"
    assert services["db"]["volumes"] == [f"db:{data}"]


# --- The stack -------------------------------------------------------------------------------


def test_one_command_serves_the_site_over_https(production):
    states = production.states()
    assert {name for name, state in states.items() if state["Health"] == "healthy"} == SERVICES
    visitor = production.visitor().walk()
    assert visitor.page("/readyz") == "ok\n"
    # Django knows that the visitor came over HTTPS, and no page shows gunicorn's port.
    assert {"__Host-visitor", "__Host-csrftoken"} <= set(visitor.cookies)
    response = Visitor(f"http://localhost:{production.http_port}").get(Host="localhost")
    assert (response.status, response.headers["Location"]) == (308, "https://localhost/")


def test_clients_that_do_not_trust_caddys_authority_are_warned(production):
    context = ssl.create_default_context()
    with (
        pytest.raises(ssl.SSLCertVerificationError),
        socket.create_connection(("localhost", production.port)) as connection,
    ):
        context.wrap_socket(connection, server_hostname="localhost")


def test_docker_shows_no_secrets(production):
    secrets = [path for path in (production.site / "secrets").rglob("*") if path.is_file()]
    texts = [(path.name, text) for path in secrets if (text := path.read_text().strip())]
    values = {text for _, text in texts}
    assert {name for name, _ in texts} >= {
        *("secret_key", "postgres_password", "redis_password"),
        *("database_url", "redis_url", "redis_users"),
    }
    shown = docker("inspect", *production.containers().values())
    shown += docker("history", "--no-trunc", production.image)
    assert "/run/secrets/secret_key" in shown
    assert not any(value in shown for value in values)
    environments = [production.exec(name, "env") for name in SERVICES]
    assert not any(value in env for value in values for env in environments)


def test_containers_write_only_to_memory_and_volumes(production):
    for name, container in production.containers().items():
        assert inspect(container, "HostConfig.ReadonlyRootfs"), name
        done = subprocess.run(["docker", "exec", container, "touch", "/usr/written"])
        assert done.returncode != 0, name
    for name in SITE:
        assert production.exec(name, "id", "-u") == "10001"
    for name in ("db", "redis"):
        assert production.exec(name, "id", "-u") != "0"


# In another container's network, because its own image may have no tools.
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


def test_only_the_site_can_reach_the_servers(production):
    def connect(container, *addresses):
        network = f"--network=container:{container}"
        output = docker(
            "run", "--rm", network, production.image, "python", "-c", CONNECT, *addresses
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
    # Only Caddy and the worker, which sends mail, have outbound access. Only Caddy has a port.
    for name in SERVICES - {"caddy"}:
        routes = docker("run", "--rm", f"--network=container:{containers[name]}", production.image,
                        "cat", "/proc/net/route")  # fmt: skip
        assert bool(re.search(r"^\S+\t00000000\t", routes, re.M)) == (name == "worker"), name
        assert inspect(containers[name], "HostConfig.PortBindings") in ({}, None), name


def test_killed_containers_come_back(production, record_property):
    visitor = production.visitor()
    visitor.generate_in_background()
    for name in SERVICES:
        pid = inspect(production.container(name), "State.Pid")
        kill = ["run", "--rm", "--pid=host", "--privileged", "--user=0", production.image]
        docker(*kill, "python", "-c", f"import os; os.kill({pid}, 9)")
    started = time.monotonic()
    wait_for(production.ready, 60, what="the site")
    record_property("recovery", f"{time.monotonic() - started:.1f} s after every kill")
    wait_for(lambda: len(visitor.tokens()) == 1, 120, what="the token")
    wait_for(lambda: {s["Health"] for s in production.states().values()} == {"healthy"}, 60)
