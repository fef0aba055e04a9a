"""Docker, and the site as a Compose project.

If no engine answers, DOCKER_ENGINE may name a command that starts one.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from secrets import token_hex

import pytest

from support.commands import OF_MAKE, edit
from support.http import Visitor
from support.processes import CI, cannot_run, free_port

# Root would own its files whatever the containers did, so tests run by root use another user.
UID, GID = (os.getuid(), os.getgid()) if os.getuid() else (1234, 1235)

# Where the real home has it: the tests have one of their own.
DOCKER_CONFIG = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
ENVIRONMENT = os.environ | {"DOCKER_CONFIG": DOCKER_CONFIG, "BUILDKIT_PROGRESS": "plain"}
for name in ("COMPOSE_FILE", "DOMAIN", "PORT", *OF_MAKE):  # each project has its own .env and make
    ENVIRONMENT.pop(name, None)

PRODUCTION = {
    "SECRET_KEY": "0123456789abcdef" * 4,
    "ALLOWED_HOSTS": "localhost",
    "DATABASE_URL": "postgres://postgres:postgres@db:5432/postgres",
    "REDIS_URL": "redis://redis:6379/0",
    "HTTPS": "false",
}


def docker(*arguments, check=True, variables=None, **options):
    """Run docker and return its output; raise if it fails."""
    done = subprocess.run(
        ["docker", *map(str, arguments)],
        env=ENVIRONMENT | (variables or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    assert not check or done.returncode == 0, f"docker {arguments}\n{done.stdout[-5000:]}"
    return done.stdout.strip()


def start_engine():
    if command := os.environ.get("DOCKER_ENGINE"):
        subprocess.run(shlex.split(command), check=True)


def engine_answers():
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "info"], capture_output=True, env=ENVIRONMENT).returncode == 0


def inspect(name, field):
    return json.loads(docker("inspect", "--format", f"{{{{json .{field}}}}}", name))


def port_of(name, port):
    """Return the port of this machine that leads to a container's port."""
    return docker("port", name, port).rpartition(":")[2]


@pytest.fixture(scope="session")
def engine():
    """An engine that answers."""
    if CI and sys.platform == "darwin":
        pytest.skip("GitHub's machines with macOS have no Docker")
    if not engine_answers():
        start_engine()
    if not engine_answers():
        cannot_run("no Docker engine answers: start one, or set DOCKER_ENGINE to what does")


class Project:
    """A baked site with its own name and port, as a Compose project."""

    def __init__(self, bake, **answers):
        self.name = f"test_{token_hex(4)}"
        self.site = bake(project_slug=self.name, create_git_repo=False, **answers)
        self.port = free_port()
        values = {"PORT": self.port, "UID": UID, "GID": GID}
        env = (self.site / ".env").read_text()
        for name, value in values.items():
            env = re.sub(rf"^{name}=.*", f"{name}={value}", env, flags=re.M)
        (self.site / ".env").write_text(env)
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", f"{UID}:{GID}", self.site], check=True)

    @property
    def address(self):
        return f"http://localhost:{self.port}"

    def compose(self, *arguments, **options):
        return docker("compose", "--progress", "plain", *arguments, cwd=self.site, **options)

    def exec(self, service, *command, **options):
        return self.compose("exec", "--no-TTY", service, *command, **options)

    def up(self, *arguments):
        return self.compose("up", "--build", "--wait", *arguments)

    def down(self):
        self.compose("down", "--volumes", "--remove-orphans")
        docker("image", "rm", f"site-dev:{self.name}", check=False)

    def states(self):
        """Return the state of each service's last container, in the words of `docker ps`."""
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        return {state["Service"]: state for state in map(json.loads, lines)}

    def health(self, service):
        return self.states()[service]["Health"]

    def edit(self, name, old, new):
        edit(self.site / name, (old, new))

    def visitor(self):
        """Return a visitor who waits while the development server restarts."""
        return Visitor(self.address, patience=60)


@pytest.fixture(scope="session")
def project(engine, bake_session):
    """A running project."""
    project = Project(bake_session)
    try:
        project.up()
        yield project
    finally:
        project.down()
