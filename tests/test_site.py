"""The rendered site's own tests and linters, in its own environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import run
from support.pythons import quick_variants


def run_tests(site, site_bin, **environment):
    output = run(site_bin / "pytest", "--cov", "--cov-fail-under=100", site=site, **environment)
    assert "Total coverage: 100.00%" in output


@pytest.mark.parametrize("variant", quick_variants(), indirect=True)
def test_its_tests_pass_on_sqlite_and_cover_every_line_and_branch(site, site_bin, variant):
    run_tests(site, site_bin)


@pytest.mark.parametrize("variant", quick_variants(), indirect=True)
def test_its_tests_pass_on_postgres_and_redis(site, site_bin, variant, postgres, redis, tmp_path):
    """In any folder, and with what an owner's shell and `.env` may hold."""
    run_tests(
        shutil.copytree(site, tmp_path / "tests" / "a site"),
        site_bin,
        DATABASE_URL=postgres.url(f"site_{variant.replace('.', '_')}"),
        REDIS_URL=redis.url,
        ADMINS="ada@example.org",
        ALLOWED_HOSTS="*",
        DEFAULT_FROM_EMAIL="site@example.org",
        DJANGO_SETTINGS_MODULE="config.settings",
        FORWARDED_ALLOW_IPS="10.0.0.5",
        LOG_LEVEL="ERROR",
        http_proxy="http://127.0.0.1:1",
    )


def test_its_code_is_linted_and_formatted(site, site_bin):
    run(site_bin / "ruff", "check", "--no-cache", ".", site=site)
    run(site_bin / "ruff", "format", "--no-cache", "--check", ".", site=site)


def test_its_templates_are_linted(site):
    djlint = Path(sys.executable).with_name("djlint")
    # H030 asks for a description even of error pages. H052 forbids reloading a page on a timer,
    # which pending tokens need without JavaScript.
    for folder in site.glob("*/templates"):
        run(djlint, "--lint", "--profile=django", "--ignore=H030,H052", folder, site=site)


def test_its_migrations_are_complete(site, site_bin):
    run(site_bin / "python", "manage.py", "makemigrations", "--check", "--dry-run", site=site)


@pytest.mark.parametrize("host", [{"DYNO": "release.1"}, {"ALLOWED_HOSTS": "example.org"}])
def test_its_deploy_checks_pass_in_productions_environment(site, site_bin, host):
    environment = host | {
        "DEBUG": "false",
        "SECRET_KEY": "0123456789abcdef" * 4,
        "DATABASE_URL": "postgres://user@127.0.0.1:9/name",
        "REDIS_URL": "redis://127.0.0.1:9/0",
    }
    command = ["manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    assert "no issues" in run(site_bin / "python", *command, site=site, **environment)


def test_a_missing_variable_is_named_in_one_line(site, site_bin):
    environment = {"PATH": os.environ["PATH"], "DEBUG": "false", "SECRET_KEY": ""}
    done = subprocess.run(
        [site_bin / "python", "manage.py", "check"],
        cwd=site,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    for name in ("SECRET_KEY", "DATABASE_URL", "REDIS_URL"):
        assert done.stderr.count(f"{name} is not set. On Heroku: heroku ") == 1


def test_its_queue_can_be_inspected(site, site_bin, redis):
    output = run(site_bin / "python", "manage.py", "rqstats", site=site, REDIS_URL=redis.url)
    assert "default" in output
