"""The environment: what each variable must look like. A bad value is refused, with its name.

`env` reads a variable NAME, or the file that NAME_FILE names, such as a Docker secret. In
development it also reads `.env`, but the environment wins.
"""

import re
from email.headerregistry import AddressHeader
from io import StringIO
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import dj_database_url
from django.core.validators import validate_email
from dotenv.parser import parse_stream
from environs import EnvError, FileAwareEnv, ValidationError
from psycopg2 import ProgrammingError
from psycopg2.extensions import make_dsn
from redis import ConnectionPool
from redis.connection import URL_QUERY_ARGUMENT_PARSERS
from redis.exceptions import RedisError

from config.mail import mail_settings


class Env(FileAwareEnv):
    """Names the variable if its value or its file is not UTF-8.

    An empty value means the default, but an empty list stays empty.
    """

    def _get_value(self, name, default):
        try:
            value = super()._get_value(name, default)
            str(value).encode()
        except UnicodeError as error:
            raise EnvError(f'"{name}" or the file in "{name}_FILE" is not UTF-8') from error
        # The default of a list is text, for its parser.
        return default if value == "" and not isinstance(default, str) else value


env = Env(strip_whitespace=True)

# What the site, Compose and Docker read in different ways.
AMBIGUOUS = re.compile(r"\$|=\s*#|[^\S ]#|[\"'].*\\|\0")
ASSIGNMENT = re.compile(r"(export\s+)?[A-Za-z_]\w*\s*=", re.ASCII)

# What can match a Host header: no scheme, port, path or quotes; [::1], not ::1; xn--..., not ü.
HOST = r"[a-z0-9-]+(\.[a-z0-9-]+)*|\[[0-9a-f:.]+\]"


def read_env_file(path):
    """Read `.env` if it exists. Refuse lines that Docker Compose would read differently."""
    if not path.exists():
        return
    try:
        lines = list(parse_stream(StringIO(path.read_text(encoding="utf-8-sig"))))
    except UnicodeDecodeError as error:
        raise EnvError(".env is not UTF-8: save it as UTF-8") from error
    for line in lines:
        text = line.original.string.strip()
        ambiguous = AMBIGUOUS.search(text) or not ASSIGNMENT.match(text)
        if line.error or (line.key and ambiguous):
            raise EnvError(
                f"line {line.original.line} of .env ({line.key or text}) is read differently by "
                "Compose: write NAME=value, without $ or \\, and comments on lines of their own"
            )
    env.read_env(path, recurse=False)


@env.parser_for("items")
def items(value):
    """Split a list at its commas and line ends; drop spaces and empty items."""
    return [item.strip() for item in re.split(r"[,\n]", value) if item.strip()]


def listed(pattern, hint):
    """Return a parser of lists in lower case whose items match the pattern."""

    def parse(value):
        found = [item.lower() for item in items(value)]
        for item in found:
            if not re.fullmatch(pattern, item):
                raise ValidationError(f"{item} is not {hint}")
        return found

    return parse


HOSTS = (
    "a host name: write example.org, or .example.org for its subdomains too; no https://, port, "
    "slash or quotes"
)
ORIGINS = "an origin: write https://example.org, with no slash at the end, path or quotes"
env.add_parser("hosts", listed(rf"\*|\.?({HOST})", HOSTS))
env.add_parser("origins", listed(rf"https?://(\*\.)?({HOST})(:[0-9]+)?", ORIGINS))


@env.parser_for("networks")
def parse_networks(value):
    """Return addresses and networks, each also in the form that an IPv6 socket gives IPv4."""
    networks = []
    for item in items(value):
        if item == "*":
            networks.append(item)
            continue
        try:
            network = ip_network(item)
        except ValueError as error:
            raise ValidationError(
                f"{error}: write addresses or networks like 10.0.0.5, 10.0.0.0/8, or *; no ports"
            ) from error
        first, length = network.network_address, network.prefixlen
        mapped = first if network.version == 4 else first.ipv4_mapped
        prefix = length + 96 if network.version == 4 else length
        if mapped and prefix >= 96:
            networks += [f"{mapped}/{prefix - 96}", f"::ffff:{mapped}/{prefix}"]
        else:
            networks.append(str(network))
    return networks


# Options that Django keeps to itself.
NOT_SENT = {"assume_role": None, "isolation_level": None}


@env.parser_for("database")
def parse_database(url, otherwise):
    """Return Django's settings for the database at the URL, or at `otherwise` if it is empty."""
    try:
        database = dj_database_url.parse(url or otherwise)
        name, options = database["NAME"], database.get("OPTIONS", {})
        if database["ENGINE"] == "django.db.backends.postgresql":
            make_dsn(**options | NOT_SENT)  # refuses options it does not know
            level = options.get("isolation_level", 1)
            works = re.fullmatch("[^/]{1,63}", name) and level in range(1, 5)
        elif works := database["ENGINE"] == "django.db.backends.sqlite3":
            # With one slash too few, SQLite would use a database in memory.
            works = not re.match("$|:memory:|file:", name) and Path(name).parent.is_dir()
    except (OSError, ProgrammingError, ValueError):
        works = False
    if not works or "\0" in unquote(url):
        raise ValidationError(
            "write it like postgres://user:password@host:5432/name or sqlite:////folder/file, "
            "without quotes, with a password whose special characters are percent-encoded, only "
            "with options that exist, and in a folder that exists"
        )
    return database | {"CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True}


# The options that redis-py converts, and those that are text. It takes all others too, as text, and
# fails when it connects.
REDIS_OPTIONS = {*URL_QUERY_ARGUMENT_PARSERS, "client_name", "lib_name", "password", "username"}
TLS = "ca_certs ca_data ca_path cert_reqs certfile ciphers keyfile password"
REDIS_OPTIONS |= {f"ssl_{name}" for name in TLS.split()}


@env.parser_for("redis")
def parse_redis(url):
    """Return the URL: empty, or with everything that a connection needs."""
    try:
        parts = urlsplit(url)
        ConnectionPool.from_url(url or "redis://").make_connection()  # connects to nothing yet
    except (AttributeError, RedisError, TypeError, ValueError):
        parts = urlsplit("redis:")
    has_host = parts.hostname and re.fullmatch(r"/?[0-9]*", parts.path)
    complete = (has_host and not parts.fragment) or parts.scheme in {"", "unix"}
    if not complete or parse_qs(parts.query).keys() - REDIS_OPTIONS:
        raise ValidationError(
            "write it like redis://host:6379/0 or rediss://:password@host:6380/0, percent-encoded, "
            "without quotes, and only with options that can be text"
        )
    return url


@env.parser_for("mail")
def parse_mail(url, otherwise):
    """Return Django's settings for the mail server at the URL, or at `otherwise` if it is empty."""
    try:
        return mail_settings(url or otherwise)
    except ValueError as error:
        raise ValidationError(
            "write it like smtp+tls://user:password@host:587, percent-encoded, without quotes"
        ) from error


def address(value):
    """Validate an email address, which may have a name before it.

    Django 6.1's SMTP backend refuses what this parser complains about.
    """
    try:
        parsed = AddressHeader.value_parser(value)
        (mailbox,) = parsed.all_mailboxes
        validate_email("" if parsed.all_defects else mailbox.addr_spec)
    except Exception as error:  # the parser raises all kinds
        raise ValidationError(
            f'{value} is not an email address like you@example.com or "Your Name" <you@example.com>'
        ) from error


@env.parser_for("addresses")
def parse_addresses(value):
    """Return email addresses."""
    addresses = items(value)
    for item in addresses:
        address(item)
    return addresses
