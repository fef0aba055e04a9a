from config.storage import StaticFilesStorage


def test_a_static_url_has_a_hash_and_is_made_once():
    storage = StaticFilesStorage(base_url="/static/")
    storage.hashed_files = {"site.css": "site.0123.css"}
    assert storage.url("site.css") == "/static/site.0123.css"
    storage.hashed_files = {}
    assert storage.url("site.css") == "/static/site.0123.css"
