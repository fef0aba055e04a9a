"""The site in Docker, on a real engine: compose.yaml, and the production image."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.docker import GID, PRODUCTION, UID, Project, docker, inspect, port_of
from support.http import Visitor
from support.processes import answers, wait_for

# One at a time: they share the engine's cache and the cores.
pytestmark = pytest.mark.xdist_group("network")

SITE = {"clock", "web", "worker"}
SERVICES = SITE | {"db", "redis"}

# What the production image may add to its base, in MB (10**6 bytes). Measured with Django 6.1: 62.3
# for the packages with their bytecode, 0.1 for the code, and 3.6 for its bytecode and the static
# files, most of them also as gzip and Brotli, make 66.0. A tenth more is room to grow.
IMAGE_BOUND = 73


# --- The files -------------------------------------------------------------------------------


def test_the_dockerfile_is_linted(bake):
    command = [Path(sys.executable).with_name("hadolint"), "--no-color", "Dockerfile"]
    site = bake(create_git_repo=False)
    done = subprocess.run(command, cwd=site, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("version", "data"),
    [("17", "/var/lib/postgresql/data"), ("18", "/var/lib/postgresql")],
)
def test_compose_accepts_its_file(engine, bake, version, data):
    site = bake(create_git_repo=False, postgres_version=version)
    config = yaml.safe_load(docker("compose", "config", cwd=site))
    assert config["name"] == "my_site"
    services = config["services"]
    assert set(services) == SERVICES | {"migrate"}
    assert services["db"]["image"] == f"postgres:{version}"
    assert services["db"]["volumes"][0]["target"] == data
    assert [port["host_ip"] for port in services["web"]["ports"]] == ["127.0.0.1"]
    assert not any("ports" in services[name] for name in services if name != "web")


# --- Development -----------------------------------------------------------------------------


def test_up_returns_with_healthy_services_and_a_migrated_database(project):
    states = project.states()
    assert {name for name, state in states.items() if state["Health"] == "healthy"} == SERVICES
    assert (states["migrate"]["State"], states["migrate"]["ExitCode"]) == ("exited", 0)
    visitor = project.visitor().walk()
    assert "djDebug" in visitor.page()


def test_edits_are_live(project):
    home = "tokens/templates/tokens/home.html"
    project.edit(home, "Random tokens", "Edited template")
    wait_for(lambda: "Edited template" in project.visitor().page())
    project.edit("tokens/views.py", '"Deleted."', '"Edited view."')
    visitor = project.visitor()

    def deleted():
        token = re.search(r'name="token" value="([^"]+)"', visitor.page())
        if not token:
            visitor.generate()
            return False
        visitor.post("/delete/", token=token[1])
        return "Edited view." in visitor.page()

    wait_for(deleted, 60)
    project.edit("tokens/tasks.py", "value=new_value()", "value='f' * 64")
    wait_for(lambda: made_in_background(project) == "f" * 64, 90)
    project.edit("jobs/clock.py", "def tick():", "# edited\ndef tick():")
    wait_for(lambda: "1 change detected" in project.compose("logs", "clock"), 60)
    project.edit("tokens/tasks.py", "value='f' * 64", "value=new_value()")
    wait_for(lambda: made_in_background(project) != "f" * 64, 90)
    project.edit("tokens/views.py", '"Edited view."', '"Deleted."')
    project.edit(home, "Edited template", "Random tokens")


def made_in_background(project):
    visitor = project.visitor()
    visitor.generate_in_background()
    return wait_for(visitor.tokens, 60)[0]


def test_you_own_files_made_in_a_container(project):
    project.exec("web", "python", "manage.py", "makemigrations", "--empty", "tokens", "-n", "mine")
    (made,) = project.site.glob("tokens/migrations/*_mine.py")
    assert (made.stat().st_uid, made.stat().st_gid) == (UID, GID)
    made.unlink()


def test_the_shells_work(project):
    assert "bash" in project.exec("web", "bash", "-c", "echo $BASH")
    sql = "SELECT count(*) AS tokens FROM tokens_token;"
    assert "tokens" in project.exec("web", "python", "manage.py", "dbshell", input=sql)
    command = "from django.conf import settings; print('settings', settings.DEBUG)"
    assert "settings True" in project.exec("web", "python", "manage.py", "shell", "-c", command)
    assert "default" in project.exec("worker", "python", "manage.py", "rqstats")


@pytest.mark.slow
def test_the_sites_own_tests_pass_in_a_container(project):
    output = project.exec("web", "pytest", "-q", "--no-header")
    assert re.search(r"^\d+ passed", output, re.M), output


@pytest.mark.slow
def test_it_recovers_when_its_services_come_back(project):
    visitor = project.visitor().walk()
    project.compose("restart", "db")
    project.compose("restart", "redis")
    project.up()
    project.visitor().walk()
    # Nothing starts a worker again that ends while an edit reloads it.
    project.compose("stop", "redis")
    project.edit("tokens/urls.py", "app_name =", "# Edited.\napp_name =")
    wait_for(lambda: "The worker waits for Redis" in project.compose("logs", "worker"), 60)
    project.up()
    project.visitor().walk()
    project.compose("kill", "worker")
    visitor.generate_in_background()
    assert len(visitor.tokens()) == 2
    project.up()
    wait_for(lambda: len(visitor.tokens()) == 3, 60, what="the token")


@pytest.mark.slow
def test_the_worker_stays_healthy_when_redis_is_emptied(project):
    project.exec("redis", "redis-cli", "flushall")
    project.visitor().walk()
    since = time.time()

    def checked():
        log = inspect(project.states()["worker"]["Name"], "State.Health.Log")
        return len([line for line in log if started(line) > since]) >= 2

    # Two health checks later, RQ's registration is gone, but the heartbeats go on.
    wait_for(checked, 60)
    assert project.health("worker") == "healthy"


def started(line):
    return time.mktime(time.strptime(line["Start"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone


# Freeze the process, and make its last heartbeat old.
FREEZE = """
import os, pathlib, signal, sys
for command in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    arguments = command.read_bytes().split(bytes(1))
    if arguments[:2] == [b"python", b"manage.py"]:
        os.kill(int(command.parent.name), signal.SIGSTOP)
