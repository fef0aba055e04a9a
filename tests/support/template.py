"""The template, its questions, and checks of a rendered site."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import yaml

TEMPLATE = Path(__file__).parents[2]
SOURCE = TEMPLATE / "{{cookiecutter.project_slug}}"
FILES = (TEMPLATE / "tests/files.txt").read_text().split()

DEFAULTS = json.loads((TEMPLATE / "cookiecutter.json").read_text())
QUESTIONS = [name for name in DEFAULTS if not name.startswith("_")]
CHOICES = {name: DEFAULTS[name] for name in QUESTIONS if isinstance(DEFAULTS[name], list)}
DJANGO_VERSIONS = CHOICES["django_version"]


def literal(answer):
    """Return the argument that makes `bake` use exactly this answer.

    Cookiecutter renders answers that are not typed as templates.
    """
    return "{{ " + ascii(answer) + " }}"


def copy_template(folder):
    """Copy the template into the folder, without files that Git ignores; return the folder."""
    ignored = shutil.ignore_patterns(".git", ".venv", ".cache", ".demo", "__pycache__")
    shutil.copytree(TEMPLATE, folder, ignore=ignored)
    return folder


def files(site):
    """Return the sorted paths of a site's files, without those of .git."""
    return sorted(
        str(path.relative_to(site))
        for path in site.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(site).parts
    )


def check_tree(site):
    """Assert that every file parses, and that no Jinja is left."""
    for name in files(site):
        text = (site / name).read_text(encoding="utf-8")
        assert not re.search(r"[{][{%][^}]*cookiecutter\.", text), name
        assert not text or text.endswith("\n"), name
        assert "\r" not in text, name
        if name.endswith(".py"):
            compile(text, name, "exec")
        elif name.endswith((".yaml", ".yml")):
            assert yaml.load(text, yaml.CSafeLoader), name
        elif name.endswith(".toml"):
            assert tomllib.loads(text), name
        elif name.endswith(".json"):
            assert json.loads(text), name
