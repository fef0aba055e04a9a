"""Deleting the example, and adding an app with three lines outside it."""

import re
import shutil

import pytest
from support.commands import commit, edit, git, interrupt, make, run, wait_for_start
from support.docker import Project
from support.http import Visitor
from support.procfile import production as production_environment
from support.production import SERVICES, Production
from support.pythons import site_environment


@pytest.fixture
def own(bake, variant):
    """A site to edit, for each Django, and the bin folder of its environment."""
    site = bake(django_version=variant)
    return site, site_environment(site, variant)


def check(site, site_bin):
    """Assert that the site's tests, linters and production checks pass."""
    output = run(site_bin / "pytest", "--cov", "--cov-fail-under=100", site=site)
    assert "Total coverage: 100.00%" in output
    run(site_bin / "ruff", "check", "--no-cache", ".", site=site)
    run(site_bin / "ruff", "format", "--no-cache", "--check", ".", site=site)
    manage = [site_bin / "python", "manage.py"]
    run(*manage, "makemigrations", "--check", site=site)
    environment = production_environment(
        site_bin,
        HTTPS="true",
        DATABASE_URL="postgres://user@127.0.0.1:9/name",
        REDIS_URL="redis://127.0.0.1:9/0",
    )
    run(*manage, "check", "--deploy", "--fail-level", "WARNING", site=site, **environment)
    run(*manage, "collectstatic", "--no-input", site=site, DEBUG="false")


# --- Deleting the example --------------------------------------------------------------------


def delete_example(site):
    """Do what "Make it yours" in the README says; return the deleted lines."""
    git(site, "rm", "-r", "--quiet", "tokens")
    shutil.rmtree(site / "tokens", ignore_errors=True)  # bytecode
    deleted = []
    for name in git(site, "ls-files", "--", ":!*.md", ":!docs").split():
        lines = (site / name).read_text().splitlines(keepends=True)
        named = [line for line in lines if "tokens" in line]
        if named:
            deleted += [(name, line) for line in named]
            (site / name).write_text("".join(line for line in lines if "tokens" not in line))
    return deleted


def test_the_example_is_named_in_few_lines_outside_it(own):
    site, _ = own
    deleted = delete_example(site)
    assert {name for name, _ in deleted} == {"config/settings.py", "config/urls.py"}
    assert len(deleted) == 3
    for name in git(site, "ls-files", "--", ":!*.md", ":!docs").split():
        assert not re.search(r"\bTOKEN_|\bVISITOR_", (site / name).read_text()), name


@pytest.mark.slow
def test_the_site_works_without_the_example(own):
    site, site_bin = own
    run(site_bin / "python", "manage.py", "migrate", site=site)
    run(site_bin / "python", "manage.py", "migrate", "tokens", "zero", site=site)
    delete_example(site)
    check(site, site_bin)
    tables = "from django.db import connection; print(connection.introspection.table_names())"
    shell = [site_bin / "python", "manage.py", "shell", "--command"]
    assert "tokens" not in run(*shell, tables, site=site)
    first_page = "from django.test import Client; print(Client().get('/').status_code)"
    environment = {"DEBUG": "false", "HTTPS": "false", "ALLOWED_HOSTS": "testserver"}
    assert "404" in run(*shell, first_page, site=site, **environment)


@pytest.mark.slow
def test_without_the_example_development_shows_a_first_page(developed, tmp_path):
    delete_example(developed)
    process, address = make(developed, "dev", tmp_path / "log")
    with process:
        wait_for_start(address, process)
        assert "manage.py startapp" in Visitor(address).page()
        interrupt(process)


@pytest.fixture
def bake_without_example(bake):
    """Like `bake`, for a site from which the example has been deleted."""

    def bake_and_delete(**answers):
        site = bake(**answers)
        git(site, "init", "--quiet")
        commit(site, "The site")
        assert delete_example(site)
        return site

    return bake_and_delete


@pytest.mark.slow
@pytest.mark.xdist_group("network")
def test_without_the_example_docker_runs_the_site(engine, bake_without_example):
    project = Project(bake_without_example)
    try:
        project.up()
        assert "manage.py startapp" in project.visitor().page()
        assert project.health("clock") == "healthy"
    finally:
        project.down()


@pytest.mark.slow
@pytest.mark.xdist_group("network")
def test_without_the_example_the_site_is_deployed(engine, bake_without_example):
    production = Production(bake_without_example)
    try:
        production.deploy()
        assert production.ready()
        assert production.visitor().get("/").status == 404
        states = production.states()
        assert {name for name in states if states[name]["Health"] == "healthy"} == SERVICES
    finally:
        production.down()


