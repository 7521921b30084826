import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from domain.callbacks.events import (
    CALLBACK_STATUSES,
    CallbackEvent,
    CallbackState,
    body_of_many,
    webhook_id_of_many,
)
from domain.callbacks.retries import GONE, Response, Trouble, decide_retry, pause_after, trouble_of
from domain.callbacks.signatures import (
    InvalidSecret,
    SignatureRefused,
    secret_of,
    sign,
    signed_headers,
    verify,
)
from domain.callbacks.urls import (
    LONGEST_URL,
    InvalidCallbackUrl,
    Reach,
    check_url,
    may_receive,
    origin_of,
    parse_url,
    reach,
)
from domain.configuration import CallbackPolicy
from domain.outbox import EventBody
from domain.states import MessageStatus

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SECRET = secret_of(bytes(range(24)))
OTHER_SECRET = secret_of(bytes(range(32)))
DELAYS = CallbackPolicy().retry_delays
IPV4_WITHIN_IPV6 = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))

# --- which transitions -------------------------------------------------------------------------------


def test_final_statuses_and_sent_have_callbacks_and_intermediate_statuses_have_none():
    assert {status.value for status in set(MessageStatus) - CALLBACK_STATUSES} == {
        "scheduled",
        "queued",
        "sending",
        "unknown",
        "retried",
    }


# --- where to ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/",
        "https://example.com/sms?tenant=7&x=%20",
        "http://example.com:8080/hooks/sms",
        "https://hooks.example.co.uk/a/b;c=1",
        "https://xn--bcher-kva.example/",
        "https://8.8.8.8/hook",
        "https://[2606:4700:4700::1111]:8443/hook",
        "https://under_score.example.com/",
    ],
)
def test_a_public_url_is_taken_as_it_is(url):
    assert check_url(url) == url


@pytest.mark.parametrize(
    ("given_url", "normal"),
    [
        ("HTTPS://Example.COM", "https://example.com/"),
        ("https://example.com:443/x", "https://example.com/x"),
        ("http://example.com:80", "http://example.com/"),
        ("https://example.com./x", "https://example.com/x"),
        ("https://example.com/x#fragment", "https://example.com/x"),
        ("https://example.com?x=1", "https://example.com/?x=1"),
        ("https://[2606:4700:4700:0:0::1111]/", "https://[2606:4700:4700::1111]/"),
    ],
)
def test_one_url_has_one_spelling(given_url, normal):
    assert check_url(given_url) == normal


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "ASCII"),
        ("example.com/hook", "https://"),
        ("//example.com/hook", "https://"),
        ("ftp://example.com/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("gopher://example.com/", "https://"),
        ("https://", "host"),
        ("https:///hook", "host"),
        ("https://:8443/", "host"),
        ("https://user@example.com/", "password"),
        ("https://user:secret@example.com/", "password"),
        ("https://@example.com/", "password"),
        ("https://example.com@evil.example/", "password"),
        ("https://example.com\\@127.0.0.1/", "ASCII"),
        ("https://exa mple.com/", "ASCII"),
        ("https://example.com/\r\nHost:x", "ASCII"),
        ("https://example.com/\u00e9", "ASCII"),
        ("https://b\u00fccher.example/", "ASCII"),
        ("https://\u2460\u2461\u2466.0.0.1/", "ASCII"),
        ("https://example.com:0/", "port"),
        ("https://example.com:65536/", "port"),
        ("https://example.com:http/", "port"),
        ("https://example.com:/", "port"),
        ("https://-example.com/", "host"),
        ("https://exa%6dple.com/", "host"),
        ("https://a..example.com/", "host"),
        ("https://" + "a" * 64 + ".example.com/", "host"),
        ("https://[::1/", "host"),
        ("https://[fe80::1%25eth0]/", "host"),
        ("https://[v1.x]/", "host"),
        ("https://example.com/" + "x" * LONGEST_URL, "characters"),
    ],
)
def test_what_no_parser_should_have_to_guess_at_is_refused_with_a_reason(url, why):
    with pytest.raises(InvalidCallbackUrl, match=why):
        check_url(url, allow_private=True)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "[::1]",
        "[fd12:3456::1]",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::10.0.0.1]",
        "localhost",
        "LOCALHOST.",
        "db.localhost",
        "printer.local",
        "vault.internal",
        "nas.home.arpa",
        "redis",
    ],
)
def test_a_private_host_is_refused_unless_the_installation_allows_it(host):
    with pytest.raises(InvalidCallbackUrl, match="public"):
        check_url(f"http://{host}/hook")
    assert check_url(f"http://{host}/hook", allow_private=True)


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "[2002:7f00:1::]",
        "[2001:db8::1]",
    ],
)
def test_metadata_services_and_addresses_without_receivers_are_refused_always(host):
    with pytest.raises(InvalidCallbackUrl, match="public"):
        check_url(f"http://{host}/latest/meta-data", allow_private=True)


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "1"],
)
def test_addresses_in_disguise_are_refused_by_their_form(host):
    with pytest.raises(InvalidCallbackUrl, match="four decimal numbers"):
        check_url(f"http://{host}/", allow_private=True)


