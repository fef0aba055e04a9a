"""The rendered tree."""

import json
import re
import subprocess
import tomllib

import pytest
import yaml
from conftest import DJANGO_VERSIONS, TEMPLATE, bake

TEXT = json.loads((TEMPLATE / "cookiecutter.json").read_text())
CHOICES = {name: answers for name, answers in TEXT.items() if isinstance(answers, list)}
CHOICES.pop("_copy_without_render")

FILES = (TEMPLATE / "tests" / "files.txt").read_text().split()

# Hostile to every format an answer goes into, and yet a name.
NAME = """Ünïcödé "quoted" 'site' \\ {{ 7*7 }} {% if %} <b>&amp; $HOME #1 🦊"""


def files(site):
    return sorted(
        str(path.relative_to(site))
        for path in site.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(site).parts
    )


def git(site, *arguments):
    return subprocess.run(
        ["git", *arguments], cwd=site, check=True, capture_output=True, text=True
    ).stdout


def check_tree(site):
    """Assert that every file parses and that nothing of the template's language is left."""
    for name in files(site):
        text = (site / name).read_text(encoding="utf-8")
        assert "cookiecutter." not in text, name
        assert not text or text.endswith("\n"), name
        assert "\r" not in text, name
        if name.endswith(".py"):
            compile(text, name, "exec")
        elif name.endswith((".yaml", ".yml")):
            assert yaml.safe_load(text), name
        elif name.endswith(".toml"):
            assert tomllib.loads(text), name
        elif name.endswith(".json"):
            assert json.loads(text), name


@pytest.fixture(scope="module")
def default_site(tmp_path_factory):
    return bake(tmp_path_factory.mktemp("default"))


def test_the_defaults_render_exactly_these_files(default_site):
    assert files(default_site) == FILES


def test_every_file_of_the_defaults_parses(default_site):
    check_tree(default_site)


def test_nothing_that_git_would_stage_is_secret(default_site):
    env = (default_site / ".env").read_text()
    key = re.search(r"^SECRET_KEY=(.*)$", env, re.M)[1]
    git(default_site, "add", "--all")
    assert ".env" not in git(default_site, "ls-files").split()
    assert key not in git(default_site, "grep", "--cached", "-h", "")


def test_the_first_commit_holds_everything(default_site):
    assert git(default_site, "status", "--porcelain") == ""
    assert git(default_site, "log", "--oneline").count("\n") == 1
    assert git(default_site, "branch", "--show-current") == "main\n"


def test_the_key_is_fresh_strong_and_for_the_owner_only(default_site, tmp_path):
    keys = set()
    for site in (default_site, bake(tmp_path)):
        env = site / ".env"
        assert env.stat().st_mode & 0o777 == 0o600
        key = re.search(r"^SECRET_KEY=(.*)$", env.read_text(), re.M)[1]
        assert re.fullmatch(r"[0-9a-f]{64}", key)
        keys.add(key)
    assert len(keys) == 2


def test_the_environment_file_is_the_example_with_values(default_site):
    env, example = (
        [line.partition("=")[0] for line in (default_site / name).read_text().splitlines()]
        for name in (".env", ".env.example")
    )
    assert env == example


@pytest.mark.parametrize(
    ("question", "answer"), [(q, answer) for q, answers in CHOICES.items() for answer in answers]
)
def test_each_choice_renders_a_tree_that_parses(question, answer, tmp_path):
    site = bake(tmp_path, create_git_repo=False, **{question: answer})
    check_tree(site)
    assert files(site) == FILES
    assert not (site / ".git").exists()


def test_answers_are_found_verbatim_where_they_are_used(tmp_path):
    # As if typed at the prompts: given as values, Cookiecutter itself would render the braces.
    answers = {"project_name": NAME, "description": f"About {NAME}", "author_name": f"By {NAME}"}
    escaped = {
        question: answer.replace("{{", "{{ '{{' }}").replace("{%", "{{ '{%' }}")
        for question, answer in answers.items()
    }
    site = bake(tmp_path, project_slug="hostile", **escaped)
    check_tree(site)
    project = tomllib.loads((site / "pyproject.toml").read_text())["project"]
    app = json.loads((site / "app.json").read_text())
    assert app["name"] == NAME[:30]
    assert project["description"] == answers["description"]
    assert app["description"] == answers["description"][:140]
    assert project["authors"][0]["name"] == answers["author_name"]
    assert answers["author_name"] in (site / "LICENSE").read_text()
    assert (site / "README.md").read_text().startswith(f"# {NAME}\n")
    namespace = {}
    for line in (site / "config/project.py").read_text().splitlines():
        if line.startswith("SITE_NAME = "):
            exec(line, namespace)
    assert namespace["SITE_NAME"] == NAME


def test_python_and_html_are_valid_as_they_stand_in_the_template():
    source = TEMPLATE / "{{cookiecutter.project_slug}}"
    tags = 0
    for path in source.rglob("*"):
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix in {".py", ".html", ".css", ".js", ".svg"}:
            assert "cookiecutter." not in text, path
            if path.suffix == ".py":
                compile(text, str(path), "exec")
        else:
            tags += len(re.findall(r"\{\{|\{%", text))
    assert 0 < tags <= 40


@pytest.mark.parametrize("version", DJANGO_VERSIONS)
def test_the_lock_of_each_django_is_for_that_django(version, tmp_path):
    site = bake(tmp_path, create_git_repo=False, django_version=version)
    for name in ("requirements.txt", "requirements-dev.txt"):
        assert f"\ndjango=={version}." in (site / name).read_text()
        assert ("django-csp" in (site / name).read_text()) == (version == "5.2")


def test_no_registry_is_named_anywhere():
    tracked = git(TEMPLATE, "ls-files", "-z").split("\0")
    for name in filter(None, tracked):
        path = TEMPLATE / name
        if path.is_file() and path.suffix != ".png":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(files\.pythonhosted|pypi\.(org|io)|registry\.npmjs)", text), (
                name
            )
