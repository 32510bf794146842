"""What `store.url` may be: whatever redis-py would fail on, or take for something else, is found here first."""

from urllib.parse import SplitResult, parse_qs, urlsplit

from service.secrets import STORE_PASSWORD

_SCHEMES = ("redis", "rediss", "unix")


def store_url_flaw(text: str) -> str | None:
    """The rule that a store's URL breaks, and what came where that can be no secret; None for a good one."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:  # not repeated: it may be a password with a character that has to be escaped
        return "must be a URL such as redis://127.0.0.1:6379/0, got something else"
    if url.password is not None or "password" in parse_qs(url.query):
        return f"must not hold a password; put it into the environment variable {STORE_PASSWORD}"
    if url.scheme not in _SCHEMES:
        return f"must begin with redis://, rediss:// or unix://, got {text!r}"
    return _flaw_of_place(url, port, text) or _flaw_of_options(text)


def _flaw_of_place(url: SplitResult, port: int | None, text: str) -> str | None:
    if url.scheme == "unix":
        return None if url.path else f"must name a socket, as in unix:///run/valkey.sock, got {text!r}"
    if not url.hostname or port == 0:
        return f"must name a host, as in redis://127.0.0.1:6379/0, got {text!r}"
    database = url.path.strip("/")
    if database and not database.isdecimal():  # redis-py takes database 0 without a word
        return f"must end in the number of a database, as in redis://127.0.0.1:6379/0, got {text!r}"
    return None


def _flaw_of_options(text: str) -> str | None:
    """redis-py hands what stands behind the question mark to its connection, which is made here without connecting."""
    from redis.asyncio import ConnectionPool
    from redis.exceptions import RedisError

    try:
        ConnectionPool.from_url(text).make_connection()  # type: ignore[no-untyped-call]
    except (TypeError, ValueError, RedisError) as error:
        return f"must have options that redis-py takes, got {text!r} ({error})"
    return None
