"""The site on many machines: one is cut off, one freezes, and a Swarm updates it under load."""

import http.client
import re
import time
from contextlib import closing
from secrets import token_hex
from types import SimpleNamespace

import pytest
import yaml
from support.docker import PRODUCTION, docker, port_of
from support.faults import run
from support.http import Visitor
from support.processes import answers, cannot_run, wait_for
from support.servers import execute
from support.stack import AUDIT, WITHOUT_ORDERS, Stack

# One at a time, see test_docker.py.
pytestmark = [pytest.mark.xdist_group("network"), pytest.mark.alone, pytest.mark.slow]

COMMANDS = {
    "web": [],
    "worker": ["python", "manage.py", "rqworker"],
    "clock": ["python", "manage.py", "clock"],
}
MACHINES = [["web", "worker", "clock"], ["web", "worker", "clock"], ["web", "worker", "worker"]]


@pytest.fixture(scope="module")
def site(bake_session):
    return bake_session(create_git_repo=False)


@pytest.fixture(scope="module")
def image(engine, site):
    """The production image of the site."""
    name = f"test_{token_hex(4)}"
    docker("build", "--tag", name, ".", cwd=site)
    yield name
    docker("image", "rm", "--force", name)


# The youngest stopped process of a container.
HORSE = "$(grep -l '^State:.T' /proc/[0-9]*/status | cut -d/ -f3 | sort -n | tail -1)"


class Containers(Stack):
    """A site in containers. It has no second app, so its visitors ask for tokens alone."""

    @property
    def address(self):
        return f"http://localhost:{self.port}"

    @property
    def wishes(self):
        return [self.place_token]

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_for_servers(self, name):
        """Wait for the Postgres named NAME-db, and keep its address and that of NAME-redis."""
        port = port_of(f"{name}-db", 5432)
        self.database = f"postgres://postgres:postgres@localhost:{port}/postgres"
        self.redis = SimpleNamespace(url=f"redis://localhost:{port_of(f'{name}-redis', 6379)}/0")
        ready = ["exec", f"{name}-db", "pg_isready", "--username=postgres", "-h", "localhost"]
        wait_for(lambda: "accepting" in docker(*ready, check=False), 60, "Postgres")

    def audit(self):
        execute(self.database, *WITHOUT_ORDERS, *AUDIT["postgres"])


