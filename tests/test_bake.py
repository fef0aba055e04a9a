"""The rendered tree."""

import itertools
import json
import re
import tomllib

import pytest
from support.commands import git
from support.template import (
    CHOICES,
    DJANGO_VERSIONS,
    FILES,
    QUESTIONS,
    SOURCE,
    TEMPLATE,
    check_tree,
    files,
    literal,
)

# A valid name that is hostile to every file format it goes into.
NAME = """Ünïcödé "quoted" 'site' \\ {7*7} %} <b>&amp; $HOME #1 🦊"""


@pytest.fixture(scope="module")
def default_site(bake_session):
    return bake_session()


def test_the_defaults_render_exactly_these_files(default_site):
    assert files(default_site) == FILES


def test_every_default_file_parses(default_site):
    check_tree(default_site)


def test_git_would_stage_no_secret(default_site):
    env = (default_site / ".env").read_text()
    key = re.search(r"^SECRET_KEY=(.*)$", env, re.M)[1]
    git(default_site, "add", "--all")
    assert ".env" not in git(default_site, "ls-files").split()
    assert key not in git(default_site, "grep", "--cached", "-h", "")


def test_the_first_commit_has_everything(default_site):
    assert git(default_site, "status", "--porcelain") == ""
    assert git(default_site, "log", "--oneline").count("\n") == 1
    assert git(default_site, "branch", "--show-current") == "main\n"


def test_the_key_is_new_strong_and_readable_by_its_owner_only(default_site, bake):
    keys = set()
    for site in (default_site, bake()):
        env = site / ".env"
        assert env.stat().st_mode & 0o777 == 0o600
        key = re.search(r"^SECRET_KEY=(.*)$", env.read_text(), re.M)[1]
        assert re.fullmatch(r"[0-9a-f]{64}", key)
        keys.add(key)
    assert len(keys) == 2


def test_the_env_file_is_the_example_with_values(default_site):
    env, example = (
        [line.partition("=")[0] for line in (default_site / name).read_text().splitlines()]
        for name in (".env", ".env.example")
    )
    assert env == example


COMBINATIONS = [
    dict(zip(CHOICES, answers, strict=True)) for answers in itertools.product(*CHOICES.values())
]


@pytest.mark.parametrize("answers", COMBINATIONS, ids=lambda answers: "-".join(answers.values()))
def test_every_combination_of_choices_renders_valid_files(answers, bake):
    site = bake(create_git_repo=False, **answers)
    check_tree(site)
    assert files(site) == FILES


def test_every_choice_that_changes_code_is_tested(bake):
    """The fixture `variant` runs the site's tests with each Django version.

    A new choice that changes code needs the same. Other choices are in COMBINATIONS already.
    """

    def code(**answers):
        site = bake(create_git_repo=False, **answers)
        names = [name for name in files(site) if name.endswith(".py") or "requirements" in name]
        assert len(names) > 30
        return [(site / name).read_bytes() for name in names]

    default = code()
    changes = {
        question
        for question, answers in CHOICES.items()
        if any(code(**{question: answer}) != default for answer in answers)
    }
    assert changes == {"django_version"}


def test_every_text_answer_is_checked_and_every_choice_is_combined(bake):
    texts = {"project_name", "project_slug", "description", "author_name", "author_email"}
    assert set(QUESTIONS) == texts | set(CHOICES) | {"create_git_repo"}
    site = bake(create_git_repo=False)
    assert files(site) == FILES
    assert not (site / ".git").exists()


def test_answers_appear_verbatim_where_they_are_used(bake):
    answers = {"project_name": NAME, "description": f"About {NAME}", "author_name": f"By {NAME}"}
    site = bake(project_slug="hostile", **{name: literal(text) for name, text in answers.items()})
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
    for line in (site / "config/compat.py").read_text().splitlines():
        if line.startswith("SITE_"):
            exec(line, namespace)
    assert namespace["SITE_NAME"] == NAME
    assert namespace["SITE_DESCRIPTION"] == answers["description"]


def test_python_and_html_are_valid_in_the_template_itself():
    tags = 0
    for path in SOURCE.rglob("*"):
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix in {".py", ".sh", ".html", ".css", ".js", ".svg"} and "}" not in path.stem:
            assert "cookiecutter." not in text, path
            if path.suffix == ".py":
                compile(text, str(path), "exec")
        elif path.name != "recipes.md":  # copied, and full of Django's tags
            tags += len(re.findall(r"\{\{|\{%", text))
    assert 0 < tags <= 45


@pytest.mark.parametrize("version", DJANGO_VERSIONS)
def test_each_django_version_has_its_own_lock(version, bake):
    site = bake(create_git_repo=False, django_version=version)
    for name in ("requirements.txt", "requirements-dev.txt"):
        assert f"\ndjango=={version}." in (site / name).read_text()
        assert ("django-csp" in (site / name).read_text()) == (version == "5.2")


def test_no_file_names_a_registry():
    tracked = git(TEMPLATE, "ls-files", "-z").split("\0")
    for name in filter(None, tracked):
        path = TEMPLATE / name
        if path.is_file() and path.suffix != ".png":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(files\.pythonhosted|pypi\.(org|io)|registry\.npmjs)", text), (
                name
            )


def test_a_name_in_any_script_becomes_a_slug(bake):
    site = bake(project_name="Žluťoučký kůň: 2. Auflage")
    assert site.name == "zlutoucky_kun_2_auflage"
    site = bake(project_name="A Site With As Long A Name As These Forty-Nine Are")
    assert site.name == "a_site_with_as_long_a_name_as_these_forty_nine_are"
    site = bake(project_name="A Site With As Long A Name As These Forty-Nine Or More")
    assert site.name == "a_site_with_as_long_a_name_as_these_forty_nine_or"
