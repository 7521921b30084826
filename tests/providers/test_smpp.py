"""A provider against an SMSC that speaks the real protocol and whose answers the test decides."""

import asyncio
import json
import socket
import ssl
import struct
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

import providers.binds
from domain.binds import BindError, BindFailure
from domain.configuration.providers.connections import TlsOptions
from domain.configuration.providers.message_ids import LONGEST_MESSAGE_ID
from domain.configuration.providers.smpp import SmppConfiguration, ValidityForm
from domain.error_classes import ErrorClass
from domain.modes import Priority
from domain.outcomes import OutcomeKind, PartOutcome
from domain.receipts import ReceiptState
from domain.segments import MAX_PARTS, segment
from providers.base import NoSlot, Outbound, ReceiptRefused
from providers.connections import TlsFileUnusable, tls_context
from providers.smpp import SmppProvider, parse_again, validity_period
from smpp.client import ConnectFailed
from smpp.commands import Command
from smpp.pdus import Pdu, decode, encode
from smpp.session import BindType
from smpp.statuses import Status
from smpp.tlvs import Tag, Tlv
from telemetry.metrics import REGISTRY, metric_value
from tests.fakes.scripted_smsc import ScriptedSmsc, until

RECIPIENT = "+447700900001"
LONG = "The quick brown fox jumps over the lazy dog. " * 8
CERTIFICATES = Path(__file__).parent.parent / "smpp" / "tls"
ACCEPTED, THROTTLED, REFUSED, UNREACHABLE, UNKNOWN = OutcomeKind


def message(text="Hello", *, sender="ACME", priority=Priority.NORMAL, **options):
    return Outbound(
        message_id=UUID(int=7),
        attempt=1,
        sender=sender,
        recipient=RECIPIENT,
        text=text,
        reference=options.pop("reference", 0x1234),
        valid_until=options.pop("valid_until", datetime.now(UTC) + timedelta(hours=1)),
        priority=priority,
        **options,
    )


class Carrier:
    """A provider, the SMSC behind it, and what came back."""

    def __init__(self, provider: SmppProvider, smsc: ScriptedSmsc) -> None:
        self.provider = provider
        self.smsc = smsc
        self.receipts = []
        self.unparsed = []
        self.late = []

    async def up(self) -> None:
        await asyncio.wait_for(self.provider.wait_until(up=True), 60)

    async def send(self, outbound: Outbound | None = None) -> list[PartOutcome]:
        outbound = outbound or message()
        async with self.provider.acquire(outbound.priority):
            numbers = range(1, self.provider.count_parts(outbound) + 1)
            return await self.provider.submit(outbound, numbers)

    async def deliver(self, **fields) -> Pdu:
        tlvs = fields.pop("tlvs", ())
        session = next(
            s for s in self.smsc.server.sessions if s.bind_type is not BindType.TRANSMITTER
        )
        return await session.request(
            Command.DELIVER_SM,
            {
                "source_addr": RECIPIENT.removeprefix("+").encode(),
                "destination_addr": b"ACME",
                "esm_class": 4,
                **fields,
            },
            tlvs,
        )


@pytest.fixture
async def new_carrier():
    carriers = []

    async def make(smsc_options=None, *, up=True, hold=True, **configuration):
        smsc = ScriptedSmsc(**smsc_options or {})
        await smsc.server.start()
        configuration = SmppConfiguration.model_validate(
            {
                "type": "smpp",
                "host": "127.0.0.1",
                "port": smsc.server.port,
                "system_id": "acme",
                "password": "env:UNUSED",
                "binds": 1,
                "rebind_backoff": {"min": "20ms", "max": "100ms"},
                "response_timeout": "2s",
                **configuration,
            }
        )

        async def on_receipt(receipt):
            carrier.receipts.append(receipt)

        async def on_late(response):
            carrier.late.append(response)

        async def on_unparsed(receipt):
            carrier.unparsed.append(receipt)

        provider = SmppProvider(
            "primary", configuration, "secret", on_receipt, on_late, on_unparsed
        )
        carrier = Carrier(provider, smsc)
        carriers.append(carrier)
        if hold:
            await provider.hold(configuration.binds)
        if up:
            await carrier.up()
        return carrier

    yield make
    for carrier in carriers:
        await carrier.provider.stop(timedelta(seconds=0.2))
        await carrier.smsc.server.stop(graceful=False)


def kinds(outcomes):
    return [outcome.kind for outcome in outcomes]


# What goes over the wire


async def test_a_message_is_submitted_as_configured(new_carrier):
    carrier = await new_carrier(
        tlvs=[{"tag": 0x1400, "text": "1207161"}, {"tag": 0x1401, "number": 5, "size": 2}]
    )
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    (outcome,) = await carrier.send(message(priority=Priority.HIGH, valid_until=tomorrow))
    assert outcome == PartOutcome(1, ACCEPTED, provider_message_id="1", bind="primary/1")
    (submit,) = carrier.smsc.received
    expected = {
        "source_addr": b"ACME",
        "source_addr_ton": 5,
        "destination_addr": b"447700900001",
        "dest_addr_ton": 1,
        "dest_addr_npi": 1,
        "esm_class": 0,
        "priority_flag": 2,
        "registered_delivery": 1,
        "validity_period": b"000001000000000R",
        "data_coding": 0,
        "short_message": b"Hello",
    }
    assert {name: submit.fields[name] for name in expected} == expected
    assert submit.tlvs == (
        Tlv(Tag.USER_MESSAGE_REFERENCE, b"\x12\x34"),
        Tlv(0x1400, b"1207161"),
        Tlv(0x1401, b"\0\5"),
    )


async def test_a_carriers_own_ways_are_followed(new_carrier):
    carrier = await new_carrier(
        alphabet="latin1",
        data_coding={"gsm7": 3, "ucs2": 0x18},
        source_ton=0,
        destination_npi=0,
        receipts=False,
        validity="none",
    )
    await carrier.send(message("Grüße"))
    await carrier.send(message("Привет"))
    latin, cyrillic = carrier.smsc.received
    assert latin.octets("short_message") == "Grüße".encode("latin-1")
    assert (latin.number("data_coding"), cyrillic.number("data_coding")) == (3, 0x18)
    assert cyrillic.octets("short_message") == "Привет".encode("utf-16-be")
    assert (latin.number("source_addr_ton"), latin.number("dest_addr_npi")) == (0, 0)
    assert latin.number("registered_delivery") == 0
    assert latin.octets("validity_period") == b""


