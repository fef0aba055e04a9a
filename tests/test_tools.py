"""The tools that people bake and update with: cookiecutter from anywhere, and cruft."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import TEMPLATE, bake, site_environment
from processes import cannot_run
from test_bake import FILES, check_tree, files, git
from test_hooks import cookiecutter
from test_site import run

CRUFT = Path(sys.executable).with_name("cruft")
YEAR = datetime.now(UTC).year
SITE = "{{cookiecutter.project_slug}}"


def cruft(site, *arguments):
    return subprocess.run([CRUFT, *arguments], cwd=site, capture_output=True, text=True)


def commit(repository, message):
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", message)
    return git(repository, "rev-parse", "HEAD").strip()


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path} has {text.count(old)} of {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def repository(tmp_path):
    """The template in a repository of its own, with one commit."""
    folder = tmp_path / "template"
    ignore = shutil.ignore_patterns(".git", ".venv", ".cache", ".demo", "__pycache__")
    shutil.copytree(TEMPLATE, folder, ignore=ignore)
    shutil.rmtree(folder / "tests")
    git(tmp_path, "init", "--quiet", "--initial-branch=main", folder)
    commit(folder, "The template")
    return folder


def test_a_zip_a_git_url_and_a_path_bake_the_same(repository, tmp_path):
    zip_file = shutil.make_archive(tmp_path / "zip", "zip", tmp_path, "template")
    git(tmp_path, "clone", "--quiet", "--bare", repository, "bare.git")
    sites = []
    for number, template in enumerate([repository, zip_file, f"file://{tmp_path}/bare.git"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = cookiecutter(folder, "--no-input", template=template)
        assert done.returncode == 0, done.stderr
        sites.append(folder / "my_site")
    for site in sites:
        assert files(site) == FILES
        for name in FILES:
            if name != ".env":
                assert (site / name).read_bytes() == (sites[0] / name).read_bytes()


def test_answers_come_from_a_replay_a_configuration_file_and_the_command_line(tmp_path):
    config = tmp_path / "config.yaml"
    defaults = {"author_name": "Ada", "author_email": "ada@example.com", "license": "Apache-2.0"}
    replay = tmp_path / "replay"
    config.write_text(json.dumps({"default_context": defaults, "replay_dir": str(replay)}))
    options = ["--config-file", str(config)]
    done = cookiecutter(tmp_path / "1", "--no-input", "project_name=One", *options)
    assert done.returncode == 0, done.stderr
    first = tmp_path / "1/one"
    assert "Ada" in (first / "LICENSE").read_text()
    done = cookiecutter(tmp_path / "2", "--replay", *options)
    assert done.returncode == 0, done.stderr
    second = tmp_path / "2/one"
    for name in FILES:
        if name != ".env":
            assert (first / name).read_bytes() == (second / name).read_bytes()
    # Nothing secret is in what Cookiecutter keeps.
    key = (first / ".env").read_text().partition("SECRET_KEY=")[2].split("\n")[0]
    for path in replay.iterdir():
        assert key not in path.read_text()


def test_a_failing_hook_leaves_nothing(repository, tmp_path):
    hook = repository / "hooks/post_gen_project.py"
    edit(hook, "def main():\n", "def main():\n    sys.exit('The disk is full.')\n")
    folder = tmp_path / "sites"
    folder.mkdir()
    done = cookiecutter(folder, "--no-input", template=repository)
    assert done.returncode != 0
    assert "The disk is full." in done.stderr
    assert list(folder.iterdir()) == []


def test_a_target_that_cannot_be_written_is_named(tmp_path):
    folder = tmp_path / "sites"
    folder.touch()  # a file: even root cannot make a folder in it
    done = cookiecutter(folder, "--no-input")
    assert done.returncode != 0
    assert str(folder / "my_site") in done.stdout + done.stderr
    assert folder.read_bytes() == b""
    if os.getuid() != 0:
        folder.unlink()
        folder.mkdir(mode=0o500)
        done = cookiecutter(folder, "--no-input")
        assert done.returncode != 0
        assert str(folder / "my_site") in done.stdout + done.stderr
        assert list(folder.iterdir()) == []


def test_an_empty_folder_that_was_there_is_filled_or_stays(tmp_path):
    folder = tmp_path / "my_site"
    folder.mkdir()
    for arguments in ([], ["-f", "description= "]):
        done = cookiecutter(tmp_path, "--no-input", *arguments)
        assert done.returncode != 0
        assert list(tmp_path.rglob("*")) == [folder]
    done = cookiecutter(tmp_path, "--no-input", "-f")
    assert done.returncode == 0, done.stderr
    assert files(folder) == FILES


def test_it_bakes_under_any_umask_path_and_encoding(tmp_path):
    folder = tmp_path / "Žluťoučký kůň & Co's “sites”"
    folder.mkdir()
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = cookiecutter(folder, "--no-input", umask=0o077, env=environment)
    assert done.returncode == 0, done.stderr
    site = folder / "my_site"
    check_tree(site)
    assert git(site, "status", "--porcelain") == ""
    assert site.stat().st_mode & 0o777 == 0o700
    bin_ = site_environment(site, "6.1")
    run(bin_ / "pytest", "-q", "tests/test_pages.py", "tests/test_settings.py", site=site)


def test_it_bakes_without_a_network(tmp_path):
    unshare = ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        cannot_run("unshare makes no network namespace here: it is Linux's, and may be forbidden")
    command = [*unshare, Path(sys.executable).with_name("cookiecutter")]
    command += [str(TEMPLATE), "--no-input", "--output-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "my_site") == FILES


def change_template(repository):
    """Commit what a later version of the template might change."""
    source = repository / SITE
    edit(source / "config/settings.py", 'LANGUAGE_CODE = "en-us"', 'LANGUAGE_CODE = "en-gb"')
    edit(source / "compose.yaml", "start_period: 60s", "start_period: 90s")
    edit(source / "README.md", "## Further reading\n", "## Further reading\n\nMore of it.\n")
    edit(source / ".env.example", "DEBUG=true\n", "DEBUG=true\n# NEW=1\n")
    (source / "tests/test_new.py").write_text("def test_new():\n    pass\n")
    return commit(repository, "Change some lines")


def edit_site(site):
    """Commit what people do with a site."""
    edit(site / "config/settings.py", '    "tokens",\n', '    "mine",\n    "tokens",\n')
    edit(site / "tokens/models.py", "    objects = Token", "    mine = True\n\n    objects = Token")
    edit(site / "compose.yaml", "volumes:\n  db:\n", "volumes:\n  db:\n  mine:\n")
    edit(site / "README.md", '# Ada\'s "site"\n', "# My own title\n")
    edit(site / "LICENSE", f"Copyright {YEAR} ", "Copyright 2001 ")  # as if baked then
    (site / "mine").mkdir()
    (site / "mine/__init__.py").touch()
    (site / ".pre-commit-config.yaml").unlink()
    return commit(site, "Make it mine")


# Answers as people give them, not the defaults.
ANSWERS = {"project_name": 'Ada\'s "site"', "project_slug": "adas", "license": "Apache-2.0"}


@pytest.fixture(params=["create", "link"])
def linked(request, repository, tmp_path):
    """A site made by cruft, or made by Cookiecutter and linked later, and edited."""
    arguments = [repository, "--no-input", "--extra-context", json.dumps(ANSWERS)]
    if request.param == "create":
        done = cruft(tmp_path, "create", *arguments)
    else:
        done = cruft(bake(tmp_path, **ANSWERS), "link", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    commit(tmp_path / "adas", "Link to the template")
    edit_site(tmp_path / "adas")
    return tmp_path / "adas"


def test_an_update_keeps_what_people_have_edited(linked, repository):
    env = (linked / ".env").read_bytes()
    assert cruft(linked, "check").returncode == 0
    assert cruft(linked, "update", "--skip-apply-ask").returncode == 0
    assert git(linked, "status", "--porcelain") == ""
    new = change_template(repository)
    assert cruft(linked, "check").returncode == 1

    done = cruft(linked, "update", "--skip-apply-ask")
    assert done.returncode == 0, done.stdout + done.stderr
    assert git(linked, "status", "--porcelain").split("\n") == [
        " M .cruft.json",
        "M  .env.example",
        "M  README.md",
        "M  compose.yaml",
        "M  config/settings.py",
        "A  tests/test_new.py",
        "",
    ]
    for name, theirs, ours in (
        ("config/settings.py", '    "mine",\n', 'LANGUAGE_CODE = "en-gb"'),
        ("compose.yaml", "  mine:\n", "start_period: 90s"),
        ("README.md", "# My own title\n", "\nMore of it.\n"),
    ):
        text = (linked / name).read_text()
        assert theirs in text
        assert ours in text
    assert (linked / ".env").read_bytes() == env
    assert json.loads((linked / ".cruft.json").read_text())["commit"] == new
    assert cruft(linked, "check").returncode == 0
    run(site_environment(linked, "6.1") / "pytest", "-q", site=linked)


def test_a_conflict_is_only_where_both_sides_have_changed_the_same_lines(linked, repository):
    change_template(repository)
    edit(linked / "config/settings.py", 'LANGUAGE_CODE = "en-us"', 'LANGUAGE_CODE = "cs"')
    commit(linked, "Speak Czech")
    cruft(linked, "update", "--skip-apply-ask")
    assert git(linked, "diff", "--name-only", "--diff-filter=U") == "config/settings.py\n"
    settings = (linked / "config/settings.py").read_text()
    (conflict,) = re.findall(r"<<<<<<< .*?>>>>>>> [^\n]*\n", settings, re.S)
    _, mine, _, theirs, _ = conflict.splitlines()
    assert (mine, theirs) == ('LANGUAGE_CODE = "cs"', 'LANGUAGE_CODE = "en-gb"')
    assert '    "mine",\n' in settings
    assert "start_period: 90s" in (linked / "compose.yaml").read_text()
    assert not list(linked.rglob("*.rej"))


def test_an_update_can_change_an_answer(repository, tmp_path):
    extra = ["--extra-context", json.dumps({"django_version": "5.2"})]
    assert cruft(tmp_path, "create", repository, "--no-input", *extra).returncode == 0
    site = tmp_path / "my_site"
    commit(site, "Link to the template")
    answer = ["--variables-to-update", json.dumps({"django_version": "6.1"})]
    assert cruft(site, "update", "--skip-apply-ask", *answer).returncode == 0
    expected = bake(tmp_path / "expected", django_version="6.1")
    for name in FILES:
        if name != ".env":
            assert (site / name).read_bytes() == (expected / name).read_bytes(), name
