"""What is refused, written and said at a bake, through the command line that people use."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TEMPLATE, bake, environment_of, find_pythons
from processes import cannot_run

COOKIECUTTER = Path(sys.executable).with_name("cookiecutter")


def cookiecutter(folder, *arguments, command=COOKIECUTTER, template=TEMPLATE, **options):
    return subprocess.run(
        [command, str(template), "--output-dir", str(folder), *arguments],
        capture_output=True,
        text=True,
        **options,
    )


REFUSED = [
    ("project_name", " ", "is empty: write something"),
    ("project_name", " x", "has spaces around it: write it without"),
    ("project_name", "a\nb", "contains a control character: write plain text on one line"),
    ("project_name", "a\u2028b", "contains a control character: write plain text on one line"),
    ("description", None, "is empty: write something"),
    ("project_name", "{{ x", "contains a tag of Jinja's: write no { before another {, a % or a #"),
    ("project_name", "\ud83e\udd8a", "contains a control character: write plain text on one"),
    ("project_name", "x" * 101, "is too long: write at most 100 characters"),
    ("description", "", "is empty: write something"),
    ("description", "x" * 201, "is too long: write at most 200 characters"),
    ("author_name", "a\x07b", "contains a control character: write plain text on one line"),
    ("author_email", "", "is empty: write something"),
    ("author_email", "nobody", "is not an email address: write one like you@example.com"),
    ("author_email", "a@b", "is not an email address: write one like you@example.com"),
    ("author_email", "a b@example.com", "is not an email address"),
    *(
        ("project_slug", slug, "is not a name for a folder: write at most 50")
        for slug in (None, "My_Site", "my-site", "1site", "site_", "sité", "x" * 51, "-x")
    ),
    *(
        ("project_slug", slug, f"have taken: write another, like {slug}_site")
        for slug in ("class", "match", "json", "django", "config", "tokens", "tests", "con", "lpt1")
    ),
]


@pytest.mark.parametrize(("question", "answer", "message"), REFUSED)
def test_a_bad_answer_is_refused_in_one_line_and_leaves_nothing(
    question, answer, message, tmp_path
):
    # On the command line, where an answer cannot hold everything that a file can.
    config = tmp_path / "config.yaml"
    raw = answer and answer.replace("{{", "{{ '{{' }}")
    config.write_text(json.dumps({"default_context": {question: raw}}))
    folder = tmp_path / "sites"
    folder.mkdir()
    done = cookiecutter(folder, "--no-input", "--config-file", str(config))
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{question} ")
    assert message in line
    assert done.stderr == ""
    assert list(folder.iterdir()) == []


def test_every_bad_answer_has_a_line(tmp_path):
    answers = ["project_name= ", "project_slug=Site", "author_email=x"]
    done = cookiecutter(tmp_path, "--no-input", *answers)
    assert [line.partition(" ")[0] for line in done.stdout.splitlines()] == [
        "project_name",
        "project_slug",
        "author_email",
    ]


PATHS = ["", ".", "..", "/", "a/b/c", "x/..", "../outside/b", "{folder}/absolute/b", "x" * 10_000]


@pytest.mark.parametrize("slug", PATHS)
def test_a_slug_that_is_a_path_makes_and_removes_nothing(slug, tmp_path):
    folder = tmp_path / "sites"
    (folder / "empty").mkdir(parents=True)
    (folder / "mine").touch()
    before = set(tmp_path.rglob("*"))
    slug = slug.format(folder=tmp_path)
    # Into the folder where one is, and into another one.
    for options in ({"cwd": folder}, {}):
        output = "." if options else folder
        done = cookiecutter(output, "--no-input", "-f", f"project_slug={slug}", **options)
        assert done.returncode == 1
        assert done.stdout.startswith("project_slug is not a name for a folder: write at most 50")
        assert set(tmp_path.rglob("*")) == before


def test_a_folder_that_is_not_empty_is_refused_even_when_overwriting(tmp_path):
    mine = tmp_path / "my_site" / "README.md"
    mine.parent.mkdir()
    mine.write_text("mine")
    for arguments in ([], ["--overwrite-if-exists"], ["-f", "--skip-if-file-exists"]):
        done = cookiecutter(tmp_path, "--no-input", *arguments)
        assert done.returncode != 0
        assert "my_site" in done.stdout + done.stderr
        assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]
    assert "is not empty: nothing was written. To update a site, see 'Updating'" in done.stderr


def test_prompts_are_sentences_and_answers_are_taken(tmp_path):
    typed = 'Typed {7*7}\ntyped_site\nIt\'s "quoted".\nAda\nada@example.com\n2\n2\n3\n1\nn\n'
    done = cookiecutter(tmp_path, input=typed)
    assert done.returncode == 0, done.stderr
    assert "What is the site called?" in done.stdout
    assert "5.2 LTS, supported until April 2028" in done.stdout
    site = tmp_path / "typed_site"
    assert (site / "README.md").read_text().startswith("# Typed {7*7}\n")
    assert (site / ".python-version").read_text() == "3.12\n"
    assert not (site / ".git").exists()


def test_the_next_steps_are_said(tmp_path):
    done = cookiecutter(tmp_path, "--no-input")
    assert done.stderr == ""
    assert "cd my_site" in done.stdout
    assert "make dev" in done.stdout
    assert len(done.stdout.strip().splitlines()) < 10


def test_a_name_in_any_script_gives_a_slug(tmp_path):
    site = bake(tmp_path, project_name="Žluťoučký kůň: 2. Auflage")
    assert site.name == "zlutoucky_kun_2_auflage"
    site = bake(tmp_path, project_name="A Site With As Long A Name As These Forty-Nine Are")
    assert site.name == "a_site_with_as_long_a_name_as_these_forty_nine_are"
    site = bake(tmp_path, project_name="A Site With As Long A Name As These Forty-Nine Or More")
    assert site.name == "a_site_with_as_long_a_name_as_these_forty_nine_or"


def test_without_git_there_is_a_site_and_a_line(tmp_path):
    path = tmp_path / "bin"
    path.mkdir()
    (path / "python3").symlink_to(sys.executable)
    done = cookiecutter(tmp_path, "--no-input", env=os.environ | {"PATH": str(path)})
    assert done.returncode == 0
    assert "Git is not installed" in done.stderr
    assert (tmp_path / "my_site" / ".env").exists()


def test_without_an_identity_there_is_a_site_and_a_line(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\nuseConfigOnly = true\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = cookiecutter(tmp_path, "--no-input", env=environment)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("Git made no first commit (")
    assert (tmp_path / "my_site" / ".git").exists()


def test_git_stays_in_the_site_when_it_is_baked_from_a_git_hook(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=other, check=True)
    environment = {"GIT_DIR": str(other / ".git"), "GIT_INDEX_FILE": str(other / ".git/index")}
    done = cookiecutter(tmp_path, "--no-input", env=os.environ | environment)
    assert done.stderr == ""
    assert (tmp_path / "my_site" / ".git").exists()
    assert not (other / ".git" / "index").exists()


def test_an_abbreviation_for_a_repository_works(tmp_path):
    """`gh:name` stands for a repository; here the configuration points it at a local one."""
    repository = tmp_path / "repositories" / "template"
    ignore = shutil.ignore_patterns(".git", ".venv", ".cache", ".demo", "__pycache__")
    shutil.copytree(TEMPLATE, repository, ignore=ignore)
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "x"]):
        subprocess.run(["git", *arguments], cwd=repository, check=True)
    config = tmp_path / "config.yaml"
    abbreviations = {"gh": f"file://{repository.parent}/{{0}}.git"}
    clones = tmp_path / "clones"
    clones.mkdir()
    bare = ["git", "clone", "--quiet", "--bare", repository, f"{repository}.git"]
    subprocess.run(bare, check=True)
    config.write_text(
        json.dumps({"abbreviations": abbreviations, "cookiecutters_dir": str(clones)})
    )
    done = cookiecutter(
        tmp_path, "--no-input", "--config-file", str(config), template="gh:template"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "my_site" / "manage.py").exists()


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_it_bakes_on_each_python(minor, tmp_path):
    pythons = find_pythons()
    if (3, minor) not in pythons:
        cannot_run(f"no Python 3.{minor} was found")
    folder = environment_of(TEMPLATE / "tests" / "requirements.txt", pythons[3, minor])
    done = cookiecutter(tmp_path, "--no-input", command=folder / "cookiecutter")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "my_site" / "manage.py").exists()
