"""A push to Heroku: the build, and Heroku CI."""

import json
import re

import pytest
from support.heroku import SECRET_KEY
from support.pythons import quick_variants, site_environment

# All of them use one set of dynos.
pytestmark = [
    pytest.mark.xdist_group("heroku"),
    pytest.mark.parametrize("variant", quick_variants(), indirect=True),
]


def test_a_first_push_builds_without_any_config(slug):
    assert (slug.folder / "staticfiles" / "staticfiles.json").exists()


def test_a_push_has_what_the_buildpack_expects(slug):
    names = {path.name for path in slug.folder.iterdir()}
    assert "manage.py" in names
    # A second package manager's file, or a virtual environment, would stop the build.
    assert {"requirements.txt"} == names & {
        "requirements.txt", "Pipfile", "Pipfile.lock", "poetry.lock", "uv.lock", "pylock.toml"
    }  # fmt: skip
    assert not names & {"runtime.txt", ".venv", "venv", ".env"}
    assert re.fullmatch(rb"3\.\d+\n", (slug.folder / ".python-version").read_bytes())
    assert set(slug.procfile) == {"release", "web", "worker", "clock"}


@pytest.mark.slow
def test_heroku_ci_passes_on_servers_in_the_dyno(slug, site, variant, postgres, redis):
    scripts = json.loads((slug.folder / "app.json").read_text())["environments"]["test"]["scripts"]
    assert scripts["test-setup"] == "pip install --requirement requirements-dev.txt"
    binaries = site_environment(site, variant)
    environment = slug.environment(
        "test.1",
        CI="true",
        SECRET_KEY=SECRET_KEY,
        DATABASE_URL=postgres.url(f"ci_{variant.replace('.', '_')}"),
        REDIS_URL=redis.url,
    )
    environment["PATH"] = f"{binaries}:{environment['PATH']}"
    done = slug.run(scripts["test"], **environment)
    assert done.returncode == 0, done.stdout[-5000:]