@pytest.mark.parametrize("method", ["udh8", "udh16", "sar", "payload"])
async def test_a_long_message_goes_in_its_parts_over_one_bind(new_carrier, method):
    carrier = await new_carrier(parts=method, binds=3)
    await until(lambda: carrier.provider.binds_up == 3)
    outcomes = await carrier.send(message(LONG, reference=0xFFFF))
    assert set(kinds(outcomes)) == {ACCEPTED}
    assert len({outcome.bind for outcome in outcomes}) == 1
    submits = carrier.smsc.received
    assert len(submits) == len(outcomes) == (1 if method == "payload" else 3)
    references = [submit.tlv(Tag.USER_MESSAGE_REFERENCE) for submit in submits]
    assert references == [b"\xff\xff", b"\0\0", b"\0\1"][: len(submits)]
    match method:
        case "udh8" | "udh16":
            header = {"udh8": b"\x05\0\x03\xff\3\2", "udh16": b"\6\x08\4\xff\xff\3\2"}[method]
            assert submits[1].octets("short_message").startswith(header)
            assert submits[1].number("esm_class") == 0x40
        case "sar":
            assert submits[1].tlv(Tag.SAR_SEGMENT_SEQNUM) == b"\2"
            assert submits[1].number("esm_class") == 0
        case "payload":
            assert submits[0].tlv(Tag.MESSAGE_PAYLOAD) == LONG.encode()


async def test_a_text_that_has_too_many_parts_in_the_carriers_alphabet_is_refused_alone(
    new_carrier,
):
    carrier = await new_carrier(alphabet="latin1")
    outbound = message("€" + "a" * 20_000)
    assert segment(outbound.text).segments < MAX_PARTS
    assert carrier.provider.count_parts(outbound) == 1
    (outcome,) = await carrier.send(outbound)
    assert outcome == PartOutcome(1, REFUSED, code="unsendable_text", error_class=ErrorClass.ROUTE)
    assert not carrier.smsc.received


async def test_only_the_parts_that_are_asked_for_are_sent(new_carrier):
    carrier = await new_carrier()
    async with carrier.provider.acquire(Priority.NORMAL):
        outcomes = await carrier.provider.submit(message(LONG), [2])
    assert [outcome.number for outcome in outcomes] == [2]
    (submit,) = carrier.smsc.received
    assert submit.octets("short_message")[5] == 2


@pytest.mark.parametrize(
    ("form", "valid_for", "expected"),
    [
        (ValidityForm.RELATIVE, timedelta(days=35, hours=5, seconds=61), b"000105050101000R"),
        (ValidityForm.RELATIVE, timedelta(milliseconds=1), b"000000000001000R"),
        (ValidityForm.ABSOLUTE, timedelta(hours=1), b"261122123000000+"),
        (ValidityForm.NONE, timedelta(hours=1), b""),
        (ValidityForm.RELATIVE, None, b""),
    ],
)
def test_validity_is_written_in_the_carriers_form(form, valid_for, expected):
    now = datetime(2026, 11, 22, 11, 30, tzinfo=UTC)
    valid_until = None if valid_for is None else now + valid_for
    assert validity_period(form, valid_until, now) == expected


async def test_a_part_whose_answer_could_not_come_in_time_is_not_started(new_carrier):
    carrier = await new_carrier(response_timeout="5s")

    async def slow(session, pdu):
        await asyncio.sleep(0.4)
        return await carrier.smsc.accept(session, pdu)

    carrier.smsc.response = slow
    outbound = message(LONG)
    assert carrier.provider.count_parts(outbound) == 3
    async with carrier.provider.acquire(Priority.NORMAL):
        first = await carrier.provider.submit(
            outbound, [1, 2, 3], start_within=timedelta(seconds=0.2)
        )
        assert kinds(first) == [ACCEPTED, THROTTLED, UNREACHABLE]
        assert len(carrier.smsc.received) == 1
        rest = await carrier.provider.submit(outbound, [2, 3], start_within=timedelta(seconds=60))
    assert kinds(rest) == [ACCEPTED, ACCEPTED]
    assert [s.octets("short_message")[5] for s in carrier.smsc.received] == [1, 2, 3]


async def test_a_part_that_waits_for_the_rate_for_too_long_is_not_started(new_carrier):
    carrier = await new_carrier(rate=1.0)
    async with carrier.provider.acquire(Priority.NORMAL):
        outcomes = await carrier.provider.submit(
            message(LONG), [1, 2, 3], start_within=timedelta(seconds=0.2)
        )
    assert kinds(outcomes) == [ACCEPTED, THROTTLED, UNREACHABLE]
    assert len(carrier.smsc.received) == 1


async def test_the_validity_counts_from_the_moment_of_each_submit(new_carrier):
    carrier = await new_carrier(validity="relative")
    outbound = message(LONG, valid_until=datetime.now(UTC) + timedelta(seconds=59))
    for number in (1, 2):
        async with carrier.provider.acquire(Priority.NORMAL):
            await carrier.provider.submit(outbound, [number])
        await asyncio.sleep(2.1)
    first, second = (int(s.octets("validity_period")[10:12]) for s in carrier.smsc.received)
    assert second <= first - 2


async def test_each_part_is_valid_for_as_long_as_its_receipt_is_waited_for(new_carrier):
    carrier = await new_carrier(validity="relative")
    outbound = message(LONG, receipt_wait=timedelta(seconds=20))
    for number in (1, 2):
        async with carrier.provider.acquire(Priority.NORMAL):
            await carrier.provider.submit(outbound, [number])
        await asyncio.sleep(1.1)
    periods = [s.octets("validity_period") for s in carrier.smsc.received]
    assert periods == [b"000000000020000R"] * 2


async def test_a_long_reference_is_sent_where_that_makes_no_more_parts(new_carrier):
    carrier = await new_carrier()
    exact = "a" * 306
    for text in (LONG, exact):
        outbound = message(text, long_reference=True)
        assert carrier.provider.count_parts(outbound) == segment(text).segments
        await carrier.send(outbound)
    headers = [s.octets("short_message")[:6] for s in carrier.smsc.received]
    assert [h[:3] for h in headers] == [b"\x06\x08\x04"] * 3 + [b"\x05\x00\x03"] * 2
    assert headers[0][3:5] == (0x1234).to_bytes(2)
    assert headers[3][3] == 0x34


@given(
    st.sampled_from(ValidityForm),
    st.timedeltas(min_value=timedelta(), max_value=timedelta(days=3660)),
)
def test_any_validity_that_can_be_declared_has_its_place_in_a_pdu(form, valid_for):
    now = datetime(2026, 11, 22, 11, 30, tzinfo=UTC)
    written = validity_period(form, now + valid_for, now)
    encode(Pdu(Command.SUBMIT_SM, fields={"validity_period": written}))


# What comes of it


