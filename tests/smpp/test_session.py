"""Two real sessions over loopback TCP: what an ESME and an SMSC can do to each other."""

import asyncio
import contextlib
import gc
import itertools
import ssl
import struct
import time
from pathlib import Path

import pytest
import uvloop

from smpp.client import BindRefused, ConnectFailed, connect
from smpp.commands import Command
from smpp.fields import FieldError
from smpp.pdus import MAX_SEQUENCE, MalformedPdu, Pdu, decode, encode
from smpp.session import BindType, ResponseTimeout, SessionClosed
from smpp.statuses import Status
from smpp.tlvs import Tag, Tlv
from tests.fakes.scripted_smsc import ScriptedSmsc, until

MESSAGE: dict[str, int | bytes] = {
    "destination_addr": b"447700900001",
    "short_message": b"hello",
}
TLS = Path(__file__).parent / "tls"


async def submit(session, **options):
    return await session.request(Command.SUBMIT_SM, MESSAGE, **options)


def gate():
    """A response that comes when the test says so, in the order of the requests."""
    waiting = []

    async def response(session, pdu):
        opened = asyncio.get_running_loop().create_future()
        waiting.append(opened)
        await opened
        return pdu.reply(fields={"message_id": b"late"})

    return waiting, response


# Binding


@pytest.mark.parametrize("bind_type", BindType)
async def test_a_bind_has_the_credentials_type_and_address_range(smsc, bind_type):
    session = await smsc.connect(bind_type=bind_type, system_type="sms", address_range="^44")
    (bind,) = smsc.binds
    assert (bind.system_id, bind.password, bind.system_type) == ("acme", "secret", "sms")
    assert (bind.bind_type, bind.interface_version, bind.address_range) == (bind_type, 0x34, "^44")
    assert smsc.session.bind_type is session.bind_type is bind_type
    assert smsc.session.system_id == "acme"
    assert "secret" not in repr(bind)


async def test_a_refused_bind_says_why_and_leaves_no_connection(smsc):
    smsc.bind_status = Status.ESME_RINVPASWD
    with pytest.raises(BindRefused, match="ESME_RINVPASWD") as refused:
        await smsc.connect()
    assert refused.value.status == Status.ESME_RINVPASWD
    assert not smsc.server.sessions
    await until(lambda: not smsc.server._unbound)
    assert not smsc.closed


async def test_a_server_that_does_not_listen_is_raised_as_connect_failed(smsc):
    await smsc.server.stop()
    with pytest.raises(ConnectFailed):
        await smsc.connect()


async def test_a_bind_without_an_answer_is_given_up(new_smsc):
    never = asyncio.Event()
    smsc = await new_smsc()
    smsc.server._on_bind = lambda *_: never.wait()
    with pytest.raises(ConnectFailed, match=r"within 0\.1 s"):
        await smsc.connect(connect_timeout=0.1)


async def test_a_password_that_smpp_has_no_room_for_is_an_error_and_not_cut(smsc):
    with pytest.raises(FieldError):
        await smsc.connect(password="123456789")
    assert not smsc.binds