def test_a_refusal_does_not_repeat_the_url():
    for url in ("https://bob:hunter2@example.com/", "http://10.11.12.13/?token=hunter2"):
        with pytest.raises(InvalidCallbackUrl) as refused:
            check_url(url)
        assert "hunter2" not in str(refused.value)
        assert "10.11" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Example.com/a/b?c", "https://example.com"),
        ("https://example.com:443/", "https://example.com"),
        ("http://example.com:443/", "http://example.com:443"),
        ("https://example.com.:8443/x", "https://example.com:8443"),
        ("https://[2606:4700::1111]:8443/x", "https://[2606:4700::1111]:8443"),
    ],
)
def test_urls_of_one_origin_share_a_lane(url, origin):
    assert origin_of(url) == origin


@given(st.text(max_size=60))
def test_no_text_breaks_the_check(text):
    for url in (text, f"https://{text}", f"https://example.com/{text}"):
        try:
            checked = check_url(url)
        except InvalidCallbackUrl:
            continue
        assert check_url(checked) == checked
        assert str(parse_url(checked)) == checked


@given(st.ip_addresses())
def test_no_address_that_python_calls_local_is_public(address):
    # The standard library's tables are the oracle, one way only: ours refuse more. It calls the
    # IPv6 addresses that hold IPv4 ones reserved; the next test is about those.
    assume(not any(address in network for network in IPV4_WITHIN_IPV6))
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert reach(address) is not Reach.PUBLIC


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_within_an_ipv6_one_counts_as_itself(address):
    assert reach(IPv6Address(f"::ffff:{address}")) is reach(address)
    assert reach(IPv6Address(f"64:ff9b::{address}")) is reach(address)


@given(st.ip_addresses())
def test_what_may_be_reached_may_also_be_reached_where_private_networks_are_allowed(address):
    assert not may_receive(address, allow_private=False) or may_receive(address, allow_private=True)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"])
def test_a_public_address_may_receive(address):
    assert may_receive(ip_address(address), allow_private=False)


def test_a_parsed_url_has_an_address_only_for_a_literal_address():
    assert parse_url("https://8.8.8.8/").address == IPv4Address("8.8.8.8")
    assert parse_url("https://[2606:4700::1]/").address == IPv6Address("2606:4700::1")
    assert parse_url("https://example.com/").address is None


# --- what is said ------------------------------------------------------------------------------

EVENT = CallbackEvent(
    id=UUID("0193f0c2-7d3a-7000-8000-0000000000cb"),
    message_id=UUID("0193f0c2-7d3a-7000-8000-000000000001"),
    to="+447700900123",
    status=MessageStatus.DEAD_LETTER,
    provider_code="0x00000045",
    occurred_at=datetime(2026, 11, 22, 13, 30, 5, 123456, tzinfo=UTC),
)


def test_the_body_is_exactly_the_five_fields():
    assert json.loads(EVENT.as_body().alone()) == {
        "message_id": "msg_0193f0c27d3a70008000000000000001",
        "to": "+447700900123",
        "status": "DEAD_LETTER",
        "provider_code": "0x00000045",
        "timestamp": "2026-11-22T13:30:05.123Z",
    }
    assert list(json.loads(EVENT.as_body().alone())) == [
        "message_id",
        "to",
        "status",
        "provider_code",
        "timestamp",
    ]


