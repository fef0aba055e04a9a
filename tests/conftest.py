import os
import shutil
import subprocess

import pytest
from support.commands import OF_MAKE, commit, git
from support.processes import cannot_run
from support.pythons import newest_django, site_environment
from support.scheduling import announce, lane, skipped
from support.servers import Postgres, Redis
from support.template import DJANGO_VERSIONS, TEMPLATE, copy_template

pytest_plugins = [
    "support.browser",
    "support.docker",
    "support.heroku",
    "support.production",
    "support.stack",
]


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory):
    """Give Cookiecutter and Git their own home, with an identity for commits."""
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text("[user]\nname = Tester\nemail = tester@example.com\n")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("HOME", str(home))
        # Where a site's pytest makes its folders. In one that many share, it finds half a list when
        # another one tidies up, and warns, which is an error there.
        monkeypatch.setenv("PYTEST_DEBUG_TEMPROOT", str(home))
        # Processes must see only the environment that the tests give them.
        for name in ("CI", "DATABASE_URL", "DEBUG", "PORT", "REDIS_URL", "SECRET_KEY", *OF_MAKE):
            monkeypatch.delenv(name, raising=False)
        yield


def pytest_report_header(config):
    """Say what will run, unless tests were picked by name."""
    if config.args_source is config.ArgsSource.TESTPATHS and not config.option.keyword:
        return announce(slow="not slow" not in config.option.markexpr)
    return None


def pytest_terminal_summary(terminalreporter):
    """Say why some tests could not run, and what tests have recorded, such as a seed."""
    if lines := skipped(terminalreporter.getreports("skipped")):
        terminalreporter.section("could not run")
        for line in lines:
            terminalreporter.write_line(line)
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    with lane(alone=item.get_closest_marker("alone")):
        return (yield)


def baker(cookies):
    def bake(template=TEMPLATE, **answers):
        result = cookies.bake(answers, template=str(template))
        if result.exception:
            raise result.exception
        return result.project_path

    return bake


@pytest.fixture
def bake(cookies):
    """A function that bakes with the given answers and returns the site, or raises the error.

    An answer is rendered as a template first; see `support.template.literal`.
    """
    return baker(cookies)


@pytest.fixture(scope="session")
def bake_session(cookies_session):
    """Like `bake`, for sites that stay until the last test."""
    return baker(cookies_session)


@pytest.fixture(scope="session", params=DJANGO_VERSIONS)
def variant(request):
    """Each Django version that can be chosen."""
    return request.param


@pytest.fixture(scope="session")
def site(variant, bake_session):
    """A site with the default answers, except for the Django version."""
    return bake_session(django_version=variant)


@pytest.fixture(scope="session")
def site_bin(site, variant):
    """The bin folder of that site's development environment."""
    return site_environment(site, variant)


@pytest.fixture
def developed(bake):
    """A site that already has a .venv. The test of `make demo` installs one."""
    site = bake(django_version=newest_django())
    (site / ".venv").symlink_to(site_environment(site, newest_django()).parent)
    # Older than the installation, so that make installs nothing into the shared environment.
    os.utime(site / "requirements-dev.txt", (0, 0))
    return site


@pytest.fixture
def repository(tmp_path):
    """A copy of the template as a repository with one commit."""
    folder = copy_template(tmp_path / "template")
    shutil.rmtree(folder / "tests")
    git(tmp_path, "init", "--quiet", "--initial-branch=main", folder)
    commit(folder, "The template")
    return folder


@pytest.fixture
def old_template(tmp_path):
    """The template before files moved out of tokens/, when users were Django's own."""
    folder = tmp_path / "old"
    folder.mkdir()
    archive = subprocess.run(["git", "archive", "c4092f4"], cwd=TEMPLATE, capture_output=True)
    if archive.returncode:
        cannot_run("commit c4092f4 is missing: this is a shallow clone or no clone")
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    shutil.rmtree(folder / "tests")
    return folder


@pytest.fixture(scope="session")
def redis(tmp_path_factory):
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server
