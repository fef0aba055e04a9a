"""Production on your own server with all recipes at once: its limits leave them room to work."""

import re
import urllib.error
import urllib.request

import pytest
from support.processes import wait_for
from support.production import SERVICES, Production
from support.pythons import site_environment
from support.recipes import PICTURE, RECIPES, compile_messages, put_in, upload

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("network")]

PASSWORD = "analytical engine"
FORGET = """
from config.compat import task


@task(queue_name="low")
def forget():
    print("forgotten")
"""


@pytest.fixture(scope="module")
def cooked(engine, bake_session):
    """The site in production with all recipes, a user, and a task for the second queue."""
    production = Production(bake_session)
    put_in(production.site, *RECIPES)
    compile_messages(production.site, site_environment(production.site, "6.1"))
    (production.site / "pictures/tasks.py").write_text(FORGET)
    try:
        production.deploy()
        create = "from users.models import User; User.objects.create_user('ada', password={!r})"
        production.shell(create.format(PASSWORD))
        yield production
    finally:
        production.down()


@pytest.fixture
def ada(cooked):
    """A visitor who is logged in."""
    visitor = cooked.visitor(keep_alive=False)
    login = "/accounts/login/"
    assert visitor.post(login, login, username="ada", password=PASSWORD).status == 302
    return visitor


def test_everything_runs_and_the_example_works(cooked):
    healthy = {name for name, state in cooked.states().items() if state["Health"] == "healthy"}
    assert healthy == SERVICES | {"worker-low"}
    cooked.visitor(keep_alive=False).walk()


def test_uploads_are_served_by_caddy_and_survive_deploys_and_restores(cooked, ada):
    (path,) = re.findall(r'<img src="(/media/\S+)" width="320"', upload(ada, "a.png", PICTURE))

    def fetch():
        return urllib.request.urlopen(cooked.visitor().address + path, context=cooked.context)

    answer = fetch()
    assert answer.read() == PICTURE
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    cooked.edit("tokens/urls.py", "app_name =", "# Another version.\napp_name =")
    cooked.deploy()
    assert fetch().read() == PICTURE

    cooked.make("backup")
    file = cooked.make("backup", "KEEP=1").stdout.splitlines()[0]
    assert len(list((cooked.site / "backups").iterdir())) == 2
    cooked.exec("web-a", "rm", "-r", "media/pictures")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch()
    cooked.make("restore", f"FILE={file}")
    assert fetch().read() == PICTURE


def test_caddy_refuses_uploads_that_are_too_large(cooked, ada):
    assert "At most 5 MB" in upload(ada, "large.png", PICTURE + b"\0" * 6_000_000)
    headers = {"Content-Length": "11000000"}
    assert ada.request("POST", "/pictures/", b"not all of it", **headers).status == 413


def test_a_job_of_the_second_queue_runs_in_its_own_worker(cooked):
    cooked.shell("from pictures.tasks import forget; forget.enqueue()")
    done = r'worker-low-1 .*task=pictures\.tasks\.forget .*outcome="done"'
    wait_for(lambda: re.search(done, cooked.compose("logs", "worker-low")), 60, "the job")


def test_a_page_is_translated_in_the_image(cooked):
    page = cooked.visitor().get("/nowhere/", **{"Accept-Language": "de"})
    assert (page.status, "Seite nicht gefunden" in page.text) == (404, True)


def test_web_can_reach_other_services(cooked):
    route = cooked.exec("web-a", "cat", "/proc/net/route")
    assert re.search(r"^\S+\t00000000\t", route, re.M)
