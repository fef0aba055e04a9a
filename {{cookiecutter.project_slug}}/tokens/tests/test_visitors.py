from tokens import visitors


def test_over_https_the_cookie_has_the_prefix_that_keeps_it_to_this_host(settings):
    assert visitors.cookie_name() == "visitor"
    settings.SESSION_COOKIE_SECURE = True
    assert visitors.cookie_name() == "__Host-visitor"