class Cluster(Containers):
    """Containers on machines, which are networks here. A container that ends is started again.

    Postgres and Redis are on all machines. Visitors reach the webs through one more network, as
    they would through a load balancer.
    """

    def __init__(self, image, folder):
        self.image = image
        self.folder = folder
        self.networks = [f"{image}-machine-{number}" for number, _ in enumerate(MACHINES)]
        self.containers = {}  # each container's network
        self.turn = 0

    def named(self, process):
        return [name for name in self.containers if f"-{process}-" in name]

    @property
    def port(self):
        """The published port of the next web, in turn."""
        self.turn += 1
        return self.ports[self.turn % len(self.ports)]

    @property
    def log(self):
        path = self.folder / "log"
        path.write_text("".join(docker("logs", name) for name in self.containers))
        return path

    def __exit__(self, *exc):
        others = [f"{self.image}-{name}" for name in ("db", "redis", "migrate")]
        docker("rm", "--force", "--volumes", *others, *self.containers, check=False)
        for name, network in self.containers.items():
            # A network that was connected during a restart stays listed, although it is gone.
            docker("network", "disconnect", "--force", network, name, check=False)
        docker("network", "rm", f"{self.image}-front", *self.networks, check=False)

    def start(self):
        for network in (f"{self.image}-front", *self.networks):
            docker("network", "create", network)
        options = ["--detach", "--publish", "127.0.0.1::5432", "--env=POSTGRES_PASSWORD=postgres"]
        docker("run", "--name", f"{self.image}-db", *options, "postgres:17")
        docker(
            *("run", "--name", f"{self.image}-redis", "--detach", "--publish", "127.0.0.1::6379"),
            "redis:8",
        )
        for server in ("db", "redis"):
            for network in self.networks:
                docker("network", "connect", "--alias", server, network, f"{self.image}-{server}")
        self.wait_for_servers(self.image)
        self.start_container(self.networks[0], "migrate", "python", "manage.py", "migrate")
        assert docker("wait", f"{self.image}-migrate") == "0"
        docker("rm", f"{self.image}-migrate")
        self.audit()
        for network, processes in zip(self.networks, MACHINES, strict=True):
            for process in processes:
                name = f"{process}-{len(self.containers)}"
                self.start_container(network, name, *COMMANDS[process])
                self.containers[f"{self.image}-{name}"] = network
        self.ports = [port_of(name, 8000) for name in self.named("web")]
        for port in self.ports:
            wait_for(lambda port=port: answers(f"http://localhost:{port}/readyz"), 60, "a web")

    def start_container(self, network, name, *command):
        environment = PRODUCTION | {"TOKEN_RATE": "1000000", "TOKEN_WORK_SECONDS": "0.1"}
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        name = f"{self.image}-{name}"
        docker(
            *("create", "--name", name, "--network", f"{self.image}-front"),
            *("--init", "--no-healthcheck", "--restart=on-failure", "--publish=127.0.0.1::8000"),
            *(*variables, self.image, *command),
        )
        docker("network", "connect", network, name)
        docker("start", name)

    def freeze_in_a_job(self, worker):
        """Stop a worker and its work-horse in the middle of a job; return the job's id.

        Not with `docker pause`: the engine's own requests to a paused container may hang.
        """

        name = re.findall(r"worker=(\w+) queues", docker("logs", worker))[-1]
        running = f"status = 'RUNNING' AND worker_ids->>-1 = '{name}'"

        def frozen():
            self.signal(worker, "STOP")
            for (job,) in self.execute(f"SELECT CAST(id AS text) FROM jobs_job WHERE {running}"):
                return job
            self.signal(worker, "CONT")

        return wait_for(frozen, 120, "a running job")

    def signal(self, container, name, process=-1):
        """Send a signal to a process in the container, or to all processes except its init."""
        docker("exec", container, "sh", "-c", f"kill -{name} {process}")


def status(port, path):
    """Return the status of an answer, and how many seconds it took."""
    began = time.monotonic()
    with closing(http.client.HTTPConnection("localhost", port, timeout=60)) as client:
        client.request("GET", path)
        return client.getresponse().status, time.monotonic() - began


def test_a_cut_off_machine_and_a_frozen_one_lose_nothing(image, tmp_path):
    cluster = Cluster(image, tmp_path)
    seconds = {}

    def cut_off(cluster):
        web, port = cluster.named("web")[1], cluster.ports[1]
        worker, frozen, *others = cluster.named("worker")[1:]
        check_connections(cluster)
        jobs = [cluster.freeze_in_a_job(name) for name in (worker, frozen)]
        for name in (web, worker):
            docker("network", "disconnect", cluster.containers[name], name)
        cluster.signal(worker, "CONT")
        began = time.monotonic()
        # Each of web's threads has an open connection that nobody answers any more.
        for _ in range(12):
            code, took = status(port, "/readyz")
            assert code == 503
            assert took < 15
            assert status(port, "/healthz")[0] == 200
        seconds["503 from all threads"] = time.monotonic() - began
        for job in jobs:
            done = f"SELECT id FROM jobs_job WHERE id = '{job}' AND status = 'SUCCESSFUL'"
            wait_for(lambda done=done: cluster.execute(done), 180, job)
        seconds["both jobs made elsewhere"] = time.monotonic() - began
        others.append(cluster.named("worker")[0])

        def made_by_others(job):
            logs = "".join(docker("logs", name) for name in others)
            return re.search(rf'job={job} .* outcome="done"', logs)

        for job in jobs:
            wait_for(lambda job=job: made_by_others(job), 10, "the line in another's log")
        began = time.monotonic()
        for name in (web, worker):
            docker("network", "connect", cluster.containers[name], name)
        wait_for(lambda: status(port, "/readyz")[0] == 200, 30, "the web that was cut off")
        seconds["ready again"] = time.monotonic() - began
        # The work-horse wakes first, long after its job was done elsewhere, and then its worker.
        cluster.signal(frozen, "CONT", HORSE)
        wait_for(lambda: f"job={jobs[1]} " in docker("logs", frozen), what="the late job")
        cluster.signal(frozen, "CONT")
        check_all_webs(cluster)

    with cluster:
        outcome = run(cluster, cut_off, 200)
    print(f"\n{outcome}\nseconds: {seconds}")
    assert outcome.asked >= 200
    assert outcome.done == outcome.asked
    assert (outcome.lost, outcome.doubled) == (0, 0)


