"""Hostile values in what a declared provider sends, and hostile patterns in a configuration: they do no harm."""

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from domain.configuration.providers.declared.patterns import (
    MOST_MATCHED,
    checked_pattern,
    first_group,
)
from domain.configuration.providers.declared.section import DeclaredProviderConfiguration
from domain.error_classes import ErrorClass
from domain.outcomes import OutcomeKind
from domain.receipts import LONGEST_ID
from providers.webhooks import UnreadableWebhook, WebhookForged
from tests.fakes.declared_aggregators import NAMES, adapter, came, response, section, webhooks

BODIES: Mapping[str, bytes] = {
    "empty": b"",
    "cut": b"{",
    "deep_list": b"[" * 500_000,
    "deep_object": b'{"a":' * 200_000,
    "deep_and_whole": b"[" * 5_000 + b"]" * 5_000,
    "huge_number": b'{"id":' + b"9" * 900_000 + b"}",
    "huge_exponent": b'{"id":1e999999999,"state":-1e-999999999}',
    "not_a_number": b'{"id":NaN,"state":Infinity}',
    "null": b"null",
    "binary": bytes(range(256)) * 100,
    "lone_surrogate": b'{"id":"\\ud800","state":"\\udfff"}',
    "nul": b'{"id":"a\\u0000b","state":"\\u0000"}',
    "many_fields": b"&".join(b"f%d=1" % number for number in range(5_000)),
    "many_commas": b"MsgId=" + b"," * 300_000 + b"&status=404",
    "long_text": b"x" * 1_000_000,
    "many_receipts": json.dumps([{"id": 1, "state": "x"}] * 20_000).encode(),
}
MOST_SECONDS = 2.0


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("name", NAMES)
async def test_no_body_of_a_response_raises_or_takes_long(name, body):
    async with adapter(section(name)) as provider:
        began = time.process_time()
        outcome = provider._outcome(1, response(200, body))
        assert time.process_time() - began < MOST_SECONDS
    assert outcome.kind in {OutcomeKind.UNKNOWN, OutcomeKind.ACCEPTED, OutcomeKind.REFUSED}
    assert len(outcome.provider_message_id or "") <= LONGEST_ID
    assert "\0" not in (outcome.provider_message_id or "")
    assert len(outcome.code) <= 32


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "smsbiuras"])
def test_no_body_of_a_receipt_raises_anything_else_or_takes_long(name, body):
    reader = webhooks(section(name))
    began = time.process_time()
    try:
        found = reader.receipts(came(body), None)
    except UnreadableWebhook:
        found = []
    assert time.process_time() - began < MOST_SECONDS
    assert all(len(each.code) <= 48 for each in found)


@pytest.mark.parametrize("header", ["", "x", "Basic ", "Basic " + "a" * 100_000, "\xff\xfe", "é"])
@pytest.mark.parametrize(
    "signature",
    [
        {"type": "basic", "user": "a", "password": "{secret:key}"},
        {"type": "header", "header": "Authorization", "value": "{secret:key}"},
        {"type": "hmac", "header": "Authorization", "secret": "{secret:key}"},
    ],
    ids=["basic", "header", "hmac"],
)
def test_no_header_of_a_receipt_raises_anything_else(signature, header):
    of = section("gatewayapi").model_dump(by_alias=True, exclude_unset=True)
    of["receipt"]["signature"] = signature
    of["secrets"]["key"] = "env:KEY"
    declared = DeclaredProviderConfiguration.model_validate(of)
    with pytest.raises(WebhookForged):
        webhooks(declared).verify(came(b"{}", headers={"authorization": header}))


SLOW: list[tuple[str, str]] = [
    (r"([ab]*[ac]*[ad]*[ae]*[af]*[ag]*)[0-9]", "a" * 65_536),
    (r"(\w*\s*\w*\s*\w*\s*\w*\s*)[!?]", "a " * 32_768),
    (r"(.*.*.*.*.*)[\n]", "x" * 65_536),
    (r"(?:ab)*[ab]*(?:ab)*[ab]*([0-9])", "ab" * 32_768),
]


@pytest.mark.parametrize(("pattern", "text"), SLOW, ids=["classes", "words", "dots", "pairs"])
def test_a_pattern_that_would_take_minutes_finds_nothing_in_a_moment(pattern, text):
    checked_pattern(pattern)
    began = time.perf_counter()
    assert first_group(pattern, text) is None
    assert time.perf_counter() - began < 1.0


async def test_a_slow_pattern_leaves_the_outcome_of_a_message_unknown():
    slow = {"format": "text", "id": f"/{SLOW[0][0]}/"}
    of = section("jasmin").model_dump(by_alias=True, exclude_unset=True)
    of["response"], of["samples"] = slow, {}
    async with adapter(DeclaredProviderConfiguration.model_validate(of)) as provider:
        outcome = provider._outcome(1, response(200, SLOW[0][1]))
    assert (outcome.kind, outcome.error_class) == (OutcomeKind.UNKNOWN, ErrorClass.UNKNOWN)


def test_a_pattern_is_looked_for_in_the_beginning_of_a_text_only():
    assert first_group("(b)", "a" * (MOST_MATCHED - 1) + "b") == "b"
    assert first_group("(b)", "a" * MOST_MATCHED + "b") is None


REFUSED: list[Any] = [
    r"(a+)+",
    r"(a*)*",
    r"(?:a+)+(b)",
    r"(?:(?:a+)b)*(c)",
    r"(?:a|a)*(b)",
    r"(?:a{1,9}){1,9}(b)",
    r"(a)(?:b+)+",
    r"(a)\1",
    r"(?P<x>a)",
    r"(?<=a)(b)",
    r"(?!a)(b)",
    r"(?>a)(b)",
    r"(?R)(a)",
    r"(?i)(a)",
    r"(?:a){e}(b)",
    r"(a)\p{L}",
    r"(a)\X",
    r"(a)\L<words>",
    r"([[:alpha:]])",
    r"([a&&b]",
    r"(a))",
    r"a)(b)",
    r"*(a)",
    r"(a){1000}",
    r"abc",
    "",
]


@pytest.mark.parametrize("pattern", REFUSED)
def test_a_pattern_beyond_the_simple_syntax_is_refused(pattern):
    with pytest.raises(ValueError, match=r"pattern|group|regular expression"):
        checked_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"^OK: ([0-9]+)$", "OK: 123", "123"),
        (r'^Success "([^"]+)"', 'Success "a-b"', "a-b"),
        (r"(?:id|ID)=(\w+)", "x ID=7", "7"),
        (r"err:(\d{3})", "stat:X err:006", "006"),
        (r"\[([^\]]*)\]", "a [b] c", "b"),
        (r"a(?:, b)?: (.+?);", "a: x;y;", "x"),
        (r"(?:ab){2}(c)", "ababc", "c"),
        (r"([a-c|]+)", "x|y", "|"),
    ],
)
def test_a_simple_pattern_finds_its_group(pattern, text, expected):
    assert first_group(checked_pattern(pattern), text) == expected
