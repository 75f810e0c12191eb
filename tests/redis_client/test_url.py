"""Which URLs of Redis are accepted, and what is said about the others."""

from __future__ import annotations

import pytest

from agenta_ai_server.redis.client import RedisClient
from agenta_ai_server.redis.url import FORM, check_redis_url

GOOD = [
    "redis://h",
    "redis://h/",
    "redis://:p@h:6379/12",
    "redis://u:p%3Fx@[::1]:6379/0?client_name=agenta-ai",
    "rediss://h/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required&ssl_check_hostname=True",
    "unix:///run/redis?db=1",
]

# Nothing of these may be repeated: where the password ends can't be told.
UNREADABLE = [
    *("", "s3cret", "http://:s3cret@h", "redis://:s3cret@h/staging", "redis://:s3cret@h/-1", "rediss://:s3cret@h/0/1"),
    *(
        "redis://u:s3cret#h:6379/0",
        "redis://h:s3cret",
        "redis://s3cret@[::1",
        "redis://h/?s3cret=a@b",
        "redis://u@h?s3cret@h",
    ),
]

PARAMETERS = {
    "redis://h?decode_responses=True": "has the parameter decode_responses, which isn't supported",
    "redis://h?protocol=3": "has the parameter protocol, which isn't supported",
    "redis://h?socket_timeout=60": "has the parameter socket_timeout, which isn't supported",
    "redis://h?retry_on_timeout=yes": "has the parameter retry_on_timeout, which isn't supported",
    "redis://h?max_connections=1": "has the parameter max_connections, which isn't supported",
    "redis://h/0?db=1": "has the parameter db, which isn't supported. Supported here: client_name",
    "redis://h?ssl_ca_certs=/ca.pem": "has the parameter ssl_ca_certs, which isn't supported",
    "redis://h?unheard_of=1": "has the parameter unheard_of, which isn't supported",
    "redis://h?s3cret=1": "has a parameter, which isn't supported",
    "rediss://h?ssl_ca_certs=": "has no value for the parameter ssl_ca_certs",
    "rediss://h?ssl_cert_reqs=maybe": "has a wrong value for the parameter ssl_cert_reqs",
    "unix:///run/redis?db=staging": "has a wrong value for the parameter db",
}


@pytest.mark.parametrize("url", GOOD)
def test_a_good_url_is_one_for_the_library_too(url: str) -> None:
    RedisClient(url)


@pytest.mark.parametrize("url", UNREADABLE)
def test_an_unreadable_url_isnt_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="must be redis://") as raised:
        check_redis_url(url)
    assert str(raised.value) == FORM
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize("url", PARAMETERS)
def test_a_parameter_is_refused_by_name(url: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # its sentence is compared
        check_redis_url(url)
    assert str(raised.value).startswith(PARAMETERS[url])
    assert "s3cret" not in str(raised.value)