def check_connections(cluster):
    """Assert that there are no more connections than docs/heroku.md counts, and the test's own."""
    ((postgres,),) = cluster.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres'"
    )
    assert postgres <= 3 * 6 + 4 * 1 + 2 * 1 + 1
    with cluster.client() as client:
        assert len(client.client_list()) <= 3 * 6 + 4 * 3 + 2 * 1 + 1


def check_all_webs(cluster):
    """Assert that a visitor who asks one web for a token sees it on every web."""
    visitor = Visitor("")
    for asked, port in enumerate(cluster.ports, 1):
        visitor.address = f"http://localhost:{port}"
        visitor.generate_in_background()
        for shown in cluster.ports:
            visitor.address = f"http://localhost:{shown}"
            wait_for(lambda asked=asked: len(visitor.tokens()) == asked, 60, "the tokens")


# --- On a Swarm ------------------------------------------------------------------------------

# Plays the load balancer and the routing mesh, for which not every kernel has the modules: it asks
# Swarm's own DNS, each half second, where a web is that is ready.
BALANCER = """
:8000 {
    reverse_proxy {
        dynamic a {
            name web
            port 8000
            refresh 500ms
        }
        lb_try_duration 5s
    }
}
"""

SECRETS = ["database_url", "redis_url", "secret_key"]