@pytest.mark.parametrize(
    ("status", "kind", "error_class"),
    [
        (Status.ESME_RINVDSTADR, REFUSED, ErrorClass.INVALID_RECIPIENT),
        (Status.ESME_RSYSERR, REFUSED, ErrorClass.TEMPORARY),
        (Status.ESME_RTHROTTLED, THROTTLED, ErrorClass.THROTTLED),
        (Status.ESME_RMSGQFUL, THROTTLED, ErrorClass.QUEUE_FULL),
        (0x00000400, REFUSED, ErrorClass.ROUTE),
        (0x00000401, REFUSED, ErrorClass.BLOCKED),
        (0x00000402, THROTTLED, ErrorClass.THROTTLED),
    ],
)
async def test_a_refusal_has_its_code_and_class(new_carrier, status, kind, error_class):
    carrier = await new_carrier(errors={"0x401": "blocked", "0x402": "throttled"})

    async def refuse(session, pdu):
        return pdu.reply(status)

    carrier.smsc.response = refuse
    (outcome,) = await carrier.send()
    assert outcome == PartOutcome(
        1, kind, code=f"0x{status:08x}", error_class=error_class, bind="primary/1"
    )


async def test_a_nack_is_a_refusal_too(new_carrier):
    carrier = await new_carrier()

    async def nack(session, pdu):
        return Pdu(Command.GENERIC_NACK, Status.ESME_RINVCMDLEN, pdu.sequence)

    carrier.smsc.response = nack
    (outcome,) = await carrier.send()
    assert (outcome.kind, outcome.code) == (REFUSED, "0x00000002")


@pytest.mark.parametrize(
    ("status", "kind"), [(Status.ESME_RINVDSTADR, REFUSED), (Status.ESME_RTHROTTLED, THROTTLED)]
)
async def test_behind_a_part_that_was_not_taken_none_is_sent(new_carrier, status, kind):
    carrier = await new_carrier()

    async def refuse_second(session, pdu):
        return pdu.reply(status if len(carrier.smsc.received) == 2 else 0, {"message_id": b"1"})

    carrier.smsc.response = refuse_second
    before = metric_value(
        "smsgateway_attempts_total",
        {"provider": "primary", "outcome": "accepted", "error_class": "none", "code": "none"},
    )
    outcomes = await carrier.send(message(LONG))
    assert kinds(outcomes) == [ACCEPTED, kind, UNREACHABLE]
    assert [outcome.number for outcome in outcomes] == [1, 2, 3]
    assert len(carrier.smsc.received) == 2
    after = metric_value(
        "smsgateway_attempts_total",
        {"provider": "primary", "outcome": "accepted", "error_class": "none", "code": "none"},
    )
    assert after == before + 1


async def test_a_response_timeout_is_unknown_and_the_late_response_is_reported(new_carrier):
    carrier = await new_carrier(response_timeout="50ms")
    go_on = asyncio.Event()

    async def late(session, pdu):
        await go_on.wait()
        return pdu.reply(fields={"message_id": b"late"})

    carrier.smsc.response = late
    outcomes = await carrier.send(message(LONG))
    assert kinds(outcomes) == [UNKNOWN, UNREACHABLE, UNREACHABLE]
    assert outcomes[0].error_class is ErrorClass.UNKNOWN
    assert not carrier.late
    go_on.set()
    await until(lambda: carrier.late)
    (response,) = carrier.late
    assert (response.message_id, response.attempt) == (UUID(int=7), 1)
    assert response.outcome == PartOutcome(
        1, ACCEPTED, provider_message_id="late", bind="primary/1"
    )


async def test_a_cut_connection_is_unknown_only_for_what_had_left(new_carrier):
    carrier = await new_carrier(binds=2)
    await until(lambda: carrier.provider.binds_up == 2)

    async def reset(session, pdu):
        await session.close(reset=True)

    carrier.smsc.response = reset
    outcomes = await carrier.send(message(LONG))
    assert kinds(outcomes) == [UNKNOWN, UNREACHABLE, UNREACHABLE]
    assert len(carrier.smsc.received) == 1


async def test_what_never_left_goes_over_another_bind_at_once(new_carrier):
    carrier = await new_carrier(binds=2)
    provider = carrier.provider
    await until(lambda: provider.binds_up == 2)
    first = provider._binds.freest()
    # It passes for open until the moment of writing, as a bind that ends just then does.
    first._transport.close()
    (outcome,) = await carrier.send()
    assert outcome.kind is ACCEPTED
    assert outcome.bind != first.name
    assert len(carrier.smsc.received) == 1


async def test_with_no_bind_nothing_is_sent(new_carrier):
    carrier = await new_carrier(rebind_backoff={"min": "10s", "max": "10s"})
    async with carrier.provider.acquire(Priority.NORMAL):
        await carrier.smsc.session.close()
        await carrier.provider.wait_until(up=False)
        outcomes = await carrier.provider.submit(message(), [1])
    assert outcomes == [PartOutcome(1, UNREACHABLE, error_class=ErrorClass.UNREACHABLE)]
    with pytest.raises(NoSlot) as refused:
        await carrier.send()
    assert refused.value.error_class is ErrorClass.UNREACHABLE


async def test_an_accepted_part_without_an_id_is_accepted(new_carrier):
    carrier = await new_carrier()

    async def nameless(session, pdu):
        return pdu.reply()

    carrier.smsc.response = nameless
    (outcome,) = await carrier.send()
    assert (outcome.kind, outcome.provider_message_id) == (ACCEPTED, None)


@pytest.mark.parametrize(
    "written",
    [b"7" * 64, b"7" * 66, b"\xff\x80" * 2000, b"7" * 4000],
    ids=["64 octets", "66 octets", "4000 octets of no charset", "4000 digits"],
)
@pytest.mark.parametrize("form", ["as_is", "hex"])
async def test_an_id_longer_than_its_specification_allows_is_cut_to_its_length(
    new_carrier, monkeypatch, written, form
):
    def write_any_length(self, fields, out):
        out.append(bytes(fields.get(self.name, b"")) + b"\0")

    monkeypatch.setattr("smpp.fields.CString.write", write_any_length)
    carrier = await new_carrier(message_id={"response": form})

    async def at_length(session, pdu):
        return pdu.reply(fields={"message_id": written})

    carrier.smsc.response = at_length
    (outcome,) = await carrier.send()
    assert outcome.kind is ACCEPTED
    assert 0 < len(outcome.provider_message_id) <= LONGEST_MESSAGE_ID
    assert len(outcome.provider_message_id_given or "") <= LONGEST_MESSAGE_ID


# Window, rate and priority


async def test_the_windows_of_all_binds_are_filled_and_never_exceeded(new_carrier):
    carrier = await new_carrier(binds=2, window=3)
    await until(lambda: carrier.provider.binds_up == 2)
    waiting = []

    async def wait(session, pdu):
        opened = asyncio.get_running_loop().create_future()
        waiting.append((session, opened))
        await opened
        return pdu.reply(fields={"message_id": b"1"})

    carrier.smsc.response = wait
    sends = [asyncio.ensure_future(carrier.send()) for _ in range(20)]
    for done in range(20):
        await until(lambda done=done: len(waiting) == min(20, done + 6))
        open_ones = Counter(session for session, opened in waiting if not opened.done())
        assert max(open_ones.values()) <= 3
        waiting[done][1].set_result(None)
        await until(lambda done=done: sum(send.done() for send in sends) == done + 1)
    assert {(await send)[0].kind for send in sends} == {ACCEPTED}


