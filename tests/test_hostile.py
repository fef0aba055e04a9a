"""Hostile answers: each one is refused, or comes out as it went in."""

import ast
import builtins
import contextlib
import html
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

import cookiecutter.hooks
import jinja2
import pytest
import yaml
from cookiecutter.exceptions import FailedHookException
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from support.commands import cookiecutter as run_cookiecutter
from support.commands import run
from support.pythons import newest_django, site_environment
from support.template import (
    CHOICES,
    DEFAULTS,
    SOURCE,
    TEMPLATE,
    check_tree,
    literal,
)

# To repeat a run, set HOSTILE_SEED to the seed that it printed.
SEED = os.environ.get("HOSTILE_SEED")

LICENSES = CHOICES["license"]
TEXTS = ["project_name", "description", "author_name"]

# Raises if anything runs an answer as code: Python, a shell, Make, Django's templates.
CODE = "__import__('builtins').__dict__.setdefault('HACKED', 1)"
SHELL = "touch HACKED"

# fmt: off
ACCEPTABLE = [
    *("'", '"', "'''", '"""', "`", "\\", "\\\\", "\\n", "\\x00", "\\u0041", "\\N{DASH}", "\\'"),
    *("{", "}", "{0}", "%}", "}}", "#}", "$", "$$", "${HOME}", "#", "%", "%s", "%(a)s", "%7B"),
    *(": ", ":", " #", "- ", "---", "...", "&a", "*a", "!!python/name:os", "|", ">", "?", "@"),
    *("yes", "no", "on", "null", "~", "1e3", "0x1f", "0o7", "1_000", ".inf", "2026-01-01", "<<"),
    *("[", "]", "[[", "]]", "=", ",", ";", "(", ")", "<!--", "-->", "]]>", "</title>", "&amp;"),
    *("<script>alert(1)</script>", "<b>", "](x)", "![", "..", "../", "/etc/passwd", "C:\\", "-rf"),
    *("\u202e", "\u2066", "\u0301", "\u200d", "\u200b", "\u00a0", "\ufeff", "\ufffe", "\u3000"),
    *("🦊", "👩🏽", "日本語", "עברית", "ﷺ", "ß", "İ", "\U0010fffd", "\xad", "COPY", "None", "r'''"),
    *(f"${{{CODE}}}", f'"+{CODE}+"', f"'+{CODE}+'", f"$({SHELL})", f"`{SHELL}`", f";{SHELL};"),
    *(f"$(shell {SHELL})", "__name__", "import os", "\\EOF", "cookiecutter"),
]
REFUSABLE = [
    *("\n", "\t", "\r", "\0", "\x07", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u2029", "\ud800"),
    *("{{ 7*7 }}", "{{", "{%", "{% raw %}", "{% endraw %}", "{#", "{{ cookiecutter }}"),
    *(f"{{{{ {CODE} }}}}", f"\n{CODE}\n", f'"\n{CODE}\n"', f"\n\t{SHELL}\n", "x" * 10_000, " ", ""),
    "\ud83e\udd8a",  # an emoji in two halves
]
SLUGS = [
    *("", ".", "..", "x/..", "../x", "../../x", "/", "/x", "/tmp/x", "a/b", "a//b", "a\\b"),
    *("C:\\x", "~", "x/../..", "x/../../y"),
    *("-", "-rf", "--help", ".hidden", ".git", "x.", "x ", "con", "CON", "nul", "com1", "aux.txt"),
    *("config", "tokens", "tests", "manage", "json", "os", "site", "test", "django", "rq", "redis"),
    *("class", "match", "_", "__init__", "none", "None", "true", "null", "yes", "1e3", "$HOME"),
    *("my site", "my-site", "MySite", "sité", "\uff41", "x\n", "x\0", "{{ 7*7 }}", "x" * 10_000),
]
# fmt: on

letters = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
acceptable = st.lists(st.sampled_from(ACCEPTABLE) | letters, min_size=1, max_size=6).map("".join)
anything = st.lists(st.sampled_from(ACCEPTABLE + REFUSABLE) | st.characters(), max_size=6).map(
    "".join
)
# Three in four can be valid; each example gives such an answer to any of the questions.
text = acceptable.map(str.strip) | acceptable | acceptable | anything
email = st.text("!#$%&'*+/=?^_`{|}~-.a", min_size=1).map(lambda local: f"{local}@example.com")
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(TEXTS, text),
        "author_email": email | email | st.emails() | text.map(lambda local: f"{local}@x.org"),
        "project_slug": st.from_regex(r"[a-z][a-z0-9_]{0,48}[a-z0-9]", fullmatch=True)
        | st.sampled_from(SLUGS)
        | anything,
        **{question: st.sampled_from(choices) for question, choices in CHOICES.items()},
    },
)


