"""A table like the one of a site that is a year old."""

# Statements that fill the site's table with other visitors' tokens: most of them ready, a few
# pending or failed, and 2500 expired. Building the indexes afterwards is three times as fast.
MILLION_TOKENS = (
    "UPDATE pg_index SET indisready = false WHERE indrelid = 'tokens_token'::regclass",
    "INSERT INTO tokens_token (id, visitor, value, state, created) "
    "SELECT gen_random_uuid(), gen_random_uuid(), repeat('0', 64), "
    "CASE number % 50000 WHEN 0 THEN 'pending' WHEN 1 THEN 'failed' ELSE 'ready' END, "
    "now() - CASE WHEN number <= 2500 THEN interval '25 hours' "
    "ELSE random() * interval '23 hours' END FROM generate_series(1, 1000000) number",
    "REINDEX TABLE tokens_token",
    "VACUUM ANALYZE tokens_token",
)
