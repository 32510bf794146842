"""What `store.url` may be."""

import pytest

from service.store_url import store_url_flaw


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache",
        "redis://node@cache:6380/3",
        "rediss://cache/0?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=required",
        "redis://[::1]:6379",
        "unix:///run/valkey.sock?db=2",
    ],
)
def test_what_redis_py_takes_is_taken(url: str) -> None:
    """Hosts, users, databases, sockets, TLS."""
    assert store_url_flaw(url) is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "must begin with redis://, rediss:// or unix://, got ''"),
        ("cache:6379", "must begin with redis://, rediss:// or unix://, got 'cache:6379'"),
        ("redis://", "must name a host, as in redis://127.0.0.1:6379/0, got 'redis://'"),
        ("unix://", "must name a socket, as in unix:///run/valkey.sock, got 'unix://'"),
        (
            "redis://cache/main",
            "must end in the number of a database, as in redis://127.0.0.1:6379/0, got 'redis://cache/main'",
        ),
    ],
)
def test_what_it_would_take_for_something_else_is_refused(url: str, said: str) -> None:
    """redis-py connects to localhost, or uses database 0, without a word."""
    assert store_url_flaw(url) == said


@pytest.mark.parametrize("url", ["redis://cache:port", "redis://cache:99999", "redis://:hunter2@[::1/0"])
def test_what_is_no_url_is_refused_without_repeating_it(url: str) -> None:
    """A password with a slash or a bracket in it makes a URL fall apart."""
    assert store_url_flaw(url) == "must be a URL such as redis://127.0.0.1:6379/0, got something else"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("foo=1", "unexpected keyword argument 'foo'"),
        ("max_connections=many", "Invalid value for 'max_connections'"),
        ("ssl_cert_reqs=maybe", "Invalid SSL Certificate Requirements Flag: maybe"),
    ],
)
def test_options_that_redis_py_does_not_take_are_refused(options: str, why: str) -> None:
    """The node would end with a stack trace when it first asks the store."""
    said = store_url_flaw(f"rediss://cache/0?{options}")
    assert said is not None
    assert said.startswith("must have options that redis-py takes, got 'rediss://cache/0?")
    assert why in said
