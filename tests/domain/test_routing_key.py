"""Routing keys: what routes look at, and the bucket that divides messages by weight."""

from collections import Counter
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from domain.configuration import Environment
from domain.configuration.routing_key import BUCKETS, COLUMNS, RoutingKey, bucket_of
from domain.modes import Mode


def key(**changed: object) -> RoutingKey:
    values: dict[str, object] = {
        "environment": Environment.LIVE,
        "country": "GB",
        "mode": Mode.ALERT,
        "sender": "ACME",
        "network": "unknown",
        "account_id": "acme",
    }
    return RoutingKey(**values | changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message_id", "bucket"),
    [
        (UUID(int=0), 69),
        (UUID("019aa5c0-d1e2-7b3c-8f4e-5a6b7c8d9e0f"), 912),
        (UUID("ffffffff-ffff-ffff-ffff-ffffffffffff"), 777),
    ],
)
def test_the_bucket_of_a_message_never_changes(message_id, bucket):
    assert bucket_of(message_id) == bucket


@given(st.uuids())
def test_a_bucket_is_from_0_to_999_and_the_same_each_time(message_id):
    assert bucket_of(message_id) in range(BUCKETS)
    assert bucket_of(message_id) == bucket_of(UUID(hex=message_id.hex))


@pytest.mark.parametrize("make", [uuid4, uuid7], ids=["random", "in one moment"])
def test_messages_are_divided_evenly(make):
    count = 100_000
    counted = Counter(bucket_of(make()) for _ in range(count))
    expected = count / BUCKETS
    chi_squared = sum((counted[n] - expected) ** 2 / expected for n in range(BUCKETS))
    # 999 degrees of freedom: mean 999, standard deviation 45. Seven of them come once in 10^11 runs.
    assert chi_squared < 999 + 7 * 45


def test_ids_that_count_up_are_divided_evenly():
    first = uuid7().int
    count = 100_000
    counted = Counter(bucket_of(UUID(int=first + n)) for n in range(count))
    share = sum(counted[n] for n in range(100)) / count
    assert 0.09 < share < 0.11


def test_a_bucket_is_no_part_of_the_comparison_so_that_a_key_is_ranked_once():
    assert key(bucket=1) == key(bucket=2) == key()
    assert hash(key(bucket=1)) == hash(key())


@pytest.mark.parametrize(
    "changed",
    [
        {"environment": Environment.TEST},
        {"country": "US"},
        {"mode": Mode.PROMOTIONAL},
        {"sender": "acme"},
        {"network": "310150"},
        {"account_id": "other"},
    ],
)
def test_keys_that_differ_in_anything_else_are_different(changed):
    assert key(**changed) != key()


def test_its_columns_are_all_that_it_compares():
    assert COLUMNS == ("environment", "country", "mode", "sender", "network", "account_id")