class Swarm(Containers):
    """The site of deploy/stack.yaml on a Swarm with one node; Postgres and Redis are outside."""

    def __init__(self, image, site, folder):
        self.name = image
        self.site = site
        self.folder = folder

    def container(self, name, *arguments):
        docker("run", "--detach", "--name", f"{self.name}-{name}", "--network", self.name,
               "--network-alias", name, *arguments)  # fmt: skip

    def __exit__(self, *exc):
        docker("stack", "rm", "--detach=false", self.name, check=False)
        names = [f"{self.name}-{name}" for name in ("db", "redis", "balancer")]
        docker("rm", "--force", "--volumes", *names, check=False)
        docker("secret", "rm", *SECRETS, check=False)
        wait_for(lambda: docker("network", "rm", self.name, check=False) == self.name, 60)

    def start(self):
        docker("network", "create", "--driver", "overlay", "--attachable", self.name)
        publish = "--publish=127.0.0.1::"
        self.container("db", f"{publish}5432", "--env=POSTGRES_PASSWORD=postgres", "postgres:17")
        self.container("redis", f"{publish}6379", "redis:8")
        (self.folder / "Caddyfile").write_text(BALANCER)
        file = f"--volume={self.folder}/Caddyfile:/etc/caddy/Caddyfile:ro"
        self.container("balancer", f"{publish}8000", file, "caddy:2")
        self.port = port_of(f"{self.name}-balancer", 8000)
        for name in SECRETS:
            docker("secret", "create", name, "-", input=PRODUCTION[name.upper()])
        self.wait_for_servers(self.name)
        self.deploy(self.name)
        wait_for(lambda: answers(f"http://localhost:{self.port}/readyz"), 90, "the site")
        self.audit()

    def deploy(self, image):
        stack = yaml.safe_load((self.site / "deploy/stack.yaml").read_text())
        for service in stack["services"].values():
            # The mesh needs the kernel's IPVS.
            service["deploy"] = service["deploy"] | {"endpoint_mode": "dnsrr"}
        web, worker = stack["services"]["web"], stack["services"]["worker"]
        del web["ports"]
        web["environment"]["HTTPS"] = "false"  # no TLS in front of it
        web["environment"]["TOKEN_RATE"] = "1000000"
        worker["environment"] = worker["environment"] | {"TOKEN_WORK_SECONDS": "0.1"}
        stack["networks"] = {"default": {"name": self.name, "external": True}}
        file = self.folder / "stack.yaml"
        file.write_text(yaml.safe_dump(stack))
        variables = {"IMAGE": image, "ALLOWED_HOSTS": "localhost"}
        options = ["--resolve-image=never", "--compose-file", file]
        docker("stack", "deploy", *options, self.name, variables=variables)

    @property
    def log(self):
        path = self.folder / "log"
        # Not `docker service logs`, which may wait for tasks that are gone.
        stack = f"label=com.docker.stack.namespace={self.name}"
        containers = docker("ps", "--all", "--quiet", "--filter", stack).split()
        path.write_text("".join(docker("logs", container, check=False) for container in containers))
        return path

    def manage(self, *command):
        """Run manage.py in a web container, as docs/servers.md says; return its output."""
        web = docker("ps", "--quiet", "--filter", f"name={self.name}_web").split()[0]
        user = {"USERNAME": "admin", "EMAIL": "admin@example.org", "PASSWORD": token_hex(16)}
        options = [f"--env=DJANGO_SUPERUSER_{name}={value}" for name, value in user.items()]
        return docker("exec", *options, web, "python", "manage.py", *command)

    def images(self, service):
        """Return the set of images that the service's running tasks use."""
        tasks = ["service", "ps", f"{self.name}_{service}", "--filter", "desired-state=running"]
        return set(docker(*tasks, "--format", "{{.Image}}").split())

    def update(self, service):
        """Return the state of the service's last update."""
        form = "{{with .UpdateStatus}}{{.State}}{{end}}"
        return docker("service", "inspect", f"{self.name}_{service}", "--format", form)


@pytest.fixture
def swarm(image, site, tmp_path):
    """The site on a Swarm that consists of this engine."""
    if docker("info", "--format", "{{.Swarm.LocalNodeState}}") != "inactive":
        cannot_run("the Docker engine is in a Swarm already: this test makes and leaves one")
    docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    yield Swarm(image, site, tmp_path)
    docker("swarm", "leave", "--force")


def built_on(image, tag, variable):
    """Build another image from the image, and return its name."""
    name = f"{image}:{tag}"
    docker("build", "--tag", name, "-", input=f"FROM {image}\nENV {variable}\n")
    return name


def test_a_swarm_updates_under_load_without_loss_and_rolls_a_bad_image_back(swarm):
    new = built_on(swarm.name, "new", "VERSION=2")
    bad = built_on(swarm.name, "bad", "GUNICORN_CMD_ARGS=--nonsense")
    seconds = {}

    def update(swarm):
        for image, state in ((new, "completed"), (bad, "rollback_completed")):
            began = time.monotonic()
            swarm.deploy(image)
            wait_for(lambda state=state: swarm.update("web") == state, 120, state)
            seconds[state] = time.monotonic() - began
            assert swarm.images("web") == {new}
            # It has no web to start, so that even the bad one will do.
            wait_for(lambda image=image: swarm.images("worker") == {image}, 120, "the workers")
            wait_for(lambda: swarm.update("worker") == "completed", 120, "the workers")
        assert "Superuser created" in swarm.manage("createsuperuser", "--no-input")

    try:
        with swarm:
            outcome = run(swarm, update, 200)
    finally:
        docker("image", "rm", "--force", new, bad)
    print(f"\n{outcome}\nseconds: {seconds}")
    assert outcome.asked >= 200
    assert outcome.done == outcome.asked
    assert (outcome.lost, outcome.doubled, outcome.refused) == (0, 0, 0)
