#!/usr/bin/env bash
# Production on this machine: `make deploy`, `rollback`, `backup`, `restore` and `watch` call this.
# docs/servers.md explains it.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

KEEP_RELEASES=5    # images to go back to
LAST_BACKUP=26     # hours; older is an alarm
CERTIFICATE_DAYS=14 # a certificate that ends sooner is an alarm
DISK_PERCENT=85    # a disk that is fuller is an alarm

say() { echo "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

now() { date -u +%Y-%m-%dT%H-%M-%SZ; }

# setting NAME DEFAULT: the variable as Compose sees it, from the environment or from .env.
setting() {
    echo "services: {x: {image: \"=\${$1:-$2}\"}}" | docker compose --file - config --images | sed 's/^=//'
}

uses_postgres() { grep -qx db <<<"$services"; }

in_redis() { docker compose exec --no-TTY redis redis-cli; }

in_postgres() { docker compose exec --no-TTY db "$@"; }

sql() {
    in_postgres env PGOPTIONS=--client-min-messages=warning \
        psql --username=postgres --quiet --set=ON_ERROR_STOP=1 --dbname="$1"
}

in_caddy() { docker compose exec --no-TTY caddy "$@"; }

# A container of the site's image, with its database and without its servers' starting first.
in_site() { docker compose run --rm --no-deps --no-TTY migrate "$@"; }

# --- Secrets --------------------------------------------------------------------------------------

# Write the secrets that are missing. Those that data depends on are made where there is none yet.
make_secrets() {
    local volume=${name}_data secret
    if uses_postgres; then volume=${name}_db; fi
    for secret in secret_key postgres_password; do
        if [ ! -e "secrets/$secret" ] && docker volume inspect "$volume" >/dev/null 2>&1; then
            fail "secrets/$secret is missing, but there is data in the volume $volume: put your copy" \
                "of secrets/ back, or remove the volume if you want to start afresh."
        fi
    done
    mkdir -p -m 700 secrets
    for secret in secret_key postgres_password redis_password; do
        [ -e "secrets/$secret" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"secrets/$secret"
        [ "$(tr -d '[:space:]' <"secrets/$secret" | grep -Ecx '[A-Za-z0-9_-]{16,}')" = 1 ] ||
            [ "$secret" = secret_key ] ||
            fail "secrets/$secret must be at least 16 letters, digits, - or _: they stand in a URL."
    done
    for secret in secret_key_fallbacks email_url; do
        [ -e "secrets/$secret" ] || : >"secrets/$secret"
    done
}

password() { tr -d '[:space:]' <"secrets/$1_password"; }

# Each password of Postgres has a login of its own, so that old and new containers can both log in.
login() { echo "site_$(password postgres | sha256sum | cut -c1-8)"; }

# Copy the secrets for a release: a file that is edited later changes no container that restarts.
# Whoever the containers run as may read the copies; the folder keeps everybody else out.
copy_secrets() {
    local folder=secrets/releases/$1 file
    mkdir -p "$folder"
    for file in secrets/*; do
        if [ -f "$file" ]; then cat "$file" >"$folder/${file##*/}"; fi
    done
    echo "postgres://$(login):$(password postgres)@db:5432/site" >"$folder/database_url"
    echo "redis://:$(password redis)@redis:6379/0" >"$folder/redis_url"
}

# set_redis_passwords CURRENT PASSWORD...: let Redis accept the passwords. `health` may only ping.
set_redis_passwords() {
    local current=$1
    shift
    {
        printf 'user default on ~* &* +@all'
        printf ' >%s' "$@"
        printf '\nuser health on nopass resetkeys -@all +ping\n'
    } >secrets/releases/redis_users # written in place: the container has this very file
    up redis
    [ "$(printf "AUTH %s\nACL LOAD\n" "$current" | in_redis | xargs)" = "OK OK" ] ||
        fail "Redis did not accept its passwords."
}

# The site owns its database and is nothing more to Postgres. Whoever logs in becomes the role `site`.
make_login() {
    sql site <<SQL
SELECT 'CREATE ROLE site NOLOGIN' WHERE to_regrole('site') IS NULL \gexec
SELECT 'CREATE ROLE $(login) LOGIN IN ROLE site' WHERE to_regrole('$(login)') IS NULL \gexec
ALTER ROLE $(login) PASSWORD '$(password postgres)';
ALTER ROLE $(login) SET role TO site;
ALTER DATABASE site OWNER TO site;
-- Tables from the time when the site was a superuser.
SELECT format('ALTER TABLE %s OWNER TO site', oid::regclass) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
AND relowner = 'postgres'::regrole \gexec
SQL
}

# The superuser needs no password: it logs in from inside its container.
drop_other_logins() {
    sql site <<SQL
SELECT format('DROP ROLE %I', rolname) FROM pg_roles
WHERE rolname ~ '^site_[0-9a-f]{8}\$' AND rolname <> '$(login)' \gexec
ALTER ROLE postgres PASSWORD NULL;
SQL
}

# --- Releases: an image and a copy of the secrets ---------------------------------------------------

# What ends, or is not healthy within two minutes, is a failure.
up() {
    docker compose up --detach --wait --wait-timeout 120 --no-deps "$@" && return
    docker compose logs --tail 20 "$@" >&2
    return 1
}

# The worker first, so that it knows every job that a new web may ask for. Six seconds after one web
# came back Caddy has seen it: it looks once a second, and waits for an answer up to five.
replace() {
    local service
    for service in worker clock web-a web-b; do
        up "$service"
        if [ "$service" = web-a ]; then sleep 6; fi
    done
}

# ask CONTAINER HOST PORT DOMAIN PATH LIMIT: ask the host, from inside the container, for a page of the
# domain; fail unless the status is below the limit.
ask() {
    docker exec --interactive "$1" python - "${@:2}" <<'PYTHON'
import socket, ssl, sys
from http.client import HTTPConnection

host, port, domain, path, limit = sys.argv[1:]
connection = HTTPConnection(domain)
try:
    connection.sock = socket.create_connection((host, port), 15)
    if port == "443":
        # Not verified: for localhost Caddy is its own authority. No certificate, no connection.
        context = ssl._create_unverified_context()
        connection.sock = context.wrap_socket(connection.sock, server_hostname=domain)
    connection.request("GET", path, headers={"X-Forwarded-Proto": "https"})
    status = connection.getresponse().status
except OSError as error:
    sys.exit(f"{path} of {domain}: {error}")
if status >= int(limit):
    sys.exit(f"{path} of {domain} answers with {status}")
PYTHON
}

# Start a web of the new version that no visitor reaches, and ask it.
try_out() {
    docker compose run --detach --no-deps --name "$trial" web-a >/dev/null
    for _ in {1..60}; do
        docker inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$trial" |
            grep -qx 'running starting' || break
        sleep 1
    done
    if ! { ask "$trial" localhost 8000 "${domain%%,*}" /readyz 300 &&
        ask "$trial" localhost 8000 "${domain%%,*}" / 500; }; then
        docker logs --tail 40 "$trial" >&2
        fail "The new version does not work: nothing was replaced."
    fi
    docker rm --force "$trial" >/dev/null
}

# Ask for every domain through Caddy. A new certificate may take a minute.
ask_domains() {
    local web one
    web=$(docker compose ps --quiet web-a)
    for one in ${domain//,/}; do
        for _ in {1..30}; do
            ask "$web" caddy 443 "$one" / 500 2>/dev/null && continue 2
            sleep 2
        done
        ask "$web" caddy 443 "$one" / 500 || fail "Does $one lead to this machine?"
    done
}

# From here on plain `docker compose` means this release.
set_live() {
    docker tag "$name:$1" "$name:live"
    echo "RELEASE=$1" >deploy/.env.new
    mv deploy/.env.new deploy/.env
    live=$1
}

# An old web cannot read what a new web signs with a new key: let it accept that key beforehand, as one
# more fallback. A key whose predecessor is no fallback has leaked, and is replaced at once.
introduce_key() {
    local before=secrets/releases/$live new
    new=$(now)-key
    [ -n "$live" ] && ! cmp --quiet "$before/secret_key" secrets/secret_key &&
        grep --quiet --fixed-strings -e "$(cat "$before/secret_key")" secrets/secret_key_fallbacks ||
        return 0
    cp -r "$before" "secrets/releases/$new"
    { cat secrets/secret_key && echo && cat "$before/secret_key_fallbacks"; } | grep . |
        paste --serial --delimiters=, >"secrets/releases/$new/secret_key_fallbacks"
    docker tag "$name:$live" "$name:$new"
    RELEASE=$new up web-a
    sleep 6
    RELEASE=$new up web-b
    set_live "$new"
}

# release NAME IMAGE: put the image and the secrets of that name in the place of what is live. What
# fails before `replace` has changed nothing; what fails later is put back, see `clean_up`.
release() {
    local current
    current=$(sed -n 's,^redis://:\(.*\)@.*,\1,p' "secrets/releases/$live/redis_url" 2>/dev/null || true)
    current=${current:-$(password redis)}
    docker tag "$2" "$name:$1"
    export RELEASE=$1
    # In its container even root reads only what everybody may.
    chmod a+r deploy/Caddyfile
    docker compose run --rm --no-deps --no-TTY caddy caddy validate \
        --config /etc/caddy/Caddyfile --adapter caddyfile >/dev/null
    set_redis_passwords "$current" "$current" "$(password redis)"
    if uses_postgres; then
        up db
        make_login
    fi
    docker compose run --rm --no-TTY migrate
    try_out

    replacing=yes
    introduce_key
    replace
    up caddy
    in_caddy rm -f /tmp/closed
    in_caddy caddy reload --config /etc/caddy/Caddyfile --adapter caddyfile
    ask_domains
    set_live "$RELEASE"
    replacing=

    set_redis_passwords "$(password redis)" "$(password redis)"
    if uses_postgres; then drop_other_logins; fi
    remove_old_releases
    say "$RELEASE is live."
}

image_id() { docker image inspect --format '{{.Id}}' "$name:$1" 2>/dev/null; }

releases() { docker image ls --format '{{.Tag}}' "$name" | grep '^20' | sort --reverse; }

remove_old_releases() {
    local old
    for old in $(releases | tail --lines=+$((KEEP_RELEASES + 1))); do
        docker image rm "$name:$old" >/dev/null || true # in use
    done
    find secrets/releases -mindepth 1 -maxdepth 1 -type d ! -name "$RELEASE" -exec rm -r {} +
}

deploy() {
    local commit new
    commit=$(git rev-parse --short HEAD 2>/dev/null || true)
    new=$(now)${commit:+-$commit}
    docker build --tag "$name:$new" .
    copy_secrets "$new"
    # The same image and the same secrets: what runs may go on.
    if [ "$(image_id "$new")" = "$(image_id "$live")" ] &&
        diff --recursive --brief "secrets/releases/$new" "secrets/releases/$live" >/dev/null 2>&1; then
        docker image rm "$name:$new" >/dev/null
        rm -r "secrets/releases/$new"
        new=$live
    fi
    release "$new" "$name:$new"
}

# Back to a version, or to the newest one whose image is not the live one.
rollback() {
    local version=${1:-} candidate
    if [ -z "$version" ]; then
        for candidate in $(releases); do
            [ "$(image_id "$candidate")" = "$(image_id live)" ] || version=${version:-$candidate}
        done
    fi
    image_id "${version:-none}" >/dev/null || fail "No such version. There are: $(releases | xargs)"
    copy_secrets "$(now)${version#*Z}"
    release "$(now)${version#*Z}" "$name:$version"
}

# --- Data -----------------------------------------------------------------------------------------

backup() {
    local keep=${1:-} file old
    case $keep in *[!0-9]* | 0) fail "KEEP says how many backups to keep: a number, at least 1." ;; esac
    mkdir -p -m 700 backups
    file=backups/$(now)
    [ ! -e "$file" ] || fail "$file exists already."
    umask 077
    if uses_postgres; then
        in_postgres pg_dump --format=custom site >backups/partial
        in_postgres pg_restore --file=/dev/null <backups/partial
    else
        in_site python -m config.sqlite backup /data/db.sqlite3 >backups/partial
        in_site python -m config.sqlite check <backups/partial
    fi
    mv backups/partial "$file"
    echo "$file"
    if [ -n "$keep" ]; then
        for old in $(printf '%s\n' backups/20*Z | sort --reverse | tail --lines=+$((keep + 1))); do
            rm -v "$old"
        done
    fi
}

# Load the backup beside the site's database, under the name `restored`.
load() {
    if uses_postgres; then
        echo 'DROP DATABASE IF EXISTS restored WITH (FORCE);' | sql postgres
        if [ "$1" = previous ]; then
            echo 'ALTER DATABASE previous RENAME TO restored;' | sql postgres
        else
            echo 'CREATE DATABASE restored OWNER site;' | sql postgres
            in_postgres pg_restore --exit-on-error --no-owner --no-privileges --role=site \
                --username="$(sed 's,.*//\(.*\):.*@.*,\1,' "secrets/releases/$live/database_url")" \
                --dbname=restored <"$1"
        fi
    elif [ "$1" = previous ]; then
        in_site mv /data/previous.sqlite3 /data/restored.sqlite3
    else
        in_site python -m config.sqlite check <"$1"
        in_site sh -c 'rm -f /data/restored.sqlite3* && cat >/data/restored.sqlite3' <"$1"
    fi
}

# Migrate what was loaded to the live version, if it is this site's.
accept() {
    local url='sqlite:////data/restored.sqlite3'
    # shellcheck disable=SC2016  # for the shell in the container
    if uses_postgres; then url='$(sed s,/site$,/restored, /run/secrets/database_url)'; fi
    in_site sh -c "DATABASE_URL_FILE= DATABASE_URL=$url python manage.py acceptbackup"
}

# Nobody uses either database now.
exchange() {
    if uses_postgres; then
        sql postgres <<'SQL'
DROP DATABASE IF EXISTS previous WITH (FORCE);
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ('site', 'restored') \g /dev/null
BEGIN;
ALTER DATABASE site RENAME TO previous;
ALTER DATABASE restored RENAME TO site;
COMMIT;
SQL
    else
        in_site sh -c 'cd /data && python -m config.sqlite copy db.sqlite3 previous.sqlite3 &&
            python -m config.sqlite copy restored.sqlite3 db.sqlite3 && rm restored.sqlite3*'
    fi
}

# Undo `load`.
unload() {
    local back='DROP DATABASE IF EXISTS restored WITH (FORCE);'
    if [ "$1" = previous ]; then back='ALTER DATABASE restored RENAME TO previous;'; fi
    if uses_postgres; then
        echo "$back" | sql postgres
    elif [ "$1" = previous ]; then
        in_site mv /data/restored.sqlite3 /data/previous.sqlite3
    else
        in_site sh -c 'rm -f /data/restored.sqlite3*'
    fi
}

# The site says 503 while its database is exchanged.
restore() {
    [ "${1:-}" = previous ] || [ -f "${1:-}" ] ||
        fail "Say which: make restore FILE=backups/... (or FILE=previous, to undo the last restore)."
    [ -n "$live" ] || fail "There is no site here yet: make deploy."
    loaded=$1
    load "$1"
    accept
    closed=yes
    in_caddy touch /tmp/closed
    docker compose stop web-a web-b worker clock
    exchange
    loaded=
    open_again
    say "Restored. make restore FILE=previous brings back what was there before."
}

open_again() {
    up web-a web-b worker clock
    in_caddy rm -f /tmp/closed
    closed=
}

# --- Watching -------------------------------------------------------------------------------------

# Print what needs somebody, and fail if there is anything.
watch() {
    local one web port troubles
    troubles=$(
        web=$(docker compose ps --quiet web-a)
        port=$(docker compose port caddy 443 | sed 's/.*://')
        docker compose ps --all --format '{{.Service}} {{.Status}}' |
            grep -Ev '^migrate |\(healthy\)|\(health: starting\)' || true
        for one in ${domain//,/}; do
            ask "$web" caddy 443 "$one" /readyz 300 2>&1 || true
            ask "$web" caddy 443 "$one" /jobs/health/ 300 2>&1 || true
            case $one in localhost | *.localhost) continue ;; esac
            openssl s_client -connect "localhost:$port" -servername "$one" </dev/null 2>/dev/null |
                openssl x509 -noout -checkend $((CERTIFICATE_DAYS * 86400)) >/dev/null ||
                echo "The certificate of $one ends within $CERTIFICATE_DAYS days."
        done
        [ -n "$(find backups -name '20*Z' -mmin -$((LAST_BACKUP * 60)) 2>/dev/null)" ] ||
            echo "The newest backup is older than $LAST_BACKUP hours."
        df --output=pcent,target . /var/lib/docker 2>/dev/null | sort --unique |
            awk -v most=$DISK_PERCENT '$1 + 0 > most {print "The disk of " $2 " is " $1 " full."}'
    )
    [ -z "$troubles" ] || fail "$troubles"
}

# --------------------------------------------------------------------------------------------------

replacing='' # what has to be put back if this fails
loaded=''
closed=''

clean_up() {
    local status=$?
    set +e
    docker rm --force "${trial:-none}" >/dev/null 2>&1
    rm -f backups/partial
    if [ -n "$replacing" ] && [ -n "$live" ]; then
        say "Putting $live back ..."
        RELEASE=$live replace
    fi
    if [ -n "$loaded" ]; then unload "$loaded"; fi
    if [ -n "$closed" ]; then open_again; fi
    exit $status
}

touch -a .env deploy/.env
COMPOSE_FILE=$(setting COMPOSE_FILE deploy/compose.yaml)
# Named, because with COMPOSE_FILE in the environment Compose would read the second one alone.
export COMPOSE_FILE COMPOSE_ENV_FILES=.env,deploy/.env
domain=$(setting DOMAIN '')
host='[a-z0-9]([a-z0-9.-]*[a-z0-9])?'
[[ $domain =~ ^$host(, $host)*$ ]] ||
    fail "DOMAIN in .env must be a name like www.example.org, or several with a comma and a space between."
services=$(docker compose config --services)
name=$(docker compose config --no-interpolate | sed -n 's/^name: //p')
trial=$name-trial

if [ "$1" != watch ]; then
    exec 9<deploy
    if ! flock --nonblock 9; then
        say "Another deploy, backup or restore is under way here: waiting for it to end."
        flock 9
    fi
    trap clean_up EXIT
    make_secrets
fi
live=$(sed -n 's/^RELEASE=//p' deploy/.env 2>/dev/null || true)
"$@"
