"""Deploys, failed deploys, rollbacks, and new secrets."""

import shutil
import subprocess
from secrets import token_hex

import pytest
from support.docker import ENVIRONMENT, inspect
from support.processes import wait_for
from support.production import SITE, load

pytestmark = [pytest.mark.xdist_group("network"), pytest.mark.slow]

FAILING_MIGRATION = """
from django.db import migrations

class Migration(migrations.Migration):
    dependencies = [("tokens", "LAST")]
    operations = [migrations.RunSQL("SELECT nothing FROM nowhere")]
"""


@pytest.fixture
def changed(production):
    """Return a function that changes one of the site's files for this test."""
    before = {}

    def change(name, old="", new=""):
        path = production.site / name
        before.setdefault(path, path.read_text() if path.exists() else None)
        path.write_text((before[path] or "").replace(old, new, 1) if old else new)

    yield change
    for path, text in before.items():
        path.unlink(missing_ok=True) if text is None else path.write_text(text)


def secret(production, name, value=None):
    path = production.site / "secrets" / name
    if value is not None:
        path.write_text(value)
    return path.read_text().strip()


def check_nothing_is_replaced(production, before):
    """Assert that plain `docker compose up` replaces no container."""
    production.compose("up", "--detach", "--wait")
    assert production.containers() == before


def test_deploying_a_new_version_and_secrets_loses_nothing(production, record_property):
    before, old_key = production.containers(), secret(production, "secret_key")
    old_login = production.sql("SELECT rolname FROM pg_roles WHERE rolname ~ '^site_'")
    visitor = production.visitor(keep_alive=False).walk()
    tokens = visitor.tokens()
    with load(production, record_property):
        production.edit("tokens/templates/tokens/home.html", "Random tokens", production.name)
        secret(production, "secret_key_fallbacks", old_key)
        for name in ("secret_key", "postgres_password", "redis_password"):
            secret(production, name, token_hex(32))
        production.deploy()
    after = production.containers()
    # Postgres, Redis and Caddy did not stop.
    assert {name for name in before if before[name] != after[name]} == SITE
    assert production.name in visitor.page()
    assert visitor.tokens() == tokens  # the old key is still accepted
    for name in SITE:
        assert production.exec(name, "cat", "/run/secrets/secret_key") != old_key
    new_login = production.sql("SELECT rolname FROM pg_roles WHERE rolname ~ '^site_'")
    assert new_login != old_login
    assert len(new_login.split()) == 1
    check_nothing_is_replaced(production, after)


def test_the_site_owns_its_database_and_is_no_superuser(production):
    role = "SELECT current_user, usesuper FROM pg_user WHERE usename = session_user"
    code = f"from django.db import connection as c; x = c.cursor(); x.execute({role!r}); "
    assert production.shell(f"{code}print(*x.fetchone())") == "site False"
    owner = "SELECT datdba::regrole FROM pg_database WHERE datname = 'site'"
    assert production.sql(owner) == "site"
    tables = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert production.sql(tables) == "site"


def test_redis_requires_the_password(production):
    assert "NOAUTH" in production.exec("redis", "redis-cli", "keys", "*")
    password = secret(production, "redis_password")
    commands = f"AUTH {password}\nPING\n"
    assert production.exec("redis", "redis-cli", input=commands) == "OK\nPONG"
    health = ["redis-cli", "--user", "health", "--pass", "-"]
    assert "NOPERM" in production.exec("redis", *health, "keys", "*")


def test_a_broken_version_replaces_nothing_and_says_why(production, changed):
    before, live, images = production.containers(), production.live, production.releases()

    def check_failure(reason):
        done = production.make("deploy", check=False)
        assert done.returncode != 0
        assert reason in done.stdout
        assert (production.containers(), production.live) == (before, live)

    last = max(path.stem for path in production.site.glob("tokens/migrations/0*.py"))
    failing = "tokens/migrations/9999_failing.py"
    changed(failing, new=FAILING_MIGRATION.replace("LAST", last))
    check_failure('relation "nowhere" does not exist')
    (production.site / failing).unlink()

    changed("deploy/Caddyfile", "reverse_proxy", "reverse_prosy")
    check_failure("unrecognized directive: reverse_prosy")
    changed("deploy/Caddyfile", "reverse_proxy", "reverse_proxy")

    changed(
        "tokens/views.py", "def home(request):", "def home(request):\n    raise OSError('no page')"
    )
    check_failure("/ of localhost answers with 500")
    changed("tokens/views.py", "def home(request):", "def home(request):")

    changed("gunicorn.conf.py", new="raise SystemExit('no start')")
    check_failure("no start")
    assert production.releases() == images
    check_nothing_is_replaced(production, before)
    production.visitor(keep_alive=False).walk()