async def test_who_does_not_bind_in_time_is_disconnected(new_smsc):
    smsc = await new_smsc(bind_timeout=0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", smsc.server.port)
    assert await asyncio.wait_for(reader.read(), 60) == b""
    writer.close()


async def test_nothing_is_accepted_before_the_bind_and_no_second_bind(smsc):
    reader, writer = await asyncio.open_connection("127.0.0.1", smsc.server.port)
    bind = Pdu(Command.BIND_TRANSCEIVER, sequence=2, fields={"system_id": b"acme"})
    for pdu in (Pdu(Command.SUBMIT_SM, sequence=1, fields=MESSAGE), bind, bind):
        writer.write(encode(pdu))
        header = struct.unpack(">4I", await reader.readexactly(16))
        await reader.readexactly(header[0] - 16)
        if pdu.command is Command.SUBMIT_SM:
            assert header[1:] == (Command.SUBMIT_SM_RESP, Status.ESME_RINVBNDSTS, 1)
    assert header[1:] == (Command.BIND_TRANSCEIVER_RESP, Status.ESME_RALYBND, 2)
    assert not smsc.received
    writer.close()


async def test_a_receiver_may_not_submit_and_gets_its_messages(smsc):
    session = await smsc.connect(bind_type=BindType.RECEIVER)
    assert (await submit(session)).status == Status.ESME_RINVBNDSTS
    response = await smsc.session.request(Command.DELIVER_SM, MESSAGE)
    assert response.command is Command.DELIVER_SM_RESP
    assert response.status == Status.ESME_ROK


async def test_tls_carries_it_all(new_smsc):
    at_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    at_server.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    smsc = await new_smsc(tls=at_server)
    session = await smsc.connect(tls=ssl.create_default_context(cafile=str(TLS / "cert.pem")))
    responses = await asyncio.gather(*[submit(session) for _ in range(200)])
    assert {response.status for response in responses} == {Status.ESME_ROK}
    await session.unbind()
    with pytest.raises(ConnectFailed):
        await smsc.connect(tls=ssl.create_default_context())


def test_uvloop_carries_it_all_too():
    async def situation():
        smsc = ScriptedSmsc()
        await smsc.server.start()
        session = await smsc.connect(window=20)
        responses = await asyncio.gather(*[submit(session) for _ in range(200)])
        assert {response.status for response in responses} == {Status.ESME_ROK}
        smsc.response = smsc.silence
        request = asyncio.ensure_future(submit(session))
        await asyncio.sleep(0.02)
        await smsc.session.close(reset=True)
        with pytest.raises(SessionClosed) as closed:
            await request
        assert closed.value.sent
        await smsc.server.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(situation())


# Requests and responses


async def test_a_submit_is_answered_and_tlvs_go_both_ways(smsc):
    async def response(session, pdu):
        return pdu.reply(fields={"message_id": b"id-1"}, tlvs=(Tlv(0x0428, b"\1\2"),))

    smsc.response = response
    session = await smsc.connect()
    response = await session.request(
        Command.SUBMIT_SM, MESSAGE, [Tlv(0x1400, b"1207161"), Tlv(Tag.USER_RESPONSE_CODE, b"\5")]
    )
    assert response.octets("message_id") == b"id-1"
    assert response.tlv(0x0428) == b"\1\2"
    (received,) = smsc.received
    assert received.tlvs == (Tlv(0x1400, b"1207161"), Tlv(Tag.USER_RESPONSE_CODE, b"\5"))
    assert received.octets("short_message") == b"hello"


@pytest.mark.parametrize(
    "command", [Command.CANCEL_SM, Command.QUERY_SM, Command.REPLACE_SM, Command.SUBMIT_MULTI]
)
async def test_the_less_usual_commands_go_through_too(smsc, command):
    session = await smsc.connect()
    response = await session.request(command)
    assert response.command == command | 0x80000000


async def test_answers_find_their_requests_in_any_order(smsc):
    waiting, smsc.response = gate()
    session = await smsc.connect(window=3)
    requests = [asyncio.ensure_future(submit(session)) for _ in range(3)]
    await until(lambda: len(waiting) == 3)
    waiting[2].set_result(None)
    await requests[2]
    assert not requests[0].done()
    waiting[0].set_result(None)
    waiting[1].set_result(None)
    for sequence, request in enumerate(requests, start=2):
        assert (await request).sequence == sequence


async def test_the_window_is_never_exceeded_and_always_used(smsc):
    waiting, smsc.response = gate()
    session = await smsc.connect(window=4)
    requests = [asyncio.ensure_future(submit(session)) for _ in range(10)]
    for taken in range(10):
        await until(lambda taken=taken: len(waiting) == min(10, taken + 4))
        assert session.in_flight == min(4, 10 - taken)
        waiting[taken].set_result(None)
        await until(lambda taken=taken: sum(r.done() for r in requests) == taken + 1)
    assert session.in_flight == 0
    assert len(smsc.received) == 10


async def test_a_caller_that_gives_up_waiting_takes_no_slot_with_it(smsc):
    waiting, smsc.response = gate()
    session = await smsc.connect(window=1)
    first, second, third = (asyncio.ensure_future(submit(session)) for _ in range(3))
    await until(lambda: len(waiting) == 1)
    second.cancel()
    waiting[0].set_result(None)
    await first
    await until(lambda: len(waiting) == 2)
    waiting[1].set_result(None)
    await third
    # and when the slot had been given to it already
    fourth, fifth = (asyncio.ensure_future(submit(session)) for _ in range(2))
    await until(lambda: len(waiting) == 3)
    (waiter,) = session._slot_waiters
    waiting[2].set_result(None)
    while not waiter.done():
        await asyncio.sleep(0)
    fifth.cancel()
    await fourth
    await asyncio.wait([fifth])
    assert session.in_flight == 0
    assert len(smsc.received) == 3


async def test_a_submit_cancelled_before_it_left_never_leaves(smsc):
    session = await smsc.connect()
    session.pause_writing()  # as the transport does when the peer does not read
    request = asyncio.ensure_future(submit(session))
    await asyncio.sleep(0.01)
    request.cancel()
    await asyncio.wait([request])
    assert session.in_flight == 0
    session.resume_writing()
    await submit(session)
    assert len(smsc.received) == 1


async def test_a_submit_cancelled_after_it_left_keeps_its_slot_until_the_answer(smsc):
    waiting, smsc.response = gate()
    session = await smsc.connect(window=1)
    request = asyncio.ensure_future(submit(session))
    await until(lambda: waiting)
    request.cancel()
    await asyncio.wait([request])
    assert session.in_flight == 1
    waiting[0].set_result(None)
    await until(lambda: session.in_flight == 0)


async def test_a_response_timeout_is_raised_and_the_late_response_is_reported(smsc):
    waiting, smsc.response = gate()
    session = await smsc.connect(window=1)
    began = time.monotonic()
    with pytest.raises(ResponseTimeout) as timeout:
        await submit(session, timeout=0.1)
    assert 0.09 < time.monotonic() - began < 20
    assert timeout.value.sent
    assert session.in_flight == 0
    waiting[0].set_result(None)
    late = await asyncio.wait_for(timeout.value.late, 60)
    assert late.octets("message_id") == b"late"
    assert session.is_open


async def test_each_request_has_its_own_time(smsc):
    smsc.response = smsc.silence
    session = await smsc.connect()
    began = time.monotonic()

    async def ended(seconds):
        with pytest.raises(ResponseTimeout):
            await submit(session, timeout=seconds)
        return time.monotonic() - began

    ends = await asyncio.gather(ended(0.3), ended(0.1), ended(0.2))
    for end, timeout in zip(ends, (0.3, 0.1, 0.2), strict=True):
        assert timeout - 0.01 < end < timeout + 0.5
    assert ends[1] < ends[2] < ends[0]


async def test_double_and_strange_answers_answer_nothing_else(smsc):
    async def twice(session, pdu):
        session.respond(Pdu(Command.SUBMIT_SM_RESP, 0, pdu.sequence + 1, {"message_id": b"?"}))
        session.respond(Pdu(Command.ENQUIRE_LINK_RESP, 0, pdu.sequence))
        session.respond(Pdu(Command.GENERIC_NACK, 0, 0))
        session.respond(pdu.reply(fields={"message_id": b"%d" % pdu.sequence}))
        return pdu.reply(Status.ESME_RSYSERR)

    smsc.response = twice
    session = await smsc.connect(window=1)
    for _ in range(5):
        response = await submit(session)
        assert response.octets("message_id") == b"%d" % response.sequence


async def test_a_nack_is_the_answer_to_its_request(smsc):
    async def nack(session, pdu):
        return Pdu(Command.GENERIC_NACK, Status.ESME_RINVCMDLEN, pdu.sequence)

    smsc.response = nack
    response = await submit(await smsc.connect())
    assert (response.command, response.status) == (Command.GENERIC_NACK, Status.ESME_RINVCMDLEN)


async def test_a_malformed_response_is_raised_and_the_session_goes_on(smsc):
    async def cut_off(session, pdu):
        body = b"abc-1\0\0\x02"
        session._queue(struct.pack(">4I", 24, Command.QUERY_SM_RESP, 0, pdu.sequence) + body)

    smsc.response = cut_off
    session = await smsc.connect(window=1)
    with pytest.raises(MalformedPdu):
        await session.request(Command.QUERY_SM, {"message_id": b"abc-1"})
    smsc.response = smsc.accept
    assert (await submit(session)).status == 0


async def test_sequence_numbers_wrap_and_skip_those_in_use(smsc):
    waiting, smsc.response = gate()
    session = await smsc.connect()
    session._sequence = MAX_SEQUENCE - 1
    first = asyncio.ensure_future(submit(session))
    await until(lambda: waiting)
    session._sequence = MAX_SEQUENCE - 1
    second = asyncio.ensure_future(submit(session))
    await until(lambda: len(waiting) == 2)
    for future in waiting:
        future.set_result(None)
    assert (await first).sequence == MAX_SEQUENCE
    assert (await second).sequence == 1


async def test_what_cannot_be_written_takes_no_slot(smsc):
    session = await smsc.connect(window=1)
    for _ in range(3):
        with pytest.raises(FieldError):
            await session.request(Command.SUBMIT_SM, {"short_message": b"x" * 255})
    assert (await submit(session)).status == 0


async def test_many_submits_leave_in_few_writes(smsc, monkeypatch):
    session = await smsc.connect(window=100)
    writes = []
    write = session._transport.write
    monkeypatch.setattr(
        session, "_transport", SpyingTransport(session._transport, writes.append, write)
    )
    await asyncio.gather(*[submit(session) for _ in range(100)])
    assert len(writes) <= 3


class SpyingTransport:
    def __init__(self, transport, spy, write):
        self._transport, self._spy, self._write = transport, spy, write

    def __getattr__(self, name):
        return getattr(self._transport, name)

    def write(self, data):
        self._spy(data)
        self._write(data)


# Requests of the peer


async def test_a_failing_handler_is_a_system_error_and_not_the_end(smsc):
    async def fails(session, pdu):
        raise RuntimeError("no")

    smsc.response = fails
    session = await smsc.connect()
    assert (await submit(session)).status == Status.ESME_RSYSERR
    assert session.is_open


async def test_handlers_run_side_by_side_but_not_without_bound(new_smsc):
    smsc = await new_smsc(max_handlers=3)
    waiting, smsc.response = gate()
    session = await smsc.connect(window=10)
    requests = [asyncio.ensure_future(submit(session)) for _ in range(10)]
    enquiry = session._send(Command.ENQUIRE_LINK, {}, (), None, holds_slot=False)
    await enquiry.future  # busy handlers do not stop the reader
    assert len(waiting) == 3
    for number in itertools.count():
        await until(lambda number=number: len(waiting) > number)
        waiting[number].set_result(None)
        if number == 9:
            break
    assert {(await request).status for request in requests} == {0}


async def test_a_flood_waits_in_the_network_and_not_in_the_memory(new_smsc):
    smsc = await new_smsc(max_handlers=1)
    waiting, smsc.response = gate()
    session = await smsc.connect(window=8_000)
    requests = [asyncio.ensure_future(submit(session)) for _ in range(8_000)]
    await until(lambda: len(smsc.session._backlog) >= 1000)
    await asyncio.sleep(0.2)
    held = len(smsc.session._backlog)
    assert held < 5_000  # what came with one read
    assert not any(request.done() for request in requests)
    smsc.response = smsc.accept
    waiting[0].set_result(None)
    assert {response.status for response in await asyncio.gather(*requests)} == {Status.ESME_ROK}


async def test_a_handler_may_answer_later_or_ask_something_itself(smsc):
    async def asks(session, pdu):
        asyncio.get_running_loop().call_later(
            0.02, session.respond, pdu.reply(fields={"message_id": b"later"})
        )
        await session.request(Command.DELIVER_SM, MESSAGE)

    smsc.response = asks
    delivered = []

    async def on_request(session, pdu):
        delivered.append(pdu.command)
        return pdu.reply()

    session = await smsc.connect(on_request=on_request)
    assert (await submit(session)).octets("message_id") == b"later"
    assert delivered == [Command.DELIVER_SM]


async def test_responses_are_handled_before_requests_that_came_with_them(smsc):
    """A receipt is to find that its message was accepted, however busy the handlers are."""

    async def responds_and_reports(session, pdu):
        session.respond(pdu.reply(fields={"message_id": b"%d" % pdu.sequence}))
        session._send(Command.DELIVER_SM, MESSAGE, (), None, holds_slot=False)

    smsc.response = responds_and_reports
    sequence = []

    def on_request(session, pdu):
        sequence.append("request")
        response = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.001, response.set_result, pdu.reply())
        return response

    async def one(session):
        await submit(session)
        sequence.append("response")

    session = await smsc.connect(on_request=on_request, max_handlers=3)
    await asyncio.gather(*(one(session) for _ in range(10)))
    await until(lambda: sequence.count("request") == 10)
    before = [
        sequence[:place].count("response")
        for place, what in enumerate(sequence)
        if what == "request"
    ]
    assert all(responses > place for place, responses in enumerate(before))


