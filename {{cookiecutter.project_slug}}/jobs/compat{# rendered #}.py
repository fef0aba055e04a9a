{% include "jobs-" ~ cookiecutter.django_version ~ ".py" -%}
