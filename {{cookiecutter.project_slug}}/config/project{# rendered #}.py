"""The site's name and description."""

{% from "quoted.jinja" import quoted -%}
SITE_NAME = {{ quoted(cookiecutter.project_name) }}  # fmt: skip
SITE_DESCRIPTION = {{ quoted(cookiecutter.description) }}  # fmt: skip
