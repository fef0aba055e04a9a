"""Heroku's release phase, and dynos without the configuration they need."""

import re

import pytest
from support.pythons import quick_variants

# All of them use one set of dynos.
pytestmark = [
    pytest.mark.xdist_group("heroku"),
    pytest.mark.parametrize("variant", quick_variants(), indirect=True),
]


def test_a_release_names_each_missing_variable_and_the_command_that_sets_it(slug):
    done = slug.release()
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("?: ")]
    assert sorted(re.sub(r"^\?: \(config.E002\) ", "", line) for line in lines) == [
        "DATABASE_URL is not set. On Heroku: heroku addons:create heroku-postgresql:essential-0",
        "REDIS_URL is not set. On Heroku: heroku addons:create heroku-redis:mini",
        'SECRET_KEY is not set. On Heroku: heroku config:set SECRET_KEY="$(openssl rand -hex 32)"',
    ]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "SECRET_KEY"])
def test_no_dyno_runs_if_a_variable_is_missing(app, name):
    config = {variable: value for variable, value in app.config.items() if variable != name}
    for process in ("web", "worker", "clock"):
        environment = app.slug.environment(f"{process}.1", **config)
        done = app.slug.run(f"timeout 20 {app.slug.procfile[process]}", **environment)
        assert done.returncode not in (0, 124)
        assert f"{name} is not set. On Heroku: heroku " in done.stderr


def test_a_release_can_run_again(app):
    assert "No migrations to apply" in app.release()


def test_a_release_that_cannot_migrate_stops(app):
    url = app.config["DATABASE_URL"].replace("/app", "/no_such_database")
    assert app.slug.release(**app.config | {"DATABASE_URL": url}).returncode != 0