# --- Your own app ----------------------------------------------------------------------------

APP = {
    "models.py": """
from django.db import models


class Note(models.Model):
    # Its line in the generated migration is too long for the linter.
    text = models.TextField(
        help_text="What there is to say, in a sentence or two, and no more than that, please."
    )
    read = models.PositiveIntegerField(default=0)

    def __str__(self):
        return self.text
""",
    "admin.py": """
from django.contrib import admin

from notes.models import Note

admin.site.register(Note)
""",
    "tasks.py": """
from DJANGO import task

from notes.models import Note


@task
def read(pk):
    Note.objects.filter(pk=pk).update(read=1)


@task
def forget():
    Note.objects.filter(read=1).delete()
""",
    "views.py": """
from django.shortcuts import render

from config.throttle import throttled
from notes import tasks
from notes.models import Note


@throttled(2)
def index(request):
    if request.method == "POST":
        note = Note.objects.create(text=request.POST["text"])
        tasks.read.enqueue(note.pk)
    return render(request, "notes/index.html", {"notes": Note.objects.all()})
""",
    "urls.py": """
from django.urls import path

from notes import views

app_name = "notes"

urlpatterns = [path("", views.index, name="index")]
""",
    "templates/notes/index.html": """
{% extends "base.html" %}

{% block main %}
  <h1>Notes</h1>
  {% for note in notes %}<p>{{ note }}</p>{% endfor %}
{% endblock %}
""",
    # The app's templates override those of admin and auth.
    "templates/registration/logged_out.html": "Come again.\n",
    "tests.py": """
import pytest
from django.core import mail
from django.core.mail import send_mail
from django.urls import reverse

from notes import tasks
from notes.models import Note


@pytest.mark.django_db(transaction=True)
def test_a_note_is_shown_and_read_by_a_job(client, work):
    assert "Hello" in client.post(reverse("notes:index"), {"text": "Hello"}).text
    work()
    assert Note.objects.get().read == 1
    tasks.forget.enqueue()
    work()
    assert not Note.objects.exists()


@pytest.mark.django_db
def test_staff_find_notes(admin_client):
    Note.objects.create(text="Hello")
    assert "Hello" in admin_client.get(reverse("admin:notes_note_changelist")).text


@pytest.mark.django_db
def test_the_sites_own_page_is_shown_after_logging_out(admin_client):
    assert "Come again." in admin_client.post(reverse("admin:logout")).text


def test_mail_is_sent():
    send_mail("Subject", "Text", None, ["ada@example.com"])
    assert len(mail.outbox) == 1
""",
}

DATA_MIGRATION = """from django.db import migrations


def say_hello(apps, schema_editor):
    apps.get_model("notes", "Note").objects.create(text="Hello")


class Migration(migrations.Migration):
    dependencies = [("notes", "0001_initial")]
    operations = [migrations.RunPython(say_hello, migrations.RunPython.noop)]
"""


@pytest.mark.slow
def test_a_new_app_takes_three_lines_outside_it(own, variant):
    site, site_bin = own
    run(site_bin / "python", "manage.py", "startapp", "notes", site=site)
    for name, text in APP.items():
        path = site / "notes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        django = {"5.2": "django_tasks", "6.1": "django.tasks"}[variant]
        text = text.replace("from DJANGO import", f"from {django} import").lstrip("\n")
        path.write_text(text)
    edit(
        site / "config/settings.py",
        ('    "tokens",\n', '    "notes",\n    "tokens",\n'),
        ("SCHEDULE = {\n", 'SCHEDULE = {\n    "notes.tasks.forget": "0 4 * * *",\n'),
    )
    first = '    path("", include("tokens.urls")),\n'
    mine = '    path("notes/", include("notes.urls")),\n'
    edit(site / "config/urls.py", (first, mine + first))
    run(site_bin / "python", "manage.py", "makemigrations", "notes", site=site)
    (site / "notes/migrations/0002_hello.py").write_text(DATA_MIGRATION)
    # As `make format` does, because startapp uses other quotes than the site.
    run(site_bin / "ruff", "check", "--fix-only", "--quiet", ".", site=site)
    run(site_bin / "ruff", "format", ".", site=site)
    check(site, site_bin)
    # Coverage notices an app without tests.
    (site / "notes/tests.py").unlink()
    (site / "notes/forgotten.py").write_text("def forgotten():\n    return 1\n")
    with pytest.raises(AssertionError, match=r"notes/forgotten\.py"):
        run(
            site_bin / "pytest", "--cov", "--cov-fail-under=100", "tests/test_servers.py", site=site
        )