async def test_the_rate_holds_and_counts_parts(new_carrier):
    carrier = await new_carrier(rate=50.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*[carrier.send(message(LONG)) for _ in range(10)])
    # 30 parts, 6 of them by the burst
    assert loop.time() - began > 24 / 50 - 0.05
    assert len(carrier.smsc.received) == 30


async def test_under_scarcity_the_urgent_goes_first(new_carrier):
    carrier = await new_carrier(rate=50.0)
    for _ in range(6):
        await carrier.send()
    carrier.smsc.received.clear()
    sends = []
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL):
        sends += [asyncio.ensure_future(carrier.send(message(priority=priority))) for _ in range(3)]
        await asyncio.sleep(0)
    await asyncio.gather(*sends)
    flags = [submit.number("priority_flag") for submit in carrier.smsc.received]
    assert flags[1:] == sorted(flags[1:], reverse=True)


async def test_throttling_slows_the_rate_for_a_while(new_carrier):
    carrier = await new_carrier(rate=100.0)

    async def throttle(session, pdu):
        return pdu.reply(Status.ESME_RTHROTTLED)

    carrier.smsc.response = throttle
    with capture_logs() as logs:
        await asyncio.gather(*[carrier.send() for _ in range(10)])
        assert 45 < carrier.provider.current_rate < 85
        assert metric_value("smsgateway_rate_ratio", {"provider": "primary"}) < 0.9
        carrier.smsc.response = carrier.smsc.accept
        await until(lambda: carrier.provider.rate_ratio == 1, within=60)
        await until(lambda: len(events(logs, "provider_slow")) == 2, within=60)
    began, ended = events(logs, "provider_slow")
    assert (began["event"], began["error_class"]) == ("provider_slowed", "throttled")
    assert (ended["event"], ended["provider"]) == ("provider_slowdown_ended", "primary")


def events(logs, prefix):
    return [entry for entry in logs if entry["event"].startswith(prefix)]


@pytest.mark.parametrize("rate", [None, 500.0])
async def test_recipients_whose_queue_is_full_slow_nobody_down(new_carrier, rate):
    carrier = await new_carrier(rate=rate, window=50)
    count = 0

    async def sometimes_full(session, pdu):
        nonlocal count
        count += 1
        full = count % 33 == 7
        return pdu.reply(Status.ESME_RMSGQFUL if full else 0, {"message_id": b"%d" % count})

    carrier.smsc.response = sometimes_full
    lowest = 1.0

    async def send():
        nonlocal lowest
        outcomes = await carrier.send()
        lowest = min(lowest, carrier.provider.rate_ratio)
        return outcomes[0].error_class

    sent = []
    for _ in range(12):  # as many at once as the window takes
        sent += await asyncio.gather(*[send() for _ in range(50)])
    assert Counter(sent) == {None: 582, ErrorClass.QUEUE_FULL: 18}
    assert lowest == 1


# Binds


async def test_binds_come_up_and_are_named(new_carrier):
    carrier = await new_carrier(binds=3, up=False)
    assert not carrier.provider.up
    await carrier.up()
    await until(lambda: carrier.provider.binds_up == 3)
    assert metric_value("smsgateway_binds", {"provider": "primary", "state": "up"}) == 3
    assert [bind.password for bind in carrier.smsc.binds] == ["secret"] * 3


async def test_a_pair_of_sessions_sends_by_one_and_hears_by_the_other(new_carrier):
    carrier = await new_carrier(bind="transmitter_receiver")
    await bound(carrier, BindType.TRANSMITTER, BindType.RECEIVER)
    assert carrier.provider.binds_up == 1
    (outcome,) = await carrier.send()
    assert outcome.kind is ACCEPTED
    response = await carrier.deliver(short_message=b"id:1 stat:DELIVRD err:000")
    assert response.status == 0
    assert carrier.receipts[0].state is ReceiptState.DELIVERED


PAIR = {"bind": "transmitter_receiver", "up": False}
"""Two sessions: one sends, the other receives."""


async def bound(carrier: Carrier, *types: BindType) -> None:
    """Wait until the SMSC has exactly these sessions."""
    await until(
        lambda: sorted(s.bind_type for s in carrier.smsc.server.sessions) == sorted(types), 30
    )


async def test_without_a_receiver_nothing_is_sent_where_receipts_are_promised(new_carrier):
    carrier = await new_carrier(**PAIR, hold=False)
    carrier.smsc.refused = frozenset({BindType.RECEIVER})
    await carrier.provider.hold(1)
    await until(lambda: carrier.provider.last_bind_error is not None, 30)
    await bound(carrier, BindType.TRANSMITTER)
    assert (carrier.provider.up, carrier.provider.binds_up, carrier.provider.capacity) == (
        False,
        0,
        0,
    )
    with pytest.raises(NoSlot) as refused:
        await carrier.send()
    assert refused.value.error_class is ErrorClass.UNREACHABLE
    assert carrier.provider.last_bind_error == BindError(
        BindFailure.BIND_REFUSED, "ESME_RBINDFAIL", "receiver"
    )
    carrier.smsc.refused = frozenset()
    await carrier.up()
    assert not carrier.provider.last_bind_error.is_current
    assert kinds(await carrier.send()) == [ACCEPTED]


async def test_without_a_receiver_a_provider_without_receipts_is_up(new_carrier):
    carrier = await new_carrier(**PAIR, hold=False, receipts=False)
    carrier.smsc.refused = frozenset({BindType.RECEIVER})
    await carrier.provider.hold(1)
    await carrier.up()
    assert kinds(await carrier.send()) == [ACCEPTED]


async def test_a_provider_whose_only_receiver_is_lost_is_down_until_it_is_bound_again(new_carrier):
    carrier = await new_carrier(**PAIR)
    await carrier.up()
    carrier.smsc.refused = frozenset({BindType.RECEIVER})
    receiver = next(s for s in carrier.smsc.server.sessions if s.bind_type is BindType.RECEIVER)
    await receiver.close(reset=True)
    await asyncio.wait_for(carrier.provider.wait_until(up=False), 30)
    assert carrier.provider.last_bind_error.session == "receiver"
    carrier.smsc.refused = frozenset()
    await carrier.up()


async def test_what_a_message_has_begun_ends_also_without_a_receiver(new_carrier):
    carrier = await new_carrier(**PAIR)
    await carrier.up()
    (receiver,) = (s for s in carrier.smsc.server.sessions if s.bind_type is BindType.RECEIVER)

    async def accept(session, pdu):
        if receiver.is_open:
            carrier.smsc.refused = frozenset({BindType.RECEIVER})
            await receiver.close(reset=True)
            await asyncio.wait_for(carrier.provider.wait_until(up=False), 30)
        return await carrier.smsc.accept(session, pdu)

    carrier.smsc.response = accept
    assert kinds(await carrier.send(message(LONG))) == [ACCEPTED] * 3