async def test_a_request_that_came_before_an_unbind_is_answered(smsc):
    async def on_request(session, pdu):
        await asyncio.sleep(0.05)
        return pdu.reply()

    await smsc.connect(on_request=on_request)
    asked = smsc.session._send(Command.DELIVER_SM, MESSAGE, (), None, holds_slot=False)
    unbind = smsc.session._send(Command.UNBIND, {}, (), None, holds_slot=False)
    assert (await asked.future).command is Command.DELIVER_SM_RESP
    assert (await unbind.future).command is Command.UNBIND_RESP


async def test_outbind_and_alert_notification_are_never_answered(smsc):
    received = []

    async def on_request(session, pdu):
        received.append(pdu.command)
        raise RuntimeError("not even so")

    session = await smsc.connect(on_request=on_request)
    smsc.session._queue(encode(Pdu(Command.ALERT_NOTIFICATION, sequence=1)))
    smsc.session._queue(encode(Pdu(Command.OUTBIND, sequence=2)))
    await until(lambda: len(received) == 2)
    queued = session._queued
    await submit(session)
    assert session._queued == queued + 1


# Silence


async def test_a_silent_peer_is_asked_for_a_sign_of_life_only_when_silent(smsc):
    session = await smsc.connect(enquire_link_interval=0.4)
    for _ in range(20):
        await asyncio.sleep(0.03)
        await submit(session)
    assert session._sequence == 21
    await until(lambda: session._sequence == 22)
    await asyncio.sleep(0.1)
    assert session.is_open
    assert session._sequence == 22


