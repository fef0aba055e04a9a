{% include "config-" ~ cookiecutter.django_version ~ ".py" -%}