async def test_one_receiver_is_enough_for_two_transmitters(new_carrier):
    carrier = await new_carrier(**PAIR, binds=2)
    await bound(carrier, *[BindType.TRANSMITTER, BindType.RECEIVER] * 2)
    carrier.smsc.refused = frozenset({BindType.RECEIVER})
    receiver = next(s for s in carrier.smsc.server.sessions if s.bind_type is BindType.RECEIVER)
    await receiver.close(reset=True)
    await until(lambda: carrier.provider.last_bind_error is not None, 30)
    assert carrier.provider.up
    assert carrier.provider.binds_up == 2


async def test_a_lost_bind_makes_the_provider_down_and_is_bound_again(new_carrier):
    carrier = await new_carrier()
    await carrier.smsc.session.close(reset=True)
    await asyncio.wait_for(carrier.provider.wait_until(up=False), 60)
    await carrier.up()
    (outcome,) = await carrier.send()
    assert outcome.kind is ACCEPTED


async def test_a_carrier_that_is_down_or_refuses_is_asked_again_and_again(new_carrier):
    carrier = await new_carrier(up=False, rebind_backoff={"min": "5ms", "max": "20ms"})
    carrier.smsc.bind_status = Status.ESME_RBINDFAIL
    await until(lambda: len(carrier.smsc.binds) >= 4)
    assert not carrier.provider.up
    port = carrier.smsc.server.port
    await carrier.smsc.server.stop(graceful=False)
    await asyncio.sleep(0.05)
    carrier.smsc = ScriptedSmsc()
    carrier.smsc.server.port = port
    await carrier.smsc.server.start()
    await carrier.up()


async def test_a_bind_that_the_smsc_does_not_know_is_begun_anew(new_carrier):
    carrier = await new_carrier()

    async def who_are_you(session, pdu):
        return pdu.reply(Status.ESME_RINVBNDSTS)

    carrier.smsc.response = who_are_you
    (outcome,) = await carrier.send()
    assert (outcome.kind, outcome.error_class) == (REFUSED, ErrorClass.SESSION)
    await until(lambda: len(carrier.smsc.binds) == 2)
    carrier.smsc.response = carrier.smsc.accept
    await carrier.up()
    assert kinds(await carrier.send()) == [ACCEPTED]


async def test_a_password_that_is_too_long_is_no_crash(new_carrier):
    carrier = await new_carrier(up=False)
    carrier.provider._binds._password = "much too long"
    await carrier.provider.hold(0)
    await carrier.provider.hold(1)
    await until(lambda: carrier.provider.last_bind_error is not None, 30)
    assert carrier.provider.last_bind_error.reason is BindFailure.PASSWORD_TOO_LONG
    assert not carrier.provider.up
    assert all(not keeper.done() for keeper in carrier.provider._binds._keepers.values())


async def test_a_host_that_is_no_name_is_no_crash(new_carrier):
    carrier = await new_carrier(up=False, host="smsc..example")
    await asyncio.sleep(0.05)
    assert not carrier.provider.up
    assert all(not keeper.done() for keeper in carrier.provider._binds._keepers.values())


async def test_why_a_bind_does_not_come_about_is_known_until_it_does(new_carrier):
    carrier = await new_carrier(up=False, hold=False)
    carrier.smsc.bind_status = Status.ESME_RINVPASWD
    await carrier.provider.hold(1)
    await until(lambda: carrier.provider.last_bind_error is not None, 30)
    assert carrier.provider.last_bind_error == BindError(
        BindFailure.BIND_REFUSED, "ESME_RINVPASWD", "transceiver"
    )
    await carrier.smsc.server.stop(graceful=False)
    await until(
        lambda: carrier.provider.last_bind_error.reason is BindFailure.CONNECTION_REFUSED, 30
    )
    assert carrier.provider.last_bind_error.code == "ConnectionRefusedError"
    await carrier.provider.hold(0)
    assert carrier.provider.last_bind_error is None


GAI = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
BOTH = "Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno {}] Connect (2)"
CONNECT_FAILURES = [
    (ConnectionRefusedError(), BindFailure.CONNECTION_REFUSED),
    (OSError(BOTH.format(111)), BindFailure.CONNECTION_REFUSED),
    (OSError(BOTH.format(113)), BindFailure.CONNECT_FAILED),
    (GAI, BindFailure.HOST_NOT_FOUND),
    (UnicodeError(), BindFailure.HOST_NOT_FOUND),
    (TimeoutError(), BindFailure.TIMEOUT),
    (ssl.SSLError("wrong version number"), BindFailure.TLS_FAILED),
    (ConnectionResetError(), BindFailure.CONNECT_FAILED),
]


@pytest.mark.parametrize(("cause", "reason"), CONNECT_FAILURES)
async def test_the_kind_of_a_failed_connection_is_known_and_counted(
    new_carrier, monkeypatch, cause, reason
):
    real, fails = providers.binds.connect, True

    async def connect(*args, **kwargs):
        if fails:
            raise ConnectFailed from cause
        return await real(*args, **kwargs)

    monkeypatch.setattr(providers.binds, "connect", connect)
    carrier = await new_carrier(up=False)
    await until(lambda: carrier.provider.last_bind_error is not None, 30)
    error = carrier.provider.last_bind_error
    assert (error.reason, error.is_current) == (reason, True)
    labels = {"provider": carrier.provider.name, "reason": reason.value}
    assert REGISTRY.get_sample_value("smsgateway_bind_errors", labels) == 1
    fails = False
    await carrier.up()
    assert REGISTRY.get_sample_value("smsgateway_bind_errors", labels) is None
    past = carrier.provider.last_bind_error
    assert (past.reason, past.is_current, past.at <= past.ended_at) == (reason, False, True)


async def test_a_bind_goes_on_after_a_failure_that_nobody_foresaw(new_carrier, monkeypatch):
    real, failed = providers.binds.connect, []

    async def fails_first(*args, **kwargs):
        if not failed:
            failed.append(True)
            raise ValueError("label too long")
        return await real(*args, **kwargs)

    monkeypatch.setattr(providers.binds, "connect", fails_first)
    carrier = await new_carrier(up=False)
    await until(lambda: carrier.provider.last_bind_error is not None, 30)
    assert carrier.provider.last_bind_error.reason is BindFailure.UNEXPECTED
    await asyncio.wait_for(carrier.provider.wait_until(up=True), 60)
    assert not carrier.provider.last_bind_error.is_current