@pytest.fixture(scope="module")
def in_process():
    """Make Cookiecutter run hooks in this process, and compile each template once.

    These two make a bake slow. Cookiecutter still renders each hook.
    """

    compile_template = jinja2.Environment.compile
    compiled = {}

    def compile_once(environment, source, name=None, filename=None, **options):
        if (source, name) not in compiled:
            compiled[source, name] = compile_template(environment, source, name, filename)
        return compiled[source, name]

    def run_hook(script, cwd):
        source = Path(script).read_text(encoding="utf-8")
        os.unlink(script)
        before = os.getcwd()
        os.chdir(cwd)
        try:
            with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
                exec(compile(source, script, "exec"), {"__name__": "__main__"})
        finally:
            os.chdir(before)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(jinja2.Environment, "compile", compile_once)
        monkeypatch.setattr(cookiecutter.hooks, "run_script", run_hook)
        yield


def as_given(answers):
    """Return the answers in the form that makes `bake` take each one literally."""
    literals = {
        name: answer if name in CHOICES else literal(answer) for name, answer in answers.items()
    }
    return literals | {"create_git_repo": False}


@pytest.fixture(scope="module")
def small_template(tmp_path_factory, bake_session, in_process):
    """The template without the files that do not depend on typed answers.

    Two bakes show which files those are.
    """
    folder = tmp_path_factory.mktemp("small")
    typed = [dict.fromkeys(TEXTS, f"{letter}x") for letter in "ab"]
    typed[0] |= {"author_email": "a@example.com", "project_slug": "ax"}
    typed[1] |= {"author_email": "b@example.com", "project_slug": "bx"}
    sites = [bake_session(**as_given(answers)) for answers in typed]
    same = shutil.ignore_patterns(".*", "__pycache__", "tests")
    template = folder / "template"
    shutil.copytree(TEMPLATE, template, ignore=same)
    kept = {".env.example"}  # the hook makes .env from this one
    for path in SOURCE.rglob("*"):
        name = re.sub(r"{#.*#}", "", str(path.relative_to(SOURCE)))
        if path.is_file() and (sites[0] / name).is_file():
            one, other = ((site / name).read_bytes() for site in sites)
            if one != other:
                kept.add(name)
            elif name not in kept:
                (template / path.relative_to(TEMPLATE)).unlink(missing_ok=True)
    shutil.copy(SOURCE / ".env.example", template / SOURCE.name)
    assert kept == {
        *(".env.example", "LICENSE", "README.md", "app.json", "deploy/compose.yaml"),
        *("config/compat.py", "pyproject.toml"),
    }
    return template


def check_refused(message, given, folder, before):
    """Assert that each line names one of the answers, and says what to write."""
    lines = message.split("\n")
    named = [line.split(" ")[0] for line in lines]
    assert len(set(named)) == len(named)
    for question, line in zip(named, lines, strict=True):
        # Without an answer, the slug comes from the name.
        assert question in given or (question == "project_slug" and "project_name" in given)
        verbs, advice = "is|has|contains|cannot|starts", "write|do not|remove"
        assert re.fullmatch(rf"[a-z_]+ ({verbs}) .*: ({advice}) .+\.", line), line
    assert set(folder.rglob("*")) == before


