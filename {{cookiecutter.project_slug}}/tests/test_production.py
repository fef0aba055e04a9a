"""Mistakes that otherwise only production shows: a missing static file, a page that fails."""

from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.management import call_command
from django.http import HttpResponse
from django.template.loader import get_template, render_to_string
from django.templatetags.static import StaticNode
from django.test import override_settings
from django.urls import NoReverseMatch, get_resolver, reverse

from config.middleware import StaticFilesMiddleware, StaticFilesStorage

pytestmark = pytest.mark.django_db  # Django looks at the connection when a request ends


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


@pytest.fixture
def production(settings, static_root):
    """Use the names that static files have in production."""
    settings.STATIC_ROOT = static_root
    settings.STORAGES = settings.PRODUCTION_STORAGES


@pytest.fixture
def get(rf, settings, production):
    """Return a function that gets an address below /static/ as in production."""
    settings.WHITENOISE_AUTOREFRESH = False
    middleware = StaticFilesMiddleware(lambda request: HttpResponse("page", status=404))

    def get(path):
        response = middleware(rf.get(path))
        response.body = b"".join(response)
        response.close()
        return response

    return get


def test_this_versions_file_is_cached_forever(get):
    response = get(staticfiles_storage.url("config/site.css"))
    assert "immutable" in response["Cache-Control"]


@pytest.mark.parametrize("name", ["config/site.css", "config/site.js", "admin/css/base.css"])
def test_another_versions_file_is_answered_with_this_ones_and_not_cached(get, name):
    stem, _, suffix = name.rpartition(".")
    response = get(f"/static/{stem}.0123456789ab.{suffix}")
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-cache"
    assert response.body == get(staticfiles_storage.url(name)).body


@pytest.mark.parametrize(
    "path",
    [
        "/static/config/gone.0123456789ab.css",
        "/static/config/site.0123456789ab.css.map",
        "/static/config.0123456789ab.d/site.css",
        "/static/",
        "/static/../manage.py",
        "/static///[.css",
        "/static/config/\0.css",
    ],
)
def test_an_unknown_file_is_not_found(get, path):
    assert get(path).status_code == 404


def test_a_static_url_has_a_hash_and_is_made_once():
    storage = StaticFilesStorage(base_url="/static/")
    storage.hashed_files = {"site.css": "site.0123.css"}
    assert storage.url("site.css") == "/static/site.0123.css"
    storage.hashed_files = {}
    assert storage.url("site.css") == "/static/site.0123.css"


# --- Every template and page ----------------------------------------------------------------------

TEMPLATES = sorted(
    str(path.relative_to(Path(app.path, "templates")))
    for app in apps.get_app_configs()
    if "site-packages" not in app.path
    for path in Path(app.path).glob("templates/**/*.*")
)


@pytest.mark.usefixtures("production")
@pytest.mark.parametrize("name", TEMPLATES)
def test_static_files_named_in_templates_exist(name):
    template = get_template(name).template
    for node in template.nodelist.get_nodes_by_type(StaticNode):
        assert node.url({}) or node.varname


@pytest.mark.usefixtures("production")
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


@pytest.mark.usefixtures("production")
@pytest.mark.parametrize("url", sorted(urls(get_resolver().url_patterns)))
def test_every_page_renders(client, admin_client, url):
    for visitor in (client, admin_client):
        assert visitor.get(url).status_code != 500