async def test_a_graceful_stop_loses_nothing(new_carrier):
    carrier = await new_carrier(binds=2, window=5, rate=500.0)

    async def slow(session, pdu):
        await asyncio.sleep(0.05)
        return pdu.reply(fields={"message_id": b"1"})

    carrier.smsc.response = slow
    sends = [asyncio.ensure_future(carrier.send(message(LONG))) for _ in range(30)]
    await asyncio.sleep(0.1)
    await carrier.provider.stop(timedelta(seconds=5))
    assert not carrier.provider.up
    results = await asyncio.gather(*sends, return_exceptions=True)
    ends = Counter(type(r).__name__ if isinstance(r, NoSlot) else r[-1].kind for r in results)
    assert set(ends) <= {ACCEPTED, "NoSlot"}
    assert ends[ACCEPTED] >= 1
    assert len(carrier.smsc.received) == 3 * ends[ACCEPTED]
    with pytest.raises(NoSlot):
        await carrier.send()
    await until(lambda: not carrier.smsc.server.sessions)
    assert {session.close_reason for session in carrier.smsc.closed} == {"unbound by the peer"}


async def test_a_stop_does_not_wait_for_ever(new_carrier):
    carrier = await new_carrier(response_timeout="60s")
    carrier.smsc.response = carrier.smsc.silence
    send = asyncio.ensure_future(carrier.send(message(LONG)))
    await until(lambda: carrier.smsc.received)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await carrier.provider.stop(timedelta(seconds=0.1))
    assert loop.time() - began < 2
    assert kinds(await send) == [UNKNOWN, UNREACHABLE, UNREACHABLE]


@pytest.mark.parametrize("missing", ["ca", "cert", "key"])
def test_a_tls_file_that_cannot_be_read_is_named_by_its_key_and_path(tmp_path, missing):
    paths = {"cert": str(CERTIFICATES / "cert.pem"), "key": str(CERTIFICATES / "key.pem")}
    paths[missing] = str(tmp_path / "away.pem")
    with pytest.raises(TlsFileUnusable) as raised:
        tls_context(TlsOptions.model_construct(**paths))
    assert raised.value.subject == f'tls.{missing} = "{paths[missing]}"'
    assert raised.value.cause == "FileNotFoundError"


def test_a_certificate_that_is_none_is_named_with_its_key(tmp_path):
    certificate = tmp_path / "cert.pem"
    certificate.write_text("no certificate")
    key = str(CERTIFICATES / "key.pem")
    with pytest.raises(TlsFileUnusable) as raised:
        tls_context(TlsOptions.model_construct(cert=str(certificate), key=key))
    assert str(certificate) in raised.value.subject
    assert raised.value.cause == "SSLError"


async def test_tls_is_used_and_the_certificate_checked(new_carrier):
    at_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    at_server.load_cert_chain(CERTIFICATES / "cert.pem", CERTIFICATES / "key.pem")
    trusted = await new_carrier({"tls": at_server}, tls={"ca": str(CERTIFICATES / "cert.pem")})
    assert kinds(await trusted.send()) == [ACCEPTED]
    careless = await new_carrier({"tls": at_server}, tls={"verify": False})
    assert kinds(await careless.send()) == [ACCEPTED]
    suspicious = await new_carrier({"tls": at_server}, tls=True, up=False)
    await asyncio.sleep(0.2)
    assert not suspicious.provider.up
    assert not suspicious.smsc.binds
    await until(lambda: suspicious.provider.last_bind_error is not None, 30)
    error = suspicious.provider.last_bind_error
    assert error.reason is BindFailure.TLS_FAILED
    assert "SSLCertVerificationError: the certificate is self-signed" in error.sentence


# Receipts


async def test_a_receipt_is_stored_before_it_is_answered(new_carrier):
    carrier = await new_carrier()
    stored = asyncio.Event()

    async def store(receipt):
        await stored.wait()

    carrier.provider._on_receipt = store
    delivery = asyncio.ensure_future(carrier.deliver(short_message=b"id:1 stat:DELIVRD"))
    await asyncio.sleep(0.05)
    assert not delivery.done()
    stored.set()
    assert (await delivery).status == 0


async def test_a_receipt_that_cannot_be_stored_is_asked_for_again(new_carrier):
    carrier = await new_carrier()

    async def broken(receipt):
        raise RuntimeError("the database is away")

    carrier.provider._on_receipt = broken
    response = await carrier.deliver(short_message=b"id:1 stat:DELIVRD")
    assert response.status == Status.ESME_RX_T_APPN


async def test_a_receipt_that_can_never_be_stored_is_not_asked_for_again(new_carrier):
    carrier = await new_carrier()

    async def refusing(receipt):
        raise ReceiptRefused

    carrier.provider._on_receipt = refusing
    response = await carrier.deliver(short_message=b"id:1 stat:DELIVRD")
    assert response.status == Status.ESME_RX_P_APPN


async def test_an_id_that_is_longer_than_any_response_had_is_no_other_id(new_carrier):
    carrier = await new_carrier()
    for last in (b"1", b"2"):
        await carrier.deliver(short_message=b"id:%s%s stat:DELIVRD" % (b"0" * 70, last))
    ids = [receipt.provider_message_id for receipt in carrier.receipts]
    assert len(set(ids)) == 2
    assert {len(each) for each in ids} == {65}


async def test_a_receipt_has_every_field_that_the_pdu_has(new_carrier):
    carrier = await new_carrier(echoes_reference=True)
    await carrier.deliver(
        short_message=b"id:ab sub:001 dlvrd:000 done date:2611221131 stat:UNDELIV err:027 text:",
        tlvs=(Tlv(Tag.USER_MESSAGE_REFERENCE, b"\x12\x34"),),
    )
    (receipt,) = carrier.receipts
    assert receipt.provider == "primary"
    assert (receipt.provider_message_id, receipt.code) == ("ab", "027")
    assert receipt.state is ReceiptState.UNDELIVERABLE
    assert receipt.reference == 0x1234
    assert (receipt.sender, receipt.recipient) == ("ACME", RECIPIENT)
    assert receipt.done_at == datetime(2026, 11, 22, 11, 31, tzinfo=UTC)
    assert "4477" not in repr(receipt)


async def test_a_network_error_stands_in_for_a_missing_code(new_carrier):
    carrier = await new_carrier()
    await carrier.deliver(
        tlvs=(
            Tlv(Tag.RECEIPTED_MESSAGE_ID, b"7\0"),
            Tlv(Tag.MESSAGE_STATE, b"\5"),
            Tlv(Tag.NETWORK_ERROR_CODE, b"\3\0\x1b"),
            Tlv(Tag.USER_MESSAGE_REFERENCE, b"\x12\x34"),
        )
    )
    (receipt,) = carrier.receipts
    assert (receipt.provider_message_id, receipt.code) == ("7", "27")
    assert receipt.reference is None  # this carrier does not echo ours


@pytest.mark.parametrize(
    ("destination", "sender"),
    [
        (b"447700900002", "+447700900002"),
        (b"+447700900002", "+447700900002"),
        (b"12345", "12345"),
        (b"ACME", "ACME"),
        (b"", None),
    ],
)
async def test_the_sender_of_a_receipt_is_as_it_was_accepted(new_carrier, destination, sender):
    carrier = await new_carrier()
    await carrier.deliver(short_message=b"id:1 stat:DELIVRD", destination_addr=destination)
    assert carrier.receipts[0].sender == sender


