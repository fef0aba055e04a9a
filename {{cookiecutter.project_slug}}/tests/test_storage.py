from config.storage import StaticFilesStorage


def test_a_static_file_has_its_hash_in_its_url_which_is_made_once():
    storage = StaticFilesStorage(base_url="/static/")
    storage.hashed_files = {"site.css": "site.0123.css"}
    assert storage.url("site.css") == "/static/site.0123.css"
    storage.hashed_files = {}
    assert storage.url("site.css") == "/static/site.0123.css"