def test_the_bytes_of_a_single_event_are_what_they_have_always_been():
    event = replace(EVENT, provider_code='a "quote", ü', to=None)
    assert event.as_body().alone() == (
        b'{"message_id":"msg_0193f0c27d3a70008000000000000001","to":null,"status":"DEAD_LETTER",'
        b'"provider_code":"a \\"quote\\", \\u00fc","timestamp":"2026-11-22T13:30:05.123Z"}'
    )


def event(number: int) -> EventBody:
    return replace(EVENT, id=UUID(int=number)).as_body()


@given(st.lists(st.integers(1, 2**128 - 1), min_size=1, max_size=100, unique=True))
def test_events_that_travel_together_are_each_as_alone_and_have_an_id(numbers):
    events = [event(number) for number in numbers]
    assert json.loads(body_of_many(events)) == {
        "events": [json.loads(one.alone()) | {"id": one.webhook_id} for one in events]
    }


@given(st.lists(st.integers(1, 2**128 - 1), min_size=2, max_size=20, unique=True), st.randoms())
def test_the_id_of_many_is_that_of_their_set(numbers, random):
    events = [event(number) for number in numbers]
    shuffled = random.sample(events, len(events))
    assert webhook_id_of_many(shuffled) == webhook_id_of_many(events)
    assert webhook_id_of_many(events[1:]) != webhook_id_of_many(events)
    assert webhook_id_of_many(events[:1]) != events[0].webhook_id


def test_a_callback_keeps_its_id():
    assert EVENT.as_body().webhook_id == "cb_0193f0c27d3a700080000000000000cb"


# --- signatures --------------------------------------------------------------------------------


@given(key=st.binary(min_size=24, max_size=64), body=st.text(max_size=200))
def test_signatures_agree_with_the_reference_implementation(key, body):
    secret = secret_of(key)
    ours = sign(secret, "cb_1", int(NOW.timestamp()), body.encode())
    assert ours == Webhook(secret).sign("cb_1", NOW, body)


def test_the_reference_implementation_takes_our_headers():
    now = datetime.now(UTC)
    Webhook(SECRET).verify(
        EVENT.as_body().alone(),
        dict(signed_headers(SECRET, EVENT.as_body().webhook_id, now, EVENT.as_body().alone())),
    )


@given(body=st.binary(max_size=100), skew=st.integers(min_value=-300, max_value=300))
def test_what_was_signed_just_now_holds(body, skew):
    headers = signed_headers(SECRET, "cb_1", NOW, body)
    assert verify([SECRET], headers, body, NOW + timedelta(seconds=skew)) == "cb_1"


def test_header_names_may_come_in_any_case():
    headers = {n.title(): v for n, v in signed_headers(SECRET, "cb_1", NOW, b"{}").items()}
    assert verify([SECRET], headers, b"{}", NOW) == "cb_1"


def test_while_a_secret_is_replaced_both_hold():
    headers = dict(signed_headers(OTHER_SECRET, "cb_1", NOW, b"{}"))
    assert verify([SECRET, OTHER_SECRET], headers, b"{}", NOW) == "cb_1"
    both = f"{sign(SECRET, 'cb_1', int(NOW.timestamp()), b'{}')} {headers['webhook-signature']}"
    assert verify([OTHER_SECRET], {**headers, "webhook-signature": both}, b"{}", NOW) == "cb_1"


@pytest.mark.parametrize("skew", [301, -301, 86400])
def test_a_signature_from_another_time_is_refused(skew):
    headers = signed_headers(SECRET, "cb_1", NOW, b"{}")
    with pytest.raises(SignatureRefused, match="300 s"):
        verify([SECRET], headers, b"{}", NOW + timedelta(seconds=skew))


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "cb_2"},
        {"webhook-timestamp": str(int(NOW.timestamp()) + 1)},
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "v1a,AAAA nonsense ,"},
        {"webhook-signature": "\u00e9"},
    ],
)
def test_a_signature_holds_for_one_id_time_and_body_only(change):
    headers = {**signed_headers(SECRET, "cb_1", NOW, b"{}"), **change}
    with pytest.raises(SignatureRefused):
        verify([SECRET], headers, b"{}", NOW)
    with pytest.raises(SignatureRefused):
        verify([SECRET], signed_headers(SECRET, "cb_1", NOW, b"{}"), b"{ }", NOW)
    with pytest.raises(SignatureRefused):
        verify([OTHER_SECRET], signed_headers(SECRET, "cb_1", NOW, b"{}"), b"{}", NOW)
    with pytest.raises(SignatureRefused):
        verify([], signed_headers(SECRET, "cb_1", NOW, b"{}"), b"{}", NOW)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_of_the_three_headers_is_required(missing):
    headers = dict(signed_headers(SECRET, "cb_1", NOW, b"{}"))
    for value in ({}, {missing: ""}):
        rest = {name: text for name, text in headers.items() if name != missing} | value
        with pytest.raises(SignatureRefused, match="required"):
            verify([SECRET], rest, b"{}", NOW)


