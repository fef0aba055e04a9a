from tokens import visitors


def test_over_https_the_cookie_has_the_host_prefix(settings):
    assert visitors.cookie_name() == "visitor"
    settings.SESSION_COOKIE_SECURE = True
    assert visitors.cookie_name() == "__Host-visitor"
