"""Updating a site with cruft."""

import json
import re
import shutil
from datetime import UTC, datetime

import pytest
from support.commands import commit, cruft, edit, git, run
from support.pythons import newest_django, site_environment
from support.template import FILES, SOURCE, TEMPLATE, files

YEAR = datetime.now(UTC).year


def change_template(repository):
    """Commit changes that a later version of the template might make."""
    source = repository / SOURCE.name
    edit(source / "config/settings.py", ('LANGUAGE_CODE = "en-us"', 'LANGUAGE_CODE = "en-gb"'))
    edit(source / "compose.yaml", ("start_period: 60s", "start_period: 90s"))
    edit(source / "README.md", ("## Further reading\n", "## Further reading\n\nMore of it.\n"))
    edit(source / ".env.example", ("DEBUG=true\n", "DEBUG=true\n# NEW=1\n"))
    (source / "tests/test_new.py").write_text("def test_new():\n    pass\n")
    return commit(repository, "Change some lines")


def edit_site(site):
    """Commit changes that people make to a site."""
    edit(site / "config/settings.py", ('    "tokens",\n', '    "mine",\n    "tokens",\n'))
    edit(
        site / "tokens/models.py", ("    objects = Token", "    mine = True\n\n    objects = Token")
    )
    edit(site / "compose.yaml", ("volumes:\n  db:\n", "volumes:\n  db:\n  mine:\n"))
    edit(site / "README.md", ('# Ada\'s "site"\n', "# My own title\n"))
    edit(site / "LICENSE", (f"Copyright {YEAR} ", "Copyright 2001 "))  # as if baked in that year
    (site / "mine").mkdir()
    (site / "mine/__init__.py").touch()
    (site / ".editorconfig").unlink()
    return commit(site, "Make it mine")


# Realistic answers, not the defaults.
ANSWERS = {"project_name": 'Ada\'s "site"', "project_slug": "adas", "license": "Apache-2.0"}


@pytest.fixture(params=["create", pytest.param("link", marks=pytest.mark.slow)])
def linked(request, repository, bake, tmp_path):
    """An edited site, made by cruft, or made by Cookiecutter and linked later."""
    answers = ANSWERS | {"django_version": newest_django()}
    arguments = [repository, "--no-input", "--extra-context", json.dumps(answers)]
    if request.param == "create":
        done = cruft(tmp_path, "create", *arguments)
        site = tmp_path / "adas"
    else:
        site = bake(**answers)
        done = cruft(site, "link", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    commit(site, "Link to the template")
    edit_site(site)
    return site


def test_an_update_keeps_peoples_edits(linked, repository):
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
    run(site_environment(linked, newest_django()) / "pytest", "-q", site=linked)


def test_only_lines_that_both_sides_changed_conflict(linked, repository):
    change_template(repository)
    edit(linked / "config/settings.py", ('LANGUAGE_CODE = "en-us"', 'LANGUAGE_CODE = "cs"'))
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


def test_an_update_can_change_an_answer(repository, bake, tmp_path):
    extra = ["--extra-context", json.dumps({"django_version": "5.2"})]
    assert cruft(tmp_path, "create", repository, "--no-input", *extra).returncode == 0
    site = tmp_path / "my_site"
    commit(site, "Link to the template")
    answer = ["--variables-to-update", json.dumps({"django_version": "6.1"})]
    assert cruft(site, "update", "--skip-apply-ask", *answer).returncode == 0
    expected = bake(django_version="6.1")
    for name in FILES:
        if name != ".env":
            # The README links to the template that it was rendered from.
            text = (site / name).read_text().replace(str(repository), str(TEMPLATE))
            assert text == (expected / name).read_text(), name


# Files that moved, or whose content did.
MOVED = [
    "Caddyfile",
    "compose.prod.yaml",
    "config/embedded.py",
    "config/login.py",
    "config/redis.py",
    "config/settings.py",
    "tests/test_login.py",
    "tokens/jobs.py",
    "tokens/static/tokens/site.css",
    "tokens/static/tokens/site.js",
    "tokens/templates/404.html",
    "tokens/templates/base.html",
    "tokens/templatetags/site.py",
]


def test_an_update_over_moved_files_loses_no_edit_and_brings_every_file(
    repository, old_template, tmp_path
):
    git(tmp_path, "init", "--quiet", old_template)
    commit(old_template, "Before the move")
    assert cruft(tmp_path, "create", old_template, "--no-input").returncode == 0
    site = tmp_path / "my_site"
    for name in MOVED:
        (site / name).write_text(f"{(site / name).read_text()}mine: {name}\n")
    commit(site, "Make it mine")
    git(old_template, "rm", "-r", "--quiet", ".")
    ignored = shutil.ignore_patterns(".git")
    shutil.copytree(repository, old_template, ignore=ignored, dirs_exist_ok=True)
    commit(old_template, "Move")

    done = cruft(site, "update", "--skip-apply-ask")
    assert done.returncode == 0, done.stdout + done.stderr
    texts = {name: (site / name).read_text() for name in files(site)}
    for name in MOVED:
        # As CHANGELOG.md says: in the new file, in the old one, or in a .rej file.
        assert any(f"mine: {name}\n" in text for text in texts.values()), name
    assert set(FILES) <= set(texts)
