"""Mistakes that otherwise only production shows: a missing static file, a page that fails."""

from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.template.loader import get_template, render_to_string
from django.templatetags.static import StaticNode
from django.test import override_settings
from django.urls import NoReverseMatch, get_resolver, reverse

TEMPLATES = sorted(
    str(path.relative_to(Path(app.path, "templates")))
    for app in apps.get_app_configs()
    if "site-packages" not in app.path
    for path in Path(app.path).glob("templates/**/*.*")
)


@pytest.fixture(scope="session")
def static_root(tmp_path_factory):
    """Collect the static files. This fails if a stylesheet names a missing file."""
    folder = tmp_path_factory.mktemp("static")
    with override_settings(
        STATIC_ROOT=folder,
        STORAGES=settings.PRODUCTION_STORAGES,
        WHITENOISE_SKIP_COMPRESS_EXTENSIONS=["css", "js", "svg"],  # compressing takes seconds
    ):
        call_command("collectstatic", interactive=False, verbosity=0)
    return folder


@pytest.fixture(autouse=True)
def _production(settings, static_root):
    """Use the names that static files have in production."""
    settings.STATIC_ROOT = static_root
    settings.STORAGES = settings.PRODUCTION_STORAGES


@pytest.mark.parametrize("name", TEMPLATES)
def test_static_files_named_in_templates_exist(name):
    template = get_template(name).template
    for node in template.nodelist.get_nodes_by_type(StaticNode):
        assert node.url({}) or node.varname


@pytest.mark.parametrize("name", ["400", "403", "404", "429", "500", "503"])
def test_error_pages_need_no_context(name):
    assert "<h1>" in render_to_string(f"{name}.html")


def urls(patterns, namespace=""):
    """Yield the URLs without arguments."""
    for pattern in patterns:
        if hasattr(pattern, "url_patterns"):
            inner = f"{namespace}{pattern.namespace}:" if pattern.namespace else namespace
            yield from urls(pattern.url_patterns, inner)
        elif pattern.name:
            try:
                yield reverse(f"{namespace}{pattern.name}")
            except NoReverseMatch:
                continue


@pytest.mark.django_db
@pytest.mark.parametrize("url", sorted(urls(get_resolver().url_patterns)))
def test_every_page_renders(client, admin_client, url):
    for visitor in (client, admin_client):
        assert visitor.get(url).status_code != 500
