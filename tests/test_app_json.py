"""app.json follows the schema in Heroku's documentation."""

import json

import jsonschema
import pytest
from support.procfile import read_procfile
from support.template import CHOICES

# The documented part of Heroku's schema for app.json.
ENV = {
    "type": "object",
    "additionalProperties": {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "description": {"type": "string"},
                    "value": {"type": "string"},
                    "required": {"type": "boolean"},
                    "generator": {"const": "secret"},
                },
            },
        ]
    },
}


ADDONS = {
    "type": "array",
    "items": {
        "anyOf": [
            {"type": "string", "pattern": "^[a-z][a-z-]*(:[a-z0-9-]+)?$"},
            {
                "type": "object",
                "additionalProperties": False,
                "required": ["plan"],
                "properties": {"plan": {"type": "string"}, "options": {"type": "object"}},
            },
        ]
    },
}


FORMATION = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "additionalProperties": False,
        "required": ["quantity"],
        "properties": {
            "quantity": {"type": "integer", "minimum": 0},
            "size": {"enum": ["eco", "basic", "standard-1x", "standard-2x"]},
        },
    },
}


ENVIRONMENT = {
    "addons": ADDONS,
    "env": ENV,
    "formation": FORMATION,
    "scripts": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: {"type": "string"}
            for name in ("postdeploy", "pr-predestroy", "test-setup", "test")
        },
    },
}


APP_JSON = {
    "type": "object",
    "additionalProperties": False,
    "properties": ENVIRONMENT
    | {
        "name": {"type": "string", "maxLength": 30},
        "description": {"type": "string", "maxLength": 140},
        "keywords": {"type": "array", "items": {"type": "string"}},
        "stack": {"enum": ["heroku-24", "heroku-26"]},
        "buildpacks": {
            "type": "array",
            "items": {"type": "object", "required": ["url"], "additionalProperties": False}
            | {"properties": {"url": {"type": "string"}}},
        },
        "environments": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                name: {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": ENVIRONMENT,
                }
                for name in ("review", "test")
            },
        },
    },
}


@pytest.mark.parametrize("answers", [{}, {"project_name": "N" * 100, "description": "D" * 200}])
def test_app_json_is_valid(answers, bake):
    site = bake(project_slug="my_site", create_git_repo=False, **answers)
    manifest = json.loads((site / "app.json").read_text())
    jsonschema.validate(manifest, APP_JSON)
    assert set(manifest["formation"]) == set(read_procfile(site)) - {"release"}


@pytest.mark.parametrize("version", CHOICES["postgres_version"])
def test_heroku_gets_the_chosen_postgres_if_it_has_that_version(version, bake):
    site = bake(postgres_version=version, create_git_repo=False)
    manifest = json.loads((site / "app.json").read_text())
    heroku_has_it = version != "18"
    chapter = (site / "docs/heroku.md").read_text()
    assert (f"--wait -- --version={version}\n" in chapter) == heroku_has_it
    assert ("Heroku's newest Postgres" in chapter) == (not heroku_has_it)
    options = {"options": {"version": version}} if heroku_has_it else {}
    addon = {"plan": "heroku-postgresql:essential-0"} | options
    assert manifest["addons"][0] == manifest["environments"]["review"]["addons"][0] == addon
    tested = manifest["environments"]["test"]["env"].get("POSTGRESQL_VERSION")
    assert tested == (version if heroku_has_it else None)
    assert manifest["buildpacks"] == [{"url": "heroku/python"}]  # in-dyno databases need it