os.utime(f"/tmp/{sys.argv[1]}-heartbeat", (0, 0))
"""


@pytest.mark.slow
def test_a_hanging_process_is_unhealthy(project):
    try:
        for service in ("worker", "clock"):
            project.exec(service, "python", "-c", FREEZE, service)
        for service in ("worker", "clock"):
            wait_for(lambda s=service: project.health(s) == "unhealthy", 90, what=service)
    finally:
        project.compose("kill", "worker", "clock")
        project.up()


@pytest.mark.slow
def test_three_workers_share_the_jobs(project):
    try:
        project.up("--scale", "worker=3")
        visitors = [project.visitor() for _ in range(3)]
        for visitor in visitors:
            for _ in range(3):
                visitor.generate_in_background()
        for visitor in visitors:
            wait_for(lambda v=visitor: len(v.tokens()) == 3, 120, what="the tokens")
        names = docker("ps", "--filter", f"name={project.name}-worker", "--format", "{{.Names}}")
        assert len(names.split()) == 3
        for name in names.split():
            assert 'outcome="done"' in docker("logs", name)
    finally:
        project.up("--scale", "worker=1")


@pytest.mark.slow
def test_everything_stops_within_ten_seconds_and_the_data_stays(project):
    visitor = project.visitor().walk()
    # A process that takes longer is killed, with exit code 137.
    project.compose("stop", "--timeout", "10")
    states = project.states()
    assert {name: state["ExitCode"] for name, state in states.items()} == dict.fromkeys(states, 0)
    project.compose("down")
    project.up()
    assert len(visitor.tokens()) == 2


@pytest.mark.slow
def test_two_projects_run_side_by_side(project, bake):
    other = Project(bake)
    try:
        other.up()
        visitors = [one.visitor().walk() for one in (project, other)]
        assert not set(visitors[0].tokens()) & set(visitors[1].tokens())
        other.down()
        assert answers(f"{project.address}/readyz")
    finally:
        other.down()


# --- The production image --------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(project):
    """The production image of the site."""
    name = f"{project.name}-production"
    for path in ("secrets/key", "backups/latest", "config/.env", "dump.sql"):  # not for the image
        (project.site / path).parent.mkdir(exist_ok=True)
        (project.site / path).write_text("secret")
    docker("build", "--tag", name, ".", cwd=project.site)
    yield name
    docker("image", "rm", "--force", name)


@pytest.fixture
def run(project, image):
    """A function that starts a container of the image, connected to the project's servers."""
    names = []

    def start(*command, **environment):
        names.append(f"{image}-{len(names)}")
        variables = [f"--env={name}={value}" for name, value in (PRODUCTION | environment).items()]
        docker(
            *("run", "--detach", "--name", names[-1], "--read-only", "--tmpfs", "/tmp"),
            *("--network", f"{project.name}_default", "--publish", "127.0.0.1::8000"),
            *(*variables, image, *command),
        )
        return names[-1]

    yield start
    docker("rm", "--force", *names)


