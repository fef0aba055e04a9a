-- wrk sends these: a form with its CSRF token, from a visitor without a cookie of the site's own.
wrk.method = "POST"
wrk.headers["Cookie"] = "csrftoken=abcdefghijklmnopqrstuvwxyzABCDEF"
wrk.headers["X-CSRFToken"] = "abcdefghijklmnopqrstuvwxyzABCDEF"
