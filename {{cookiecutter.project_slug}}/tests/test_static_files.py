import pytest
from django.conf import settings as django_settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.management import call_command
from django.http import HttpResponse

from config.middleware import StaticFilesMiddleware
from config.storage import StaticFilesStorage

pytestmark = pytest.mark.django_db  # Django looks at the connection when a request ends


@pytest.fixture
def get(rf, settings, tmp_path):
    """Return a function that gets an address below /static/ as in production."""
    settings.STATIC_ROOT = tmp_path
    backend = {"BACKEND": "config.storage.StaticFilesStorage"}
    settings.STORAGES = django_settings.STORAGES | {"staticfiles": backend}
    settings.WHITENOISE_AUTOREFRESH = False
    call_command("collectstatic", verbosity=0, interactive=False)
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