@pytest.mark.parametrize("trickles", [False, True])
async def test_a_peer_that_sends_no_whole_pdu_and_answers_no_enquire_link_ends(trickles):
    hung_up = asyncio.Event()

    async def deaf(reader, writer):
        await reader.read(16)
        writer.write(encode(Pdu(Command.BIND_TRANSCEIVER_RESP, sequence=1)))
        with contextlib.suppress(ConnectionError):
            if trickles:
                writer.write(struct.pack(">4I", 60_000, Command.DELIVER_SM, 0, 1))
                for _ in range(20_000):
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            await reader.read()
        writer.close()
        hung_up.set()

    listener = await asyncio.start_server(deaf, "127.0.0.1", 0)

    async def ignore(session, pdu):
        return None

    session = await connect(
        "127.0.0.1",
        listener.sockets[0].getsockname()[1],
        system_id="acme",
        password="",
        enquire_link_interval=0.05,
        response_timeout=0.05,
        on_request=ignore,
    )
    await asyncio.wait_for(session.closed.wait(), 60)
    assert session.close_reason == "enquire_link was not answered"
    await asyncio.wait_for(hung_up.wait(), 60)
    listener.close()


async def test_a_bind_that_is_never_answered_fails_in_time_and_leaves_no_connection():
    closed = asyncio.Event()

    async def silent(reader, writer):
        with contextlib.suppress(ConnectionError):
            while await reader.read(1000):
                pass
        closed.set()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)

    async def ignore(session, pdu):
        return None

    port = listener.sockets[0].getsockname()[1]
    with pytest.raises(ConnectFailed, match="no answer within"):
        await connect(
            "127.0.0.1",
            port,
            system_id="acme",
            password="",
            connect_timeout=0.1,
            on_request=ignore,
        )
    await asyncio.wait_for(closed.wait(), 60)
    listener.close()