def in_image(image, *command):
    return docker("run", "--rm", image, *command)


def test_production_runs_with_a_read_only_disk_and_stops_on_sigterm(project, run):
    web = run()
    wait_for(lambda: inspect(web, "State.Health.Status") == "healthy", 60)
    address = f"http://localhost:{port_of(web, 8000)}"
    project.compose("stop", "worker", "clock")
    try:
        worker = run("python", "manage.py", "rqworker")
        clock = run("python", "manage.py", "clock")
        visitor = Visitor(address).walk()
        assert "djDebug" not in visitor.page()
        for name in (web, worker, clock):
            docker("stop", "--time", "10", name)
            assert inspect(name, "State.ExitCode") == 0
    finally:
        project.up()


def test_the_health_check_fails_on_an_http_error(run):
    # Python's own file server has no /healthz: 404.
    web = run("python", "-m", "http.server", "8000")
    check = inspect(web, "Config.Healthcheck")["Test"]
    assert check.pop(0) == "CMD"
    wait_for(lambda: "404" in docker("logs", web), 60)
    done = subprocess.run(["docker", "exec", web, *check])
    assert done.returncode == 1


def test_the_images_user_is_not_root_and_can_write_nothing(image):
    assert in_image(image, "id", "-u") == "10001"
    assert in_image(image, "id", "-g") == "10001"
    # Except an empty file that uv locks.
    writable = ["find", "/app", "/venv", "!", "-type", "l", "!", "-name", ".lock", "-writable"]
    assert in_image(image, *writable) == ""


def test_the_image_has_what_production_needs_and_nothing_else(project, image):
    packages = in_image(
        image, "python", "-c", "import importlib.metadata as m; "
        "print(*sorted(d.name.lower() for d in m.distributions(path=m.sys.path[-1:])))"
    ).split()  # fmt: skip
    requirements = (project.site / "requirements.txt").read_text()
    locked = re.findall(r"^([\w.-]+)\S*==", requirements.lower(), re.M)
    assert "django" in packages
    assert set(packages) <= set(locked)
    # No compiler, no caches, no lists of packages.
    found = "ls -d /root/.cache /tmp/.cache /var/cache/apt/*.deb; command -v gcc cc uv psql"
    assert re.findall(r"^/.*", in_image(image, "sh", "-c", f"{found}; true"), re.M) == []
    site = in_image(image, "ls", "-A", "/app").split()
    assert site == [
        "__pycache__", "config", "gunicorn.conf.py", "jobs", "manage.py", "requirements-dev.txt",
        "requirements.txt", "staticfiles", "tokens", "users",
    ]  # fmt: skip
    assert in_image(image, "find", "/app", "-name", ".*", "-o", "-path", "*/tests/*") == ""


