"""Git and pip with their owners' configuration."""

import os
import subprocess
import sys

import pytest
from support.commands import cookiecutter, git, make
from support.template import FILES

IDENTITY = "[user]\nname = Tester\nemail = tester@example.com\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with a Git identity, and what the test writes there."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(IDENTITY)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return home


def configure(home, text):
    (home / ".gitconfig").write_text(IDENTITY + text)


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("place", ["core.excludesFile", "~/.config/git/ignore", "init.templateDir"])
def test_the_first_commit_does_not_use_the_owners_ignore_file(home, tmp_path, place):
    ignored = ".python-version\n.env.*\nMakefile\n*.txt\n"
    if place == "core.excludesFile":
        (home / "ignore").write_text(ignored)
        configure(home, f"[core]\nexcludesFile = {home}/ignore\n")
    elif place == "init.templateDir":
        (home / "template/info").mkdir(parents=True)
        (home / "template/info/exclude").write_text(ignored)
        configure(home, f"[init]\ntemplateDir = {home}/template\n")
    else:
        (home / ".config/git").mkdir(parents=True)
        (home / ".config/git/ignore").write_text(ignored)
    done = cookiecutter(tmp_path, "--no-input")
    assert done.stderr == ""
    assert git(tmp_path / "my_site", "ls-files").split() == [f for f in FILES if f != ".env"]


def test_the_first_commit_does_not_use_the_owners_attributes(home, tmp_path):
    (home / "attributes").write_text("* -text working-tree-encoding=UTF-16\n")
    configure(home, f"[core]\nattributesFile = {home}/attributes\n")
    assert cookiecutter(tmp_path, "--no-input").stderr == ""


def test_a_server_side_hook_may_bake_a_site(home, tmp_path):
    """Git sets this in pre-receive hooks, and refuses to change branches where it is set."""
    environment = os.environ | {"GIT_QUARANTINE_PATH": str(tmp_path)}
    assert cookiecutter(tmp_path, "--no-input", env=environment).stderr == ""


def test_a_site_does_not_get_the_hooks_of_the_owners_git_template(home, tmp_path):
    script(home / "template/hooks/pre-commit", "exit 1")
    configure(home, f"[init]\ntemplateDir = {home}/template\n")
    assert cookiecutter(tmp_path, "--no-input").stderr == ""


def refused_commit(home, tmp_path, **environment):
    """Bake where Git refuses to commit; return the reason in the line's brackets."""
    done = cookiecutter(tmp_path, "--no-input", env=os.environ | environment)
    assert done.returncode == 0
    assert "make dev" in done.stdout
    (line,) = done.stderr.splitlines()
    start, end = "Git made no first commit (", "). Fix that, then run: "
    assert line.startswith(start)
    reason, _, command = line.removeprefix(start).partition(end)
    assert "user.name" not in command
    return reason, command


def test_a_missing_signing_key_is_reported(home, tmp_path):
    configure(home, "[commit]\ngpgSign = true\n[gpg]\nprogram = /bin/false\n")
    reason, command = refused_commit(home, tmp_path)
    assert "failed to sign" in reason
    configure(home, "")
    subprocess.run(f"{command} --quiet -m x", shell=True, cwd=tmp_path / "my_site", check=True)
    assert git(tmp_path / "my_site", "ls-files").split() == [f for f in FILES if f != ".env"]


@pytest.mark.parametrize(
    ("hook", "said"),
    [("echo 'Name a ticket.' >&2; exit 1", "Name a ticket."), ("exit 1", "no reason")],
)
def test_the_message_of_the_owners_hook_is_reported(home, tmp_path, hook, said):
    script(home / "hooks/pre-commit", hook)
    configure(home, f"[core]\nhooksPath = {home}/hooks\n")
    reason, _ = refused_commit(home, tmp_path)
    assert said in reason


def test_a_folder_with_another_owner_is_reported(home, tmp_path):
    reason, _ = refused_commit(home, tmp_path, GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert "dubious ownership" in reason


@pytest.mark.slow
@pytest.mark.parametrize("how", ["environment", "file"])
def test_make_installs_into_its_environment_despite_pips_configuration(bake, home, tmp_path, how):
    site = bake()
    variables = {"PIP_REQUIRE_VIRTUALENV": "true"}
    if how == "environment":
        variables |= {"PIP_USER": "true", "PIP_TARGET": str(home / "target")}
        variables |= {"PIP_PREFIX": str(home / "prefix"), "PIP_ROOT": str(home / "tree")}
        variables |= {"PIP_DRY_RUN": "true", "PIP_PYTHON": sys.executable}
    else:
        (home / ".config/pip").mkdir(parents=True)
        (home / ".config/pip/pip.conf").write_text("[install]\nuser = true\n")
    process, _ = make(site, "install", tmp_path / "log", **variables)
    with process:
        assert process.wait(300) == 0, process.output
    assert (site / ".venv/bin/pytest").exists()
    assert not list(home.glob("[tp]*"))


@pytest.mark.slow
def test_make_says_so_if_pip_installs_elsewhere(bake, home, tmp_path):
    site = bake()
    (site / "requirements-dev.txt").write_text("")  # quicker
    process, _ = make(site, "install", tmp_path / "log")
    with process:
        assert process.wait(300) == 2
    assert "pip installed elsewhere: see pip config list" in process.output.splitlines()[-2]
    assert not (site / ".venv/installed").exists()