async def test_ids_meet_whatever_base_they_are_written_in(new_carrier):
    carrier = await new_carrier(message_id={"response": "hex", "receipt": "decimal"})

    async def hexadecimal(session, pdu):
        return pdu.reply(fields={"message_id": b"000001F"})

    carrier.smsc.response = hexadecimal
    (outcome,) = await carrier.send()
    await carrier.deliver(short_message=b"id:0000000031 stat:DELIVRD")
    assert outcome.provider_message_id == carrier.receipts[0].provider_message_id == "31"
    assert outcome.provider_message_id_given == "000001F"


CASES = json.loads((Path(__file__).parent.parent / "smpp/carriers_receipts.json").read_text())


@pytest.mark.parametrize("case", CASES["receipts"], ids=lambda case: case["name"])
async def test_a_receipt_of_a_real_smsc_says_what_it_means_and_of_which_message(new_carrier, case):
    carrier = await new_carrier(**case.get("configuration", {}))

    async def response(session, pdu):
        return pdu.reply(fields={"message_id": case["answered"].encode()})

    carrier.smsc.response = response
    (outcome,) = await carrier.send()
    text = bytes.fromhex(case.get("header", "")) + case["text"].encode()
    tlvs = [Tlv(int(tag, 16), bytes.fromhex(v)) for tag, v in case.get("tlvs", {}).items()]
    behind = bytes.fromhex(case.get("behind", ""))
    fields = {
        "source_addr": RECIPIENT.removeprefix("+").encode(),
        "destination_addr": b"ACME",
        "esm_class": case.get("esm_class", 4),
        "data_coding": case.get("data_coding", 0),
        "short_message": text,
    }
    frame = encode(Pdu(Command.DELIVER_SM, 0, 0x7000, fields, tuple(tlvs)))
    octets = struct.pack(">I", len(frame) + len(behind)) + frame[4:] + behind
    carrier.smsc.session._queue(octets)
    await until(lambda: carrier.receipts or carrier.unparsed, within=60)
    assert not carrier.unparsed
    (receipt,) = carrier.receipts
    assert receipt.state == case["state"]
    if outcome.provider_message_id is None:
        assert receipt.reference == message().reference
    else:
        assert receipt.provider_message_id == outcome.provider_message_id


@pytest.mark.parametrize(
    ("forms", "answered", "in_text", "in_tlv"),
    [
        ({}, b"ABC-DEF", b"abc-def", b""),
        ({}, b"abc-def", b"ABC-DEF", b""),
        ({}, b"ABC-DEF", b"", b"abc-def\0"),
        ({}, b"aBc", b"aBc", b""),
        ({"case_sensitive": True}, b"ABC", b"ABC", b""),
        ({"response": "hex", "receipt": "decimal"}, b"1B59", b"7001", b""),
        ({"response": "hex", "receipt": "decimal"}, b"1B59", b"", b"1b59"),
        ({"response": "hex", "receipt": "decimal"}, b"1234", b"4660", b"1234"),
        ({"response": "hex", "receipt": "decimal"}, b"1234", b"4660", b"4660"),
        ({"response": "hex", "receipt": "decimal"}, b"1B59", b"1b59", b""),
        ({"response": "decimal", "receipt": "hex"}, b"7001", b"1B59", b"7001"),
        ({"response": "decimal", "receipt": "hex"}, b"7001", b"1B59", b"1B59"),
        ({"response": "hex", "receipt": "decimal", "tlv": "hex"}, b"1234", b"", b"1234"),
    ],
)
async def test_the_id_of_a_receipt_is_that_of_its_response(
    new_carrier, forms, answered, in_text, in_tlv
):
    carrier = await new_carrier(message_id=forms)

    async def response(session, pdu):
        return pdu.reply(fields={"message_id": answered})

    carrier.smsc.response = response
    (outcome,) = await carrier.send()
    tlvs = [Tlv(Tag.RECEIPTED_MESSAGE_ID, in_tlv)] if in_tlv else []
    await carrier.deliver(short_message=b"id:%b stat:DELIVRD" % in_text, tlvs=tlvs)
    (receipt,) = carrier.receipts
    assert receipt.provider_message_id == outcome.provider_message_id
    given = outcome.provider_message_id_given or outcome.provider_message_id
    assert given.encode() == answered


async def test_ids_that_differ_in_capitals_are_two_where_that_is_declared(new_carrier):
    carrier = await new_carrier(message_id={"case_sensitive": True})
    for message_id in (b"ABC", b"abc"):
        await carrier.deliver(short_message=b"id:%b stat:DELIVRD" % message_id)
    assert [receipt.provider_message_id for receipt in carrier.receipts] == ["ABC", "abc"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "unknown_state"),
        (b"id:7 stat:QUANTUM", "unknown_state"),
        (b"id:7 err:000", "unknown_state"),
        (b"stat:DELIVRD err:000", "no_message_id"),
        (bytes(range(200, 254)), "unknown_state"),
    ],
)
async def test_a_receipt_that_cannot_be_parsed_is_kept_before_it_is_answered(
    new_carrier, text, reason
):
    carrier = await new_carrier()
    labels = {"provider": "primary", "reason": reason}
    before = metric_value("smsgateway_unparsed_receipts_total", labels)
    response = await carrier.deliver(short_message=text)
    assert response.status == Status.ESME_ROK
    assert not carrier.receipts
    (kept,) = carrier.unparsed
    assert (kept.provider, kept.reason) == ("primary", reason)
    assert decode(kept.frame).octets("short_message") == text
    assert "4477" not in repr(kept)
    assert metric_value("smsgateway_unparsed_receipts_total", labels) == before + 1
    assert parse_again("primary", carrier.provider._configuration, kept.frame) == reason


async def test_a_receipt_that_cannot_be_parsed_is_parsed_after_its_state_was_declared(new_carrier):
    carrier = await new_carrier()
    await carrier.deliver(short_message=b"id:7 stat:QUANTUM")
    (kept,) = carrier.unparsed
    declared = SmppConfiguration.model_validate(
        {
            **carrier.provider._configuration.model_dump(),
            "receipt_states": {"quantum": "delivered"},
        }
    )
    receipt, *others = parse_again("primary", declared, kept.frame)
    assert others == []
    assert (receipt.provider_message_id, receipt.state) == ("7", ReceiptState.DELIVERED)


async def test_a_delivery_that_cannot_be_read_is_kept_too(new_carrier):
    carrier = await new_carrier()
    labels = {"provider": "primary", "command": "deliver_sm", "outcome": "malformed"}
    before = metric_value("smsgateway_irregular_pdus_total", labels)
    frame = struct.pack(">4I", 22, Command.DELIVER_SM, 0, 7) + b"CMT\0\x01\x01"
    carrier.smsc.session._queue(frame)
    await until(lambda: carrier.unparsed, within=60)
    assert (carrier.unparsed[0].reason, carrier.unparsed[0].frame) == ("malformed_pdu", frame)
    assert metric_value("smsgateway_irregular_pdus_total", labels) == before + 1


