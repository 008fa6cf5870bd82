"""An announcement that cannot be true is refused by the name of the field."""

from dataclasses import replace

import pytest
from control_builders import ready, registration
from serin_control.admission import check_registration, check_status, split_endpoint
from serin_control.errors import RegistrationInvalid
from serin_control.instance import Capacity, Digests, Formats, Service, State, Status


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"instance": ""}, "instance"),
        ({"instance": "a b"}, "instance"),
        ({"instance": "x" * 129}, "instance"),
        ({"model": ""}, "model"),
        ({"model": "Small"}, "model"),
        ({"version": ""}, "version"),
        ({"version": "v1\n"}, "version"),
        ({"endpoint": ""}, "endpoint"),
        ({"endpoint": "host"}, "endpoint"),
        ({"endpoint": "host:0"}, "endpoint"),
        ({"endpoint": "host:70000"}, "endpoint"),
        ({"endpoint": "0.0.0.0:1"}, "endpoint"),
        ({"endpoint": "[::]:1"}, "endpoint"),
        ({"http_endpoint": "x"}, "http_endpoint"),
        ({"service": Service.CACHE}, "model"),
        ({"formats": Formats(256, (1,))}, "formats"),
        ({"formats": Formats(1, tuple(range(300)))}, "formats"),
    ],
)
def test_bad_registration_names_its_field(change, field):
    """The message begins with the field and says what it takes."""
    with pytest.raises(RegistrationInvalid, match=f"^{field}: "):
        check_registration(replace(registration("a"), **change))


def test_good_registrations_pass():
    """Each service in its own shape."""
    check_registration(registration("a"))
    check_registration(registration("a", Service.CACHE, formats=Formats(2, (2, 1))))
    check_registration(registration("a", Service.GATEWAY, http_endpoint="[::1]:80"))


@pytest.mark.parametrize(
    ("status", "field"),
    [
        (Status(State.SUSPECT), "state"),
        (Status(State.STARTING, 1.5), "progress"),
        (Status(State.STARTING, float("nan")), "progress"),
        (replace(ready(), digests=Digests("", "aa", "bb")), "digests.artifact"),
        (replace(ready(), digests=Digests("aa", "XX", "bb")), "digests.vocabulary"),
        (replace(ready(), digests=Digests("aa", "aa", "")), "digests.kv"),
        (replace(ready(), capacity=Capacity()), "capacity"),
        (replace(ready(), capacity=Capacity(context_length=64)), "capacity"),
        (replace(ready(), capacity=Capacity(num_embedding_dimensions=8)), "capacity"),
    ],
)
def test_ready_needs_what_lanes_are_made_of(status, field):
    """A worker that is ready names its digests and sizes."""
    with pytest.raises(RegistrationInvalid, match=f"^{field}: "):
        check_status(registration("a"), status)


def test_a_worker_that_computes_embeddings_has_no_blocks():
    """Its longest input and the length of its vectors are its sizes."""
    sizes = Capacity(num_sequences=8, context_length=64, num_embedding_dimensions=8)
    check_status(registration("a"), replace(ready(), capacity=sizes))


def test_split_endpoint():
    """Names, addresses, brackets."""
    assert split_endpoint("h:1") == ("h", 1)
    assert split_endpoint("[::1]:80") == ("::1", 80)
