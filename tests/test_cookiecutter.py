"""Cookiecutter's command line: where answers and templates come from, and on which machines."""

import json
import os
import shutil
import subprocess

import pytest
from jinja2 import Environment, FileSystemLoader
from support.commands import BIN, cookiecutter, git, run
from support.processes import cannot_run
from support.pythons import environment_of, find_pythons, newest_django, site_environment
from support.template import FILES, TEMPLATE, check_tree, files


def test_prompts_ask_and_answers_are_used(tmp_path):
    typed = 'Typed {7*7}\ntyped_site\nIt\'s "quoted".\nAda\nada@example.com\n2\n2\n3\n1\nn\n'
    done = cookiecutter(tmp_path, input=typed)
    assert done.returncode == 0, done.stderr
    assert "Name of the site" in done.stdout
    assert "5.2 LTS, supported until April 2028" in done.stdout
    site = tmp_path / "typed_site"
    assert (site / "README.md").read_text().startswith("# Typed {7*7}\n")
    assert (site / ".python-version").read_text() == "3.12\n"
    assert not (site / ".git").exists()


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
            if name not in {".env", "README.md"}:  # which names where it came from
                assert (site / name).read_bytes() == (sites[0] / name).read_bytes()
    for site, template in zip(sites, [repository, zip_file], strict=False):
        assert f'\nuvx cruft link "{template}" ' in (site / "README.md").read_text()


@pytest.mark.parametrize(
    ("template", "address"),
    [
        ("gh:ada/site", "https://github.com/ada/site"),
        ("https://user:secret@github.com/ada/site@2.git", "https://github.com/ada/site@2.git"),
        ("git@github.com:ada/site.git", "git@github.com:ada/site.git"),
        ("/home/ada/a site", "/home/ada/a site"),
    ],
)
def test_a_site_names_its_template_without_a_password(template, address):
    environment = Environment(loader=FileSystemLoader(TEMPLATE / "templates"))
    assert environment.get_template("public.jinja").module.public(template) == address


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
    # Cookiecutter keeps no secret.
    key = (first / ".env").read_text().partition("SECRET_KEY=")[2].split("\n")[0]
    for path in replay.iterdir():
        assert key not in path.read_text()


def test_it_bakes_with_any_umask_path_and_encoding(tmp_path):
    folder = tmp_path / "Žluťoučký kůň & Co's “sites”"
    folder.mkdir()
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    django = newest_django()
    answer = f"django_version={django}"
    done = cookiecutter(folder, "--no-input", answer, umask=0o077, env=environment)
    assert done.returncode == 0, done.stderr
    site = folder / "my_site"
    check_tree(site)
    assert git(site, "status", "--porcelain") == ""
    assert site.stat().st_mode & 0o777 == 0o700
    bin_ = site_environment(site, django)
    run(bin_ / "pytest", "-q", "tests/test_pages.py", "tests/test_settings.py", site=site)


def test_it_bakes_without_a_network(tmp_path):
    unshare = ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        cannot_run("unshare makes no network namespace here: it is Linux's, and may be forbidden")
    command = [*unshare, BIN / "cookiecutter"]
    command += [str(TEMPLATE), "--no-input", "--output-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "my_site") == FILES


def test_an_abbreviation_for_a_repository_works(repository, tmp_path):
    """Like `gh:name`. The configuration points the abbreviation at a local repository."""
    config = tmp_path / "config.yaml"
    abbreviations = {"gh": f"file://{tmp_path}/{{0}}.git"}
    clones = tmp_path / "clones"
    clones.mkdir()
    git(tmp_path, "clone", "--quiet", "--bare", repository, "template.git")
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
