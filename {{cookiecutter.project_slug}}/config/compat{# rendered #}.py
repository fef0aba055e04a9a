"""The site's name and description, and names that differ between Django's versions."""

{% from "quoted.jinja" import quoted -%}
{% include "compat-" ~ cookiecutter.django_version ~ ".py" %}

SITE_NAME = {{ quoted(cookiecutter.project_name) }}  # fmt: skip
SITE_DESCRIPTION = {{ quoted(cookiecutter.description) }}  # fmt: skip