async def test_a_nack_without_an_error_is_no_bind():
    async def nacks(reader, writer):
        await reader.read(1000)
        writer.write(encode(Pdu(Command.GENERIC_NACK, 0, 1)))
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(nacks, "127.0.0.1", 0)

    async def ignore(session, pdu):
        return None

    with pytest.raises(BindRefused):
        await connect(
            "127.0.0.1",
            listener.sockets[0].getsockname()[1],
            system_id="acme",
            password="",
            on_request=ignore,
        )
    listener.close()


# PDUs that are slightly off


@contextlib.asynccontextmanager
async def raw_smsc(**options):
    """A session that is bound to an SMSC whose every octet the test writes."""
    met = asyncio.get_running_loop().create_future()

    async def bound(reader, writer):
        await reader.read(1000)
        writer.write(encode(Pdu(Command.BIND_TRANSCEIVER_RESP, sequence=1)))
        met.set_result((reader, writer))

    listener = await asyncio.start_server(bound, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    session = await connect("127.0.0.1", port, system_id="acme", password="", **options)
    reader, writer = await met
    try:
        yield session, reader, writer
    finally:
        await session.close()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        listener.close()


def with_octets_behind(pdu, octets):
    frame = encode(pdu)
    return struct.pack(">I", len(frame) + len(octets)) + frame[4:] + octets


async def response_to(reader):
    header = await asyncio.wait_for(reader.readexactly(16), 60)
    length, *_ = struct.unpack(">I", header[:4])
    return decode(header + await reader.readexactly(length - 16))


BEHIND = pytest.mark.parametrize("behind", [b"\0", b"\0\0\0\0\0", b"\x04\x27\x00\x09junk"])


@BEHIND
async def test_octets_after_a_body_are_passed_over_and_counted(behind):
    received, irregular = [], []

    async def accept(session, pdu):
        received.append(pdu)
        return pdu.reply()

    async with raw_smsc(on_request=accept, on_irregular=lambda *what: irregular.append(what)) as (
        session,
        reader,
        writer,
    ):
        writer.write(with_octets_behind(Pdu(Command.DELIVER_SM, 0, 7, MESSAGE), behind))
        writer.write(with_octets_behind(Pdu(Command.ENQUIRE_LINK, 0, 8), behind))
        responses = [await response_to(reader), await response_to(reader)]
        assert {
            (response.command, response.sequence, response.status) for response in responses
        } == {
            (Command.DELIVER_SM_RESP, 7, 0),
            (Command.ENQUIRE_LINK_RESP, 8, 0),
        }
        assert received[0].octets("short_message") == b"hello"
        assert irregular == [(Command.DELIVER_SM, False), (Command.ENQUIRE_LINK, False)]
        assert session.is_open


@pytest.mark.parametrize("behind", [b"", b"\0", b"\0\0\0\0\0", b"whatever this is"])
async def test_an_unbind_ends_the_session_whatever_stands_behind_it(behind):
    async def accept(session, pdu):
        return pdu.reply()

    async with raw_smsc(on_request=accept) as (session, reader, writer):
        writer.write(with_octets_behind(Pdu(Command.UNBIND, 0, 9), behind))
        response = await response_to(reader)
        assert (response.command, response.status) == (Command.UNBIND_RESP, 0)
        await asyncio.wait_for(session.closed.wait(), 60)
        assert session.close_reason == "unbound by the peer"


async def test_a_delivery_that_cannot_be_read_is_handed_over_as_its_octets():
    malformed = []

    async def accept(session, pdu):
        return pdu.reply()

    async def keep(session, pdu):
        malformed.append(pdu.frame)
        return Pdu(Command.DELIVER_SM_RESP, 0, pdu.sequence)

    async with raw_smsc(on_request=accept, on_malformed=keep) as (_, reader, writer):
        frame = struct.pack(">4I", 22, Command.DELIVER_SM, 0, 7) + b"CMT\0\x01\x01"
        writer.write(frame)
        response = await response_to(reader)
        assert (response.command, response.sequence, response.status) == (
            Command.DELIVER_SM_RESP,
            7,
            0,
        )
        assert malformed == [frame]


@BEHIND
async def test_an_answer_with_octets_behind_it_answers(behind):
    async def accept(session, pdu):
        return pdu.reply()

    async with raw_smsc(on_request=accept) as (session, reader, writer):
        request = asyncio.ensure_future(submit(session))
        submitted = await response_to(reader)
        response = submitted.reply(fields={"message_id": b"abc-1"})
        writer.write(with_octets_behind(response, behind))
        assert (await request).octets("message_id") == b"abc-1"


# Ends


async def test_unbind_waits_for_what_is_under_way(smsc):
    waiting, smsc.response = gate()
    session = await smsc.connect(window=1)
    sent, queued = (asyncio.ensure_future(submit(session)) for _ in range(2))
    await until(lambda: waiting)
    end = asyncio.ensure_future(session.unbind())
    with pytest.raises(SessionClosed) as refused:
        await queued
    assert not refused.value.sent
    with pytest.raises(SessionClosed) as refused:
        await submit(session)
    assert not refused.value.sent
    assert not end.done()
    waiting[0].set_result(None)
    assert (await sent).octets("message_id") == b"late"
    await end
    assert session.close_reason == "unbound by us"
    await until(lambda: smsc.closed)
    assert smsc.closed[0].close_reason == "unbound by the peer"
    assert not smsc.server.sessions


async def test_unbind_lets_handlers_answer_first(smsc):
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(session, pdu):
        began.set()
        await go_on.wait()
        return pdu.reply()

    session = await smsc.connect(on_request=slow)
    delivery = asyncio.ensure_future(smsc.session.request(Command.DELIVER_SM, MESSAGE))
    await began.wait()
    end = asyncio.ensure_future(session.unbind())
    await asyncio.sleep(0.02)
    assert not end.done()
    go_on.set()
    assert (await delivery).status == 0
    await end


async def test_a_drain_is_cut_short_and_says_that_the_rest_is_unknown(smsc):
    smsc.response = smsc.silence
    session = await smsc.connect()
    request = asyncio.ensure_future(submit(session))
    await asyncio.sleep(0.02)
    await session.unbind(drain_timeout=0.05)
    with pytest.raises(SessionClosed) as closed:
        await request
    assert closed.value.sent


async def test_the_peer_may_unbind_and_still_answers_what_it_took(smsc):
    waiting, smsc.response = gate()
    session = await smsc.connect()
    request = asyncio.ensure_future(submit(session))
    await until(lambda: waiting)
    end = asyncio.ensure_future(smsc.server.stop())
    await asyncio.sleep(0.02)
    waiting[0].set_result(None)
    assert (await request).octets("message_id") == b"late"
    await end
    await asyncio.wait_for(session.closed.wait(), 60)
    assert session.close_reason == "unbound by the peer"
    with pytest.raises(SessionClosed) as closed:
        await submit(session)
    assert not closed.value.sent


@pytest.mark.parametrize("reset", [False, True])
async def test_a_cut_connection_distinguishes_unknown_requests_from_unsent_ones(smsc, reset):
    waiting, smsc.response = gate()
    session = await smsc.connect(window=1)
    sent, queued = (asyncio.ensure_future(submit(session)) for _ in range(2))
    await until(lambda: waiting)
    await smsc.session.close(reset=reset)
    with pytest.raises(SessionClosed) as closed:
        await sent
    assert closed.value.sent
    with pytest.raises(SessionClosed) as closed:
        await queued
    assert not closed.value.sent
    assert session.close_reason == ("connection reset" if reset else "closed by the peer")


async def test_a_peer_that_does_not_read_leaves_it_known_what_never_left(smsc):
    session = await smsc.connect(window=100_000, enquire_link_interval=None)
    smsc.session._transport.pause_reading()
    payload = (Tlv(Tag.MESSAGE_PAYLOAD, bytes(60_000)),)
    requests = [
        asyncio.ensure_future(session.request(Command.SUBMIT_SM, {}, payload, timeout=0.3))
        for _ in range(300)
    ]
    await asyncio.sleep(0.1)
    last = asyncio.ensure_future(submit(session, timeout=0.1))
    with pytest.raises(ResponseTimeout) as timeout:
        await last
    assert not timeout.value.sent
    with pytest.raises(SessionClosed):
        await timeout.value.late
    await session.close()
    failed = await asyncio.gather(*requests, return_exceptions=True)
    assert all(isinstance(f, SessionClosed | ResponseTimeout) and f.sent for f in failed)


async def test_a_peer_that_asks_but_does_not_read_is_let_go(new_smsc):
    smsc = await new_smsc()
    reader, writer = await asyncio.open_connection("127.0.0.1", smsc.server.port)
    writer.write(encode(Pdu(Command.BIND_TRANSCEIVER, sequence=1)))
    await reader.readexactly(16)
    reader._transport.pause_reading()
    enquiries = b"".join(encode(Pdu(Command.ENQUIRE_LINK, sequence=n)) for n in range(1, 4000))
    smsc_session = smsc.session
    async with asyncio.timeout(60):
        while not smsc_session.closed.is_set():
            writer.write(enquiries)
            await asyncio.sleep(0)
            try:
                await asyncio.wait_for(writer.drain(), 0.5)
            except (TimeoutError, ConnectionError):
                break
        await smsc_session.closed.wait()
    assert smsc_session.close_reason == "the peer does not read"
    writer.close()


async def test_closing_twice_or_after_the_end_is_nothing_special(smsc):
    session = await smsc.connect()
    await asyncio.gather(session.unbind(), session.unbind(), session.close())
    await session.close()
    await session.unbind()
    session.respond(Pdu(Command.SUBMIT_SM_RESP, sequence=1))


async def test_a_late_answer_that_never_comes_ends_with_the_session(smsc):
    smsc.response = smsc.silence
    session = await smsc.connect()
    with pytest.raises(ResponseTimeout) as timeout:
        await submit(session, timeout=0.02)
    await session.close()
    with pytest.raises(SessionClosed) as closed:
        await timeout.value.late
    assert closed.value.sent


async def test_nobody_needs_to_listen_to_a_late_answer(smsc):
    problems = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    smsc.response = smsc.silence
    session = await smsc.connect()
    with pytest.raises(ResponseTimeout):
        await submit(session, timeout=0.02)
    await session.close()
    del session
    gc.collect()
    assert not problems