@pytest.mark.parametrize("timestamp", ["now", "-1", "1e9", "\u0661\u0662", "nan", "9" * 400])
def test_a_timestamp_is_a_plain_number(timestamp):
    headers = {**signed_headers(SECRET, "cb_1", NOW, b"{}"), "webhook-timestamp": timestamp}
    with pytest.raises(SignatureRefused, match="seconds since 1970"):
        verify([SECRET], headers, b"{}", NOW)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "whsec_!!!", "whsec_" + "A" * 200])
def test_a_text_that_is_no_secret_signs_nothing_and_is_not_repeated(secret):
    with pytest.raises(InvalidSecret) as refused:
        sign(secret, "cb_1", 0, b"")
    assert "AAAA" not in str(refused.value)


def test_a_bad_secret_has_another_error_than_a_bad_signature():
    with pytest.raises(InvalidSecret):
        verify([SECRET, "swordfish"], {}, b"{}", NOW)


@pytest.mark.parametrize("size", [0, 23, 65])
def test_a_secret_has_the_size_that_the_standard_asks_for(size):
    with pytest.raises(InvalidSecret):
        secret_of(bytes(size))


# --- what comes of a try -----------------------------------------------------------------------


def answered(status):
    return Response(status, trouble_of(status), seconds=0.1)


def test_retries_follow_the_schedule_to_its_end():
    at, waits, tries = NOW, [], 0
    while (
        decision := decide_retry(answered(500), tries, at, DELAYS)
    ).state is CallbackState.PENDING:
        waits.append(decision.next_at - at)
        at, tries = decision.next_at, decision.tries
    assert [wait.total_seconds() for wait in waits] == [
        5,
        5 * 60,
        30 * 60,
        2 * 3600,
        5 * 3600,
        10 * 3600,
        14 * 3600,
        20 * 3600,
        24 * 3600,
    ]
    assert decision.state is CallbackState.FAILED
    assert decision.tries == 10


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_a_delivery(status):
    assert decide_retry(answered(status), 3, NOW, DELAYS).state is CallbackState.DELIVERED


def test_gone_ends_a_callback_at_once():
    assert decide_retry(answered(GONE), 0, NOW, DELAYS).state is CallbackState.FAILED


@given(
    status=st.integers(min_value=100, max_value=599).filter(
        lambda status: status != GONE and not 200 <= status < 300
    ),
    tries=st.integers(min_value=0, max_value=8),
)
def test_whatever_else_is_answered_is_tried_again(status, tries):
    decision = decide_retry(answered(status), tries, NOW, DELAYS)
    assert decision.state is CallbackState.PENDING
    assert decision.tries == tries + 1
    assert decision.next_at > NOW


def test_without_a_schedule_there_is_one_try():
    assert decide_retry(answered(500), 0, NOW, ()).state is CallbackState.FAILED


@pytest.mark.parametrize(
    ("response", "concerns_origin"),
    [
        (answered(204), False),
        (answered(404), False),
        (answered(GONE), False),
        (answered(429), True),
        (answered(503), True),
        (Response(None, Trouble.TIMEOUT, 15.0), True),
        (Response(None, Trouble.UNREACHABLE, 0.0), True),
    ],
)
def test_a_callback_that_is_not_wanted_says_nothing_about_its_receiver(response, concerns_origin):
    assert response.concerns_origin is concerns_origin


def test_an_origin_that_stays_down_is_left_alone_for_up_to_a_minute():
    pauses = [pause_after(slices).total_seconds() for slices in range(1, 10)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pause_after(10_000).total_seconds() == 60