async def test_a_receipt_that_can_neither_be_parsed_nor_kept_comes_again(new_carrier):
    carrier = await new_carrier()

    async def fails(receipt):
        raise OSError

    carrier.provider._on_unparsed_receipt = fails
    response = await carrier.deliver(short_message=b"id:7 stat:QUANTUM")
    assert response.status == Status.ESME_RX_T_APPN


async def test_an_inbound_message_is_refused_for_good(new_carrier):
    carrier = await new_carrier()
    response = await carrier.deliver(short_message=b"STOP", esm_class=0)
    assert response.status == Status.ESME_RX_R_APPN
    assert not carrier.receipts


async def test_what_an_esme_is_not_asked_is_refused(new_carrier):
    carrier = await new_carrier()
    response = await carrier.smsc.session.request(Command.SUBMIT_SM)
    assert response.status == Status.ESME_RINVCMDID


# Asking about what was sent


async def test_a_message_is_recalled_by_its_id_and_addresses(new_carrier):
    carrier = await new_carrier(message_id={"response": "hex", "receipt": "decimal"})
    assert await carrier.provider.cancel_at_provider("0001F", sender="ACME", recipient=RECIPIENT)
    (cancel,) = carrier.smsc.received
    assert cancel.command is Command.CANCEL_SM
    assert cancel.octets("message_id") == b"0001F"
    assert cancel.octets("source_addr") == b"ACME"
    assert cancel.octets("destination_addr") == b"447700900001"

    async def no(session, pdu):
        return pdu.reply(Status.ESME_RCANCELFAIL)

    carrier.smsc.response = no
    assert not await carrier.provider.cancel_at_provider(
        "0001F", sender="ACME", recipient=RECIPIENT
    )


async def test_a_carrier_without_cancel_is_not_asked(new_carrier):
    carrier = await new_carrier(cancel=False)
    assert not await carrier.provider.cancel_at_provider("1", sender="ACME", recipient=RECIPIENT)
    assert not carrier.smsc.received


async def test_a_query_returns_the_state_or_none(new_carrier):
    carrier = await new_carrier(response_timeout="50ms")

    async def expired(session, pdu):
        return pdu.reply(fields={"message_id": pdu.octets("message_id"), "message_state": 3})

    carrier.smsc.response = expired
    found = await carrier.provider.query("abc", sender="ACME")
    assert found is not None
    assert (found.provider_message_id, found.state) == ("abc", ReceiptState.EXPIRED)
    carrier.smsc.response = carrier.smsc.silence
    assert await carrier.provider.query("abc", sender="ACME") is None
    await carrier.smsc.server.stop(graceful=False)
    await carrier.provider.wait_until(up=False)
    assert await carrier.provider.query("abc", sender="ACME") is None


async def test_cancels_and_queries_never_take_the_slot_of_a_submit_that_has_its_turn(new_carrier):
    carrier = await new_carrier(window=2, response_timeout="30s")
    arrived, release = [], asyncio.Event()

    async def slow(session, pdu):
        arrived.append(pdu.command)
        if pdu.command is not Command.SUBMIT_SM:
            await release.wait()
            return pdu.reply()
        return await carrier.smsc.accept(session, pdu)

    carrier.smsc.response = slow
    provider = carrier.provider
    asking = [
        asyncio.ensure_future(
            provider.cancel_at_provider(str(n), sender="ACME", recipient=RECIPIENT)
        )
        for n in range(5)
    ] + [asyncio.ensure_future(provider.query(str(n), sender="ACME")) for n in range(5)]
    await until(lambda: arrived, within=60)
    for _ in range(10):
        assert kinds(await carrier.send()) == [ACCEPTED]
    assert arrived.count(Command.SUBMIT_SM) == 10
    assert len(arrived) == 11, "one slot of two is theirs"
    release.set()
    assert await asyncio.gather(*asking[:5]) == [True] * 5
    await asyncio.gather(*asking)
    assert (provider._queue.held, provider._queue.held_by_operations) == (0, 0)


async def test_a_submit_whose_window_is_full_of_cancels_waits_and_is_not_unreachable(new_carrier):
    carrier = await new_carrier(window=1, response_timeout="30s")
    release = asyncio.Event()

    async def slow(session, pdu):
        if pdu.command is Command.CANCEL_SM:
            await release.wait()
            return pdu.reply()
        return await carrier.smsc.accept(session, pdu)

    carrier.smsc.response = slow
    cancel = asyncio.ensure_future(
        carrier.provider.cancel_at_provider("1", sender="ACME", recipient=RECIPIENT)
    )
    await until(lambda: carrier.smsc.received, within=60)
    with pytest.raises(NoSlot):
        await carrier.send()
    release.set()
    assert await cancel
    assert kinds(await carrier.send()) == [ACCEPTED]


async def test_submits_do_not_keep_a_cancel_waiting(new_carrier):
    carrier = await new_carrier(window=2, response_timeout="60s")
    stop = False

    async def keep_sending():
        while not stop:
            await carrier.send()

    senders = [asyncio.ensure_future(keep_sending()) for _ in range(8)]
    await until(lambda: len(carrier.smsc.received) > 20, within=60)
    assert await carrier.provider.cancel_at_provider("1", sender="ACME", recipient=RECIPIENT)
    stop = True
    await asyncio.gather(*senders)


async def test_a_caller_that_is_cancelled_leaves_its_request_the_slot_until_it_is_answered(
    new_carrier,
):
    carrier = await new_carrier(window=1, response_timeout="30s")
    release = asyncio.Event()

    async def slow(session, pdu):
        await release.wait()
        return pdu.reply()

    carrier.smsc.response = slow
    cancel = asyncio.ensure_future(
        carrier.provider.cancel_at_provider("1", sender="ACME", recipient=RECIPIENT)
    )
    await until(lambda: carrier.smsc.received, within=60)
    cancel.cancel()
    await asyncio.wait([cancel])
    assert carrier.provider._queue.held == 1
    release.set()
    await until(lambda: carrier.provider._queue.held == 0, within=60)


async def test_every_request_to_a_silent_smsc_ends(new_carrier):
    carrier = await new_carrier(window=1, response_timeout="100ms")
    carrier.smsc.response = carrier.smsc.silence
    provider = carrier.provider
    async with asyncio.timeout(60):
        outcomes = await carrier.send()
        cancels = [
            provider.cancel_at_provider(str(n), sender="A", recipient=RECIPIENT) for n in range(5)
        ]
        queries = [provider.query(str(n), sender="A") for n in range(5)]
        assert set(await asyncio.gather(*cancels, *queries)) == {False, None}
    assert kinds(outcomes) == [UNKNOWN]
