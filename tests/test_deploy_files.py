"""Production's files, without running them: the script, the Caddyfile, and wrong settings."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.docker import ENVIRONMENT, docker

pytestmark = pytest.mark.xdist_group("network")


@pytest.fixture(scope="module")
def site(bake_session):
    return bake_session()


def call(site, *arguments, **variables):
    """Run the script; return its exit code and output."""
    done = subprocess.run(
        [site / "deploy/production.sh", *arguments],
        env=ENVIRONMENT | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def test_the_script_passes_shellcheck(site):
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run(
        [shellcheck, site / "deploy/production.sh"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_caddyfile_is_formatted_and_valid(engine, site):
    caddyfile = (site / "deploy/Caddyfile").read_text()
    caddy = ["run", "--rm", "--interactive", "--env=DOMAIN=www.example.org, example.org", "caddy:2"]
    assert docker(*caddy, "caddy", "fmt", "-", input=caddyfile) == caddyfile.strip()
    adapt = "cat > /tmp/Caddyfile; caddy adapt --config /tmp/Caddyfile --adapter caddyfile"
    docker(*caddy, "sh", "-c", adapt, input=caddyfile)


@pytest.mark.parametrize(
    "domain",
    [
        "", "https://www.example.org", "example.org/", "example.org:443", "*.example.org",
        "Example.org", "-example.org", "a.example.org,b.example.org", "a.example.org, ",
    ],
)  # fmt: skip
def test_a_bad_domain_is_refused(engine, site, domain):
    code, output = call(site, "deploy", DOMAIN=domain)
    assert code == 1
    assert "DOMAIN in .env must be a name like www.example.org" in output.splitlines()[-1]
    assert not (site / "secrets").exists()


def test_compose_reads_the_owners_settings_and_the_live_release(engine, site):
    """In the site's folder, as docs/servers.md says. Elsewhere Compose refuses."""
    env, release = site / ".env", site / "deploy/.env"
    before = env.read_text()
    try:
        settings = "DOMAIN=www.example.org\nCOMPOSE_FILE=deploy/compose.yaml\nHTTPS_PORT=8443\n"
        settings += "SECURE_HSTS_SECONDS=3600\n"
        env.write_text(before + settings)
        release.write_text("RELEASE=2026-01-01\n")
        config = docker("compose", "config", cwd=site)
        assert re.search(r"^ +image: my_site-production:2026-01-01$", config, re.M)
        assert re.search(r"^ +DOMAIN: www\.example\.org$", config, re.M)
        assert re.search(r'^ +published: "8443"$', config, re.M)
        assert len(re.findall(r'^ +SECURE_HSTS_SECONDS: "3600"$', config, re.M)) == 4
        assert not re.search(r"^ +LOG_LEVEL: [^n]", config, re.M)
        assert f"file: {site}/secrets/releases/2026-01-01/secret_key" in config
        elsewhere = docker("compose", "config", cwd=site / "deploy", check=False)
        assert "required variable DOMAIN is missing a value" in elsewhere
    finally:
        env.write_text(before)
        release.unlink()


@pytest.mark.parametrize(
    ("file", "unsuitable"),
    [
        # The files decide about these. On a Swarm, mail and old keys need a secret of one's own.
        ("compose.yaml", {"DEBUG", "HTTPS", "PORT"}),
        (
            "stack.yaml",
            {"ADMINS", "DEBUG", "DEFAULT_FROM_EMAIL", "DRAIN_SECONDS", "EMAIL_URL", "HTTPS", "PORT"}
            | {"SECRET_KEY_FALLBACKS", "WEB_CONCURRENCY"},
        ),
    ],
)
def test_every_setting_reaches_the_containers(site, file, unsuitable):
    settings = (site / "config/settings.py").read_text()
    names = set(re.findall(r'env\.\w+\(\s*"(\w+)"', settings))
    assert {"LOG_LEVEL", "SECRET_KEY"} <= names
    text = (site / "deploy" / file).read_text()
    passed = set(re.findall(r"^ +([A-Z_]+?)(?:_FILE)?:", text, re.M))
    assert names - passed == unsuitable


def test_files_written_by_deploys_are_private_and_ignored_by_git(site):
    for name in ("secrets/secret_key", "backups/2026-01-01T00-00-00Z", "deploy/.env"):
        path = site / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    status = ["git", "status", "--porcelain", "--untracked-files=all"]
    assert subprocess.run(status, cwd=site, capture_output=True, text=True).stdout == ""