def test_the_bytecode_is_compiled(image):
    uncompiled = (
        "import importlib.util as u, pathlib as p; print([str(f) for r in ('/app', '/venv/lib') "
        "for f in p.Path(r).rglob('*.py') if not p.Path(u.cache_from_source(f)).exists()])"
    )
    assert in_image(image, "python", "-c", uncompiled) == "[]"


def test_no_secret_is_in_the_images(project, image):
    key = re.search(r"^SECRET_KEY=(.+)$", (project.site / ".env").read_text(), re.M)[1]
    for name in (image, f"site-dev:{project.name}"):
        assert key not in docker("history", "--no-trunc", name)
        assert "SECRET_KEY" not in json.dumps(inspect(name, "Config.Env"))
        search = f"grep -rlF {key} /app /venv /tmp /root /home; find / -xdev -name '.env*'"
        assert docker("run", "--rm", "--user=0", name, "sh", "-c", f"{search}; true") == ""


def test_the_image_is_small(project, image):
    (base,) = re.findall(r"^FROM (python\S+)", (project.site / "Dockerfile").read_text(), re.M)
    added = (inspect(image, "Size") - inspect(base, "Size")) / 1e6
    print(f"\nThe production image adds {added:.0f} MB to {base}.")
    print(docker("history", "--format", "{{.Size}}\t{{.CreatedBy}}", image))
    assert added < IMAGE_BOUND


def steps(output):
    """Return a dictionary from each build step's instruction to whether it was cached."""
    names = dict(re.findall(r"^#(\d+) \[.*?\] ((?:RUN|COPY) .*)", output, re.M))
    cached = set(re.findall(r"^#(\d+) CACHED", output, re.M))
    return {name: number in cached for number, name in names.items()}


@pytest.mark.slow
def test_editing_code_installs_nothing_and_a_new_package_downloads_only_itself(project, image):
    # The name, here and below, makes the edit new to this engine.
    edited = f'app_name = "tokens"\n# {project.name}'
    project.edit("tokens/urls.py", 'app_name = "tokens"', edited)
    built = steps(docker("build", ".", cwd=project.site))
    (install,) = (name for name in built if "uv pip sync" in name)
    assert built[install]
    assert not built["COPY . ."]
    requirements = project.site / "requirements.txt"
    before = requirements.read_text()
    # Install everything again, so that uv's cache in this engine is complete.
    changed = f"# {project.name}\n{before.rstrip()}\n"
    development = (project.site / "requirements-dev.txt").read_text()
    (block,) = re.findall(r"^iniconfig==.*?(?=^\S)", development, re.M | re.S)
    try:
        requirements.write_text(changed)
        assert "+ django" in docker("build", ".", cwd=project.site)
        requirements.write_text(changed + block)
        output = docker("build", ".", cwd=project.site)
        assert "+ iniconfig" in output
        # uv prints "Prepared" for downloads: this package, or nothing if the dev image has it.
        assert not re.search(r"Prepared (?!1 package )\d", output), output
    finally:
        requirements.write_text(before)


def test_an_image_built_under_a_strict_umask_is_readable(project, tmp_path):
    site = tmp_path / "site"
    shutil.copytree(project.site, site, ignore=shutil.ignore_patterns("__pycache__"))
    # Only the code: changed requirements would be installed again.
    for name in ("config", "manage.py", "tokens"):
        subprocess.run(["chmod", "-R", "go=", site / name], check=True)
    name = f"{project.name}-umask"
    try:
        docker("build", "--tag", name, ".", cwd=site)
        variables = [f"--env={name}={value}" for name, value in PRODUCTION.items()]
        docker("run", "--rm", *variables, name, "python", "manage.py", "check", "--tag=models")
    finally:
        docker("image", "rm", "--force", name, check=False)


def test_a_missing_env_file_is_named(engine, bake):
    site = bake(create_git_repo=False)
    (site / ".env").unlink()
    assert ".env not found" in docker("compose", "config", cwd=site, check=False)
