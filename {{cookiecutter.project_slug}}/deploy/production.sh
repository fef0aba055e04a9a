#!/usr/bin/env bash
# Production on this machine: `make deploy`, `rollback`, `backup`, `restore` and `watch` call this.
# docs/servers.md explains it.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
# Settings come from .env, not from exported variables.
# shellcheck disable=SC2046  # splitting is intended
unset $(sed -nE 's/^    ([A-Z_]+):$/\1/p' deploy/compose.yaml)

KEEP_RELEASES=5    # images to keep for rollbacks
LAST_BACKUP=26     # hours; `watch` reports an older one
CERTIFICATE_DAYS=14 # `watch` reports a certificate that ends sooner
DISK_PERCENT=85    # `watch` reports a fuller disk
# The site's own services, in the order of a deploy. The worker is first, because it must know every
# task that a new web container may enqueue.
SITE=(worker clock web-a web-b)

say() { echo "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

now() { date -u +%Y-%m-%dT%H-%M-%SZ; }

# setting NAME DEFAULT: print the variable as Compose sees it, from the environment or .env.
setting() {
    echo "services: {x: {image: \"=\${$1:-$2}\"}}" | docker compose --project-name x --file - config --images | sed 's/^=//'
}

uses_postgres() { grep -qx db <<<"$services"; }

in_redis() { docker compose exec --no-TTY redis redis-cli; }

in_postgres() { docker compose exec --no-TTY db "$@"; }

sql() {
    in_postgres env PGOPTIONS=--client-min-messages=warning \
        psql --username=postgres --quiet --set=ON_ERROR_STOP=1 --dbname="$1"
}

in_caddy() { docker compose exec --no-TTY caddy "$@"; }

# Run a command in a container of the site's image, without starting the servers.
in_site() { docker compose run --rm --no-deps --no-TTY migrate "$@"; }

# --- Secrets --------------------------------------------------------------------------------------

# Write missing secrets. Those that protect data are only made if there is no data yet.
make_secrets() {
    local volume=${name}_data secret volumes
    if uses_postgres; then volume=${name}_db; fi
    volumes=$(docker volume ls --quiet)
    for secret in secret_key postgres_password; do
        if [ ! -s "secrets/$secret" ] && grep -qx "$volume" <<<"$volumes"; then
            fail "secrets/$secret is missing, but there is data in the volume $volume: put your copy" \
                "of secrets/ back, or remove the volume to start again without the data."
        fi
    done
    mkdir -p secrets
    chmod 700 secrets # somebody may have made it before
    for secret in secret_key postgres_password redis_password; do
        [ -s "secrets/$secret" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"secrets/$secret"
        [ "$(tr -d '[:space:]' <"secrets/$secret" | grep -Ecx '[A-Za-z0-9_-]{16,}')" = 1 ] ||
            [ "$secret" = secret_key ] ||
            fail "secrets/$secret must be at least 16 letters, digits, - or _, because it goes into a URL."
    done
    for secret in secret_key_fallbacks email_url; do
        [ -e "secrets/$secret" ] || : >"secrets/$secret"
    done
    chmod a+r secrets/postgres_password # Postgres's own user reads it; the folder keeps others out
}

password() { tr -d '[:space:]' <"secrets/$1_password"; }

# Each Postgres password has its own login, so that old and new containers can both log in.
login() { echo "site_$(password postgres | sha256sum | cut -c1-8)"; }

# Copy the secrets and the Caddyfile for a release, so that a later edit does not affect containers
# that restart. The containers' users can read the copies; the folder keeps everybody else out.
copy_files() {
    local folder=secrets/releases/$1 file
    mkdir -p "$folder"
    for file in secrets/* deploy/Caddyfile; do
        if [ -f "$file" ]; then cat "$file" >"$folder/${file##*/}"; fi
    done
    # Undoing a deploy undoes edits of these too.
    cat .env >"$folder/env" 2>/dev/null || true
    docker compose config --no-interpolate >"$folder/compose.yaml"
    echo "postgres://$(login):$(password postgres)@db:5432/site" >"$folder/database_url"
    echo "redis://:$(password redis)@redis:6379/0" >"$folder/redis_url"
}

# set_redis_passwords CURRENT PASSWORD...: make Redis accept the passwords. `health` can only ping.
set_redis_passwords() {
    local current=$1
    shift
    {
        printf 'user default on ~* &* +@all'
        printf ' >%s' "$@"
        printf '\nuser health on nopass resetkeys -@all +ping\n'
    } >secrets/releases/redis_users # written in place, because the container has mounted this file
    chmod a+r secrets/releases/redis_users
    up redis
    [ "$(printf "AUTH %s\nACL LOAD\n" "$current" | in_redis | xargs)" = "OK OK" ] ||
        fail "Redis did not accept its passwords."
}

# The role `site` owns the database and has no other rights. Every login becomes that role.
make_login() {
    sql site <<SQL
SELECT 'CREATE ROLE site NOLOGIN' WHERE to_regrole('site') IS NULL \gexec
SELECT 'CREATE ROLE $(login) LOGIN IN ROLE site' WHERE to_regrole('$(login)') IS NULL \gexec
ALTER ROLE $(login) PASSWORD '$(password postgres)';
ALTER ROLE $(login) SET role TO site;
-- Otherwise a process that froze keeps its locks, and others wait for them.
ALTER ROLE $(login) SET idle_in_transaction_session_timeout TO '10min';
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

# --- Releases: an image, and copies of the secrets, .env, the Caddyfile and compose.yaml ------------

# Start or replace services. Fails if one exits, or is not healthy within two minutes. (Without its 0,
# `return` would have the status from before the trap when `clean_up` calls this.)
up() {
    docker compose up --detach --wait --wait-timeout 120 --no-deps "$@" && return 0
    docker compose logs --tail 20 "$@" >&2
    return 1
}

# Within six seconds Caddy sees that the first container is back: it checks once a second, and waits up to
# five for an answer.
replace() {
    local service
    for service in "${SITE[@]}"; do
        up "$service"
        if [ "$service" = web-a ]; then sleep 6; fi
    done
}

# ask CONTAINER HOST PORT DOMAIN PATH LIMIT: from inside the container, ask the host for a page of the
# domain. Fail unless the status is below the limit.
ask() {
    docker exec --interactive "$1" python - "${@:2}" <<'PYTHON'
import socket, ssl, sys
from http.client import HTTPConnection

host, port, domain, path, limit = sys.argv[1:]
connection = HTTPConnection(domain)
try:
    connection.sock = socket.create_connection((host, port), 15)
    if port == "443":
        # Not verified, because Caddy signs localhost's itself. Without a certificate it fails anyway.
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

# Start a web container of the new version that no visitor can reach, and request two pages.
try_out() {
    docker rm --force "$trial" >/dev/null 2>&1 || true # left by a deploy that was killed
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
        ask "$web" caddy 443 "$one" / 500 ||
            fail "$one did not answer through Caddy: does its DNS record point to this machine?"
    done
}

# use_caddyfile RELEASE: let Caddy use the release's file, now and whenever it starts.
use_caddyfile() {
    cat "secrets/releases/$1/Caddyfile" >secrets/releases/Caddyfile # in place, as Caddy has mounted it
    up caddy
    in_caddy caddy reload --config /etc/caddy/Caddyfile --adapter caddyfile
}

# From now on, plain `docker compose` means the live release.
mark_live() {
    docker tag "$name:$live" "$name:live"
    echo "RELEASE=$live" >deploy/.env.new
    sync deploy/.env.new # after a power failure, an empty file would mean that nothing is live
    mv deploy/.env.new deploy/.env
}

set_live() {
    live=$1 # first: if the next steps are interrupted, `clean_up` repeats them
    mark_live
}

# Old containers cannot read what new ones sign with a new key. So first restart the old ones with the
# new key as one more fallback. If the old key is not kept as a fallback, it has leaked: skip this.
introduce_key() {
    local before=secrets/releases/$live new
    new=$(now)-key
    [ -n "$live" ] && ! cmp --quiet "$before/secret_key" secrets/secret_key &&
        grep --quiet --fixed-strings --file=<(tr -d '[:space:]' <"$before/secret_key") \
            secrets/secret_key_fallbacks ||
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

# release NAME IMAGE: replace what is live with the image and the secrets of that name. A failure
# before `replacing` changes nothing; `clean_up` undoes a later one.
release() {
    local current file
    current=$(sed -n 's,^redis://:\(.*\)@.*,\1,p' "secrets/releases/$live/redis_url" 2>/dev/null || true)
    current=${current:-$(password redis)}
    candidate=$1
    docker tag "$2" "$name:$1"
    export RELEASE=$1
    touch secrets/releases/Caddyfile # or Docker would make a folder
    chmod a+r secrets/releases/Caddyfile # in the container, even root needs this
    docker compose run --rm --no-deps --no-TTY caddy caddy validate \
        --config - --adapter caddyfile <"secrets/releases/$1/Caddyfile" >/dev/null
    # Putting the live release back needs every file that a release has now.
    if [ -n "$live" ]; then
        mkdir -p "secrets/releases/$live"
        for file in "secrets/releases/$1"/*; do
            [ -e "secrets/releases/$live/${file##*/}" ] || cp "$file" "secrets/releases/$live"
        done
    fi
    starting=yes
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
    use_caddyfile "$1"
    in_caddy rm -f /tmp/closed
    ask_domains
    set_live "$RELEASE"
    replacing=
    starting=

    set_redis_passwords "$(password redis)" "$(password redis)"
    if uses_postgres; then drop_other_logins; fi
    remove_old_releases
    say "$RELEASE is live."
}

image_id() { docker image inspect --format '{{.Id}}' "$name:$1" 2>/dev/null; }

releases() { docker image ls --format '{{.Tag}}' "$name" | grep '^20' | sort --reverse; }

remove_old_releases() {
    local old
    # A rollback to the same image would change nothing.
    for old in $(releases | grep -vx "$RELEASE"); do
        [ "$(image_id "$old")" != "$(image_id "$RELEASE")" ] || docker image rm "$name:$old" >/dev/null
    done
    for old in $(releases | grep -vx "$RELEASE" | tail --lines=+"$KEEP_RELEASES"); do
        docker image rm "$name:$old" >/dev/null || true # in use
    done
    find secrets/releases -mindepth 1 -maxdepth 1 -type d ! -name "$RELEASE" -exec rm -r {} +
}

deploy() {
    local commit new
    commit=$(git rev-parse --short HEAD 2>/dev/null || true)
    new=$(now)${commit:+-$commit}
    candidate=$new
    make_secrets
    # Attestations contain the time, so every build would be another image.
    BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --tag "$name:$new" .
    copy_files "$new"
    # The image and the secrets are the same, so nothing needs to be replaced.
    if [ "$(image_id "$new")" = "$(image_id "$live")" ] &&
        diff --recursive --brief "secrets/releases/$new" "secrets/releases/$live" >/dev/null 2>&1; then
        docker image rm "$name:$new" >/dev/null
        rm -r "secrets/releases/$new"
        new=$live
    fi
    release "$new" "$name:$new"
}

# Go back to a version, or to the newest one before the live one that has another image.
rollback() {
    local version=${1:-} other new
    if [ -z "$version" ]; then
        # A release that only introduced a key has the image of the version before it.
        for other in $(releases | grep --invert-match -e '-key$'); do
            [[ $other > $live || $(image_id "$other") = "$(image_id live)" ]] ||
                version=${version:-$other}
        done
        [ -n "$version" ] || fail "There is no older version with another image."
    fi
    image_id "$version" >/dev/null || fail "No such version. Available: $(releases | xargs)"
    new=$(now)${version#*Z}
    make_secrets
    copy_files "$new"
    release "$new" "$name:$version"
}

# --- Data -----------------------------------------------------------------------------------------

backup() {
    local keep=${1:-} file old
    case $keep in *[!0-9]* | 0*) fail "KEEP must be the number of backups to keep, at least 1." ;; esac
    mkdir -p -m 700 backups
    file=backups/$(now)
    while [ -e "$file" ]; do # from the same second
        sleep 1
        file=backups/$(now)
    done
    umask 077
    if uses_postgres; then
        in_postgres pg_dump --format=custom site >backups/partial
        in_postgres pg_restore --file=/dev/null <backups/partial
    else
        in_site python -m config.sqlite backup /data/db.sqlite3 >backups/partial
        in_site env TMPDIR=/data python -m config.sqlite check <backups/partial
    fi
    sync backups/partial # so that the name always means a whole backup
    mv backups/partial "$file"
    sync backups
    echo "$file"
    if [ -n "$keep" ]; then
        # Whatever the machine's clock said before, this one is the newest.
        for old in $(printf '%s\n' backups/20*Z | grep -vx "$file" | sort --reverse | tail --lines=+"$keep"); do
            rm -v "$old"
        done
    fi
}

# Load the backup into a second database, named `restored`.
load() {
    if uses_postgres; then
        printf '%s;\n' 'DROP DATABASE IF EXISTS restored WITH (FORCE)' \
            'CREATE DATABASE restored OWNER site' | sql postgres
        in_postgres pg_restore --exit-on-error --no-owner --no-privileges --role=site \
            --username="$(sed 's,.*//\(.*\):.*@.*,\1,' "secrets/releases/$live/database_url")" \
            --dbname=restored <"$1"
    else
        in_site env TMPDIR=/data python -m config.sqlite check <"$1"
        in_site sh -c 'rm -f /data/restored.sqlite3* && cat >/data/restored.sqlite3' <"$1"
    fi
}

# Undo `load`.
unload() {
    if uses_postgres; then
        echo 'DROP DATABASE IF EXISTS restored WITH (FORCE);' | sql postgres
    else
        in_site sh -c 'rm -f /data/restored.sqlite3*'
    fi
}

# accept DATABASE: migrate it to the live version, or refuse it if it belongs to another site.
accept() {
    local url="sqlite:////data/$1.sqlite3"
    if uses_postgres; then url="\$(sed s,/site\$,/$1, /run/secrets/database_url)"; fi
    in_site sh -c "DATABASE_URL_FILE= DATABASE_URL=$url python manage.py acceptbackup"
}

# exchange DATABASE: put it in the place of the live one, which becomes `previous`. Both must be idle.
exchange() {
    if ! uses_postgres && [ "$1" = previous ]; then
        in_site python -m config.sqlite exchange /data/db.sqlite3 /data/previous.sqlite3
    elif ! uses_postgres; then
        in_site python -m config.sqlite copy /data/db.sqlite3 /data/previous.sqlite3
        in_site python -m config.sqlite copy /data/restored.sqlite3 /data/db.sqlite3
    else
        [ "$1" = previous ] || echo 'DROP DATABASE IF EXISTS previous WITH (FORCE);' | sql postgres
        sql postgres <<SQL
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ('site', '$1') \g /dev/null
BEGIN;
ALTER DATABASE site RENAME TO exchanged;
ALTER DATABASE $1 RENAME TO site;
ALTER DATABASE exchanged RENAME TO previous;
COMMIT;
SQL
    fi
}

has_previous() {
    if uses_postgres; then
        in_postgres psql --username=postgres --command= previous >/dev/null 2>&1
    else
        in_site test -e /data/previous.sqlite3
    fi
}

# The site answers 503 while its database is exchanged.
restore() {
    local database=restored
    if [ "${1:-}" = previous ]; then database=previous; fi
    [ $database = previous ] || [ -f "${1:-}" ] ||
        fail "No such backup: make restore FILE=backups/... (or FILE=previous, to undo the last restore)."
    [ -n "$live" ] || fail "There is no site here yet: make deploy."
    if [ $database = restored ]; then
        loaded=yes
        load "$1"
    fi
    [ $database = restored ] || has_previous || fail "There is no restore to undo."
    accept $database
    closed=yes
    in_caddy touch /tmp/closed
    docker compose stop "${SITE[@]}"
    exchange $database
    open_again
    say "Restored. To undo this: make restore FILE=previous"
}

open_again() {
    up "${SITE[@]}"
    in_caddy rm -f /tmp/closed
    closed=
}

# --- Watching -------------------------------------------------------------------------------------

# Print what needs attention, and fail if there is anything.
watch() {
    local one web port troubles
    exec 9<deploy
    flock --shared --wait 900 9 || fail "A deploy, backup or restore has been running for 15 minutes."
    troubles=$(
        for one in $services; do
            [ "$one" = migrate ] || docker compose ps --all --services | grep -qx "$one" ||
                echo "There is no container of $one: docker compose up --detach"
        done
        web=$(docker compose ps --quiet web-a)
        port=$(docker compose port caddy 443 | sed 's/.*://')
        docker compose ps --all --format '{{.Service}} {{.Status}}' |
            grep -Ev '^migrate |\(healthy\)|\(health: starting\)' || true
        for one in ${domain//,/}; do
            if [ -n "$web" ]; then
                ask "$web" caddy 443 "$one" /readyz 300 2>&1 || true
                ask "$web" caddy 443 "$one" /jobs/health/ 300 2>&1 || true
            fi
            case $one in localhost | *.localhost) continue ;; esac
            openssl s_client -connect "localhost:$port" -servername "$one" </dev/null 2>/dev/null |
                openssl x509 -noout -checkend $((CERTIFICATE_DAYS * 86400)) >/dev/null 2>&1 ||
                echo "The certificate of $one expires within $CERTIFICATE_DAYS days, or cannot be read."
        done
        [ -n "$(find backups -name '20*Z' -mmin -$((LAST_BACKUP * 60)) 2>/dev/null)" ] ||
            echo "There is no backup from the last $LAST_BACKUP hours."
        data=$(docker info --format '{{.DockerRootDir}}')
        { df --output=pcent,target . "$data" 2>/dev/null || true; } | sort --unique |
            awk -v most=$DISK_PERCENT '$1 + 0 > most {print "The disk of " $2 " is " $1 " full."}'
    )
    [ -z "$troubles" ] || fail "$troubles"
}

# --------------------------------------------------------------------------------------------------

starting='' # these five say what to undo if a step fails
replacing=''
candidate=''
loaded=''
closed=''

# Say it, or go on in silence if nobody reads this any more.
tell() { say "$*" || exec >/dev/null 2>&1; }

clean_up() {
    local status=$?
    set +e
    # Another Ctrl-C or a lost connection must not stop this, nor docker, which would listen for it.
    trap '' HUP INT PIPE TERM
    docker() { setsid --wait docker "$@"; }
    docker rm --force "${trial:-none}" >/dev/null 2>&1
    rm -f backups/partial
    if [ -n "$starting" ] && [ -n "$live" ]; then
        export RELEASE=$live COMPOSE_ENV_FILES=secrets/releases/$live/env,deploy/.env
        export COMPOSE_FILE=secrets/releases/$live/compose.yaml
        up redis
        if uses_postgres; then up db; fi
        if [ -n "$replacing" ]; then
            tell "Putting $live back ..."
            replace
            use_caddyfile "$live"
            mark_live
        fi
        # Once more, because an interrupted command may have left a container under another name.
        if up "${SITE[@]}" caddy; then
            tell "Failed, for the reason above. $live is live."
        else
            tell "Failed, and $live does not start again: see docker compose ps --all"
        fi
    elif [ -n "$replacing" ]; then
        tell "Removing what was started ..."
        docker compose rm --stop --force "${SITE[@]}" caddy
    fi
    # Remove a candidate that did not go live.
    if [ -n "$candidate" ] && [ "$candidate" != "$live" ]; then
        docker image rm "$name:$candidate" >/dev/null 2>&1
        rm -rf "secrets/releases/$candidate"
    fi
    if [ -n "$loaded" ]; then unload; fi
    if [ -n "$closed" ]; then
        tell "Starting the site again ..."
        open_again
    fi
    exit $status
}

COMPOSE_FILE=$(setting COMPOSE_FILE deploy/compose.yaml)
# Both are named, because with COMPOSE_FILE exported, Compose reads only deploy/.env.
touch -a deploy/.env
COMPOSE_ENV_FILES=deploy/.env
if [ -e .env ]; then COMPOSE_ENV_FILES=.env,deploy/.env; fi
export COMPOSE_FILE COMPOSE_ENV_FILES
domain=$(setting DOMAIN '')
host='[a-z0-9]([a-z0-9.-]*[a-z0-9])?'
[[ $domain =~ ^$host(, $host)*$ ]] ||
    fail "DOMAIN in .env must be a name like www.example.org, or several, separated by comma and space."
services=$(docker compose config --services)
name=$(docker compose config --no-interpolate | sed -n 's/^name: //p')
trial=$name-trial
other=$(docker ps --filter "label=com.docker.compose.project=$name" \
    --format '{{.Label "com.docker.compose.project.working_dir"}}' | head -n 1)
if [ -n "$other" ] && other=$(cd "$other" 2>/dev/null && pwd -P) && [[ $other/ != "$(pwd -P)"/* ]]; then
    fail "$name runs from $other already. For a copy, set COMPOSE_PROJECT_NAME, HTTP_PORT and HTTPS_PORT in .env."
fi

if [ "$1" != watch ]; then
    command -v flock >/dev/null || fail "This needs Linux: there is no flock here."
    exec 9<deploy
    if ! flock --nonblock 9; then
        say "Another deploy, backup or restore is running: waiting for it to end."
        flock 9
    fi
    trap clean_up EXIT
    trap 'exit 130' INT # even if docker handles Ctrl-C and exits with 0
fi
live=$(sed -n 's/^RELEASE=//p' deploy/.env 2>/dev/null || true)
"$@"
