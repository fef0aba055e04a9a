"""app.json, by the part of Heroku's schema that is in its documentation."""

import json

import jsonschema
import pytest
from support.procfile import read_procfile

# The part of Heroku's schema of app.json that is in its documentation.
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
    "items": {"type": "string", "pattern": "^[a-z][a-z-]*(:[a-z0-9-]+)?$"},
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