def test_a_deploy_that_fails_later_is_undone(production, changed):
    live = production.live
    # As if this version were the first with this secret.
    (production.site / "secrets/releases" / live / "email_url").unlink()
    changed("jobs/worker.py", "wait_for_redis(queues[0].connection)", "raise SystemExit('none')")
    done = production.make("deploy", check=False)
    assert done.returncode != 0
    assert f"Putting {live} back" in done.stdout
    assert production.live == live
    assert {s["Health"] for s in production.states().values()} == {"healthy"}
    production.visitor(keep_alive=False).walk()


def test_a_broken_compose_file_is_undone(production, changed):
    live, command = production.live, inspect(production.container("redis"), "Config.Cmd")
    text = (production.site / "deploy/compose.yaml").read_text()
    broken = text.replace("256mb", "128mb").replace("manage.py rqworker", "manage.py rqwonker")
    changed("deploy/compose.yaml", new=broken)
    done = production.make("deploy", check=False)
    assert done.returncode != 0
    assert f"Failed, for the reason above. {live} is live." in done.stdout
    assert inspect(production.container("redis"), "Config.Cmd") == command
    assert {s["Health"] for s in production.states().values()} == {"healthy"}
    production.visitor(keep_alive=False).walk()


def test_a_copy_in_another_folder_does_not_take_over(production, tmp_path):
    before = production.containers()
    copy = shutil.copytree(production.site, tmp_path / "copy")
    done = subprocess.run(
        ["make", "deploy"], cwd=copy, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert f"{production.name} runs from {production.site}" in done.stderr
    assert production.containers() == before


def test_rollback_switches_back_and_forth(production):
    image = inspect(production.image, "Id")
    production.edit("tokens/urls.py", "app_name =", "# Another version.\napp_name =")
    production.deploy()
    assert inspect(production.image, "Id") != image
    production.make("rollback")
    assert inspect(production.image, "Id") == image
    check_nothing_is_replaced(production, production.containers())
    production.make("rollback", f"VERSION={production.live}")  # what runs already
    assert inspect(production.image, "Id") == image
    production.visitor(keep_alive=False).walk()
    assert "No such version" in production.make("rollback", "VERSION=1", check=False).stdout
    assert len(production.releases()) <= 5


def caddys_config(production):
    return production.exec("caddy", "wget", "-qO-", "http://127.0.0.1:2019/config/")


def test_a_second_deploy_waits_for_the_first(production):
    # A new file, as Git makes it: Caddy must not go on with the old one.
    caddyfile = production.site / "deploy/Caddyfile"
    text = caddyfile.read_text().replace("The request is too long.", "Too long.")
    caddyfile.unlink()
    caddyfile.write_text(text)
    assert "Too long." not in caddys_config(production)
    production.deploy()  # of what the tests before this one have left
    assert "Too long." in caddys_config(production)
    before = production.containers()
    deploys = [
        subprocess.Popen(
            ["make", "deploy"], cwd=production.site, env=ENVIRONMENT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]  # fmt: skip
    outputs = [deploy.communicate()[0] for deploy in deploys]
    assert [deploy.returncode for deploy in deploys] == [0, 0]
    waited = ["waiting for it to end" in output for output in outputs]
    assert sorted(waited) == [False, True]
    # The version and the secrets are the same, so everything goes on running.
    assert production.containers() == before


def test_no_secrets_are_created_if_there_is_data(production):
    path = production.site / "secrets" / "secret_key"
    path.rename(path.with_suffix(".away"))
    try:
        done = production.make("deploy", check=False)
        assert done.returncode != 0
        assert f"there is data in the volume {production.name}_db" in done.stdout
        assert not path.exists()
    finally:
        path.with_suffix(".away").rename(path)
    wait_for(production.ready)
