"""Which proxies gunicorn trusts, in every form that an address can have."""

import http.client
import subprocess
from contextlib import closing

import pytest
from support.processes import Process, answers, free_port, wait_for
from support.pythons import newest_django, site_environment

# What Python sees if the kernel has no IPv6.
NO_IPV6 = """
import errno, socket

class Socket(socket.socket):
    def __init__(self, family=-1, *arguments, **options):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        super().__init__(family, *arguments, **options)

socket.socket = Socket
"""


@pytest.fixture(scope="module")
def site(bake_session):
    return bake_session(django_version=newest_django(), create_git_repo=False)


@pytest.fixture(scope="module")
def site_bin(site):
    return site_environment(site, newest_django())


@pytest.fixture(scope="module")
def collected(site, site_bin):
    """The site with collected static files, as in an image."""
    (site / ".env").unlink()  # an image has none
    command = [site_bin / "python", "manage.py", "collectstatic", "--no-input"]
    subprocess.run(command, cwd=site, check=True, capture_output=True)
    return site


@pytest.fixture
def start(collected, site_bin, tmp_path):
    """Return a context manager that starts gunicorn and yields its port once it answers."""
    processes = []

    def start(ipv6=True, **environment):
        port = free_port()
        environment |= {
            "PATH": "/usr/bin:/bin",
            "PORT": str(port),
            "SECRET_KEY": "0123456789abcdef" * 4,
            "ALLOWED_HOSTS": "*",
            "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
            "REDIS_URL": "redis://127.0.0.1:9",  # nothing here uses it
            "WEB_CONCURRENCY": "1",
        }
        if not ipv6:
            (tmp_path / "sitecustomize.py").write_text(NO_IPV6)
            environment["PYTHONPATH"] = str(tmp_path)
        command = [site_bin / "gunicorn", "config.wsgi"]
        process = Process(command, tmp_path / "log", environment, collected)
        processes.append(process.start())

        def ready():
            assert process.popen.poll() is None, process.output
            return answers(f"http://127.0.0.1:{port}/healthz")

        wait_for(ready, 120, what=process.log)
        return port

    yield start
    for process in processes:
        process.stop()


def scheme_seen(port, host="127.0.0.1", proxy="127.0.0.1"):
    """Return the scheme that the site sees when a proxy reports HTTPS."""
    source = (proxy, 0) if host == "127.0.0.1" else None
    connection = http.client.HTTPConnection(host, port, timeout=30, source_address=source)
    with closing(connection):
        connection.request("GET", "/favicon.ico", headers={"X-Forwarded-Proto": "https"})
        location = connection.getresponse().getheader("Location")
    return "http" if location.startswith("https://") else "https"  # a redirect to itself


@pytest.mark.parametrize(
    ("ipv6", "trusted"),
    [
        (True, None),
        (True, "127.0.0.1"),
        (True, "10.0.0.1, 127.0.0.0/8"),
        (True, "::ffff:127.0.0.1"),
        (False, None),
        (False, "::ffff:127.0.0.0/104"),
    ],
)
def test_a_proxy_is_trusted_whatever_the_form_of_its_address(start, ipv6, trusted):
    port = start(ipv6, **({"FORWARDED_ALLOW_IPS": trusted} if trusted else {}))
    assert scheme_seen(port) == "https"
    assert scheme_seen(port, proxy="127.0.0.2") == ("https" if "/" in (trusted or "") else "http")


@pytest.mark.parametrize("trusted", ["10.0.0.0/8", ""])
def test_nobody_else_is_trusted(start, trusted):
    assert scheme_seen(start(FORWARDED_ALLOW_IPS=trusted)) == "http"


def test_visitors_can_use_ipv6_if_the_machine_has_it(start):
    assert scheme_seen(start(), "::1") == "https"


def test_on_heroku_the_router_is_trusted_whatever_its_address(start):
    """Fir sets no FORWARDED_ALLOW_IPS, and its router's address is not known in advance."""
    assert scheme_seen(start(DYNO="web-0123456789-abcde"), proxy="127.0.0.2") == "https"


def test_a_visitor_cannot_move_the_site_to_another_path(start):
    """With a header that a proxy passes on."""
    port = start(FORWARDED_ALLOW_IPS="*")
    headers = {"X-Forwarded-Proto": "https", "SCRIPT_NAME": "/x"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", "/x/favicon.ico", headers=headers)
        assert connection.getresponse().status == 404