def check_baked(site, given):
    """Assert that every file parses, and that each answer comes out as it was given."""
    check_tree(site)
    answers = DEFAULTS | {question: values[0] for question, values in CHOICES.items()} | given
    name, description, author = (answers[question] for question in TEXTS)
    project = tomllib.loads((site / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    app = json.loads((site / "app.json").read_text(encoding="utf-8"))
    assert project["name"] == site.name == given.get("project_slug", site.name)
    assert project["description"] == description
    # Heroku takes no more.
    assert app["description"] == description[:140]
    assert project["authors"] == [{"name": author, "email": answers["author_email"]}]
    assert app["name"] == name[:30]
    readme = (site / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"# {name}\n\n{description}\n\n")
    licence = (site / "LICENSE").read_text(encoding="utf-8").split("\n")
    assert [
        line
        for line in licence
        if re.fullmatch(rf" *Copyright .*\d{{4}},? {re.escape(author)}", line)
    ]
    module = ast.parse((site / "config/compat.py").read_text(encoding="utf-8"))
    (value,) = (
        statement.value
        for statement in module.body
        if isinstance(statement, ast.Assign) and statement.targets[0].id == "SITE_NAME"
    )
    assert ast.literal_eval(value) == name


def new_seed(part):
    """Return a part's seed. A commit always gets the same one, so failures can be repeated."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=TEMPLATE, capture_output=True)
    return int(SEED) if SEED else random.Random(f"{commit.stdout} {part}").randrange(2**32)


def try_answers(count, part, template, bake, folder, record_property):
    """Try that many hostile answers; report their seed and their outcomes."""
    number = new_seed(part)
    print(f"HOSTILE_SEED={number}")  # printed if the test fails
    outcomes = Counter()
    sites = folder / "cookies"  # pytest-cookies makes a folder for each bake there
    (sites / "Empty").mkdir()
    (sites / "mine").write_text("mine")
    before = set(folder.rglob("*"))

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(ANSWERS)
    def check(given):
        try:
            site = bake(template, **as_given(given))
        except FailedHookException as refusal:
            outcomes["refused"] += 1
            check_refused(str(refusal), given, folder, before)
        else:
            outcomes["baked"] += 1
            try:
                check_baked(site, given)
            finally:
                shutil.rmtree(site.parent)
            assert set(folder.rglob("*")) == before
        assert not hasattr(builtins, "HACKED")

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        monkeypatch.chdir(sites)
        check()
    assert (sites / "mine").read_text() == "mine"
    assert min(outcomes["refused"], outcomes["baked"]) > count / 6
    record_property("hostile answers", f"seed {number}: {dict(outcomes)}")


def test_hostile_answers_are_refused_or_come_out_unchanged(
    small_template, bake, tmp_path, record_property
):
    try_answers(300, "few", small_template, bake, tmp_path, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_thousands_of_hostile_answers_are_refused_or_come_out_unchanged(
    part, small_template, bake, tmp_path, record_property
):
    try_answers(1000, part, small_template, bake, tmp_path, record_property)


@pytest.mark.parametrize("part", range(2))
def test_a_site_with_hostile_answers_lints_and_shows_its_name(part, tmp_path):
    """On the command line, and with the site's own tools."""
    number = new_seed("site")
    print(f"HOSTILE_SEED={number}")
    pieces = random.Random(f"{number} {part}").sample(ACCEPTABLE, len(ACCEPTABLE))
    given = {}
    for question in TEXTS:
        words = []
        while len(" ".join([*words, pieces[-1]])) <= 90:
            words.append(pieces.pop())
        given[question] = " ".join(words).strip()
    given |= {"project_slug": ["null", "y"][part], "license": LICENSES[part]}
    given["django_version"] = newest_django()
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"default_context": given}))
    done = run_cookiecutter(tmp_path, "--no-input", "--config-file", str(config))
    assert done.returncode == 0, done.stderr
    site = tmp_path / given["project_slug"]
    check_baked(site, given)
    bin_ = site_environment(site, newest_django())
    run(bin_ / "ruff", "check", "--no-cache", ".", site=site)
    run(bin_ / "ruff", "format", "--no-cache", "--check", ".", site=site)
    run(bin_ / "python", "manage.py", "check", site=site)
    show = "from django.test import Client; print(Client().get('/', HTTP_HOST='localhost').text)"
    page = run(bin_ / "python", "-X", "utf8", "manage.py", "shell", "-c", show, site=site)
    (title,) = re.findall(r"<title>(.*)</title>", page)
    assert html.unescape(title) == given["project_name"]
    assert not list(tmp_path.rglob("HACKED"))
