"""Live sessions under hostile octets: the bind survives, and what is behind them is understood."""

import asyncio
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from smpp.client import connect
from smpp.commands import Command
from smpp.pdus import Pdu, decode, encode
from smpp.server import Server
from smpp.statuses import Status

SUBMIT = {"destination_addr": b"447700900001", "short_message": b"still here"}
# Whole frames whose length is right and whose rest is noise; unbind rightly ends a session.
NOISY_FRAMES = st.builds(
    lambda command, status, sequence, body: (
        struct.pack(">4I", 16 + len(body), command, status, sequence) + body
    ),
    st.sampled_from([int(c) for c in Command if c is not Command.UNBIND])
    | st.integers(0, 0xFFFFFFFF).filter(lambda c: c != Command.UNBIND),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.binary(max_size=120),
)


async def accept(session, pdu):
    if pdu.command is Command.SUBMIT_SM:
        return pdu.reply(fields={"message_id": b"ok"})
    return None


async def welcome(session, request):
    return 0


async def read_until(reader, command, sequence):
    async with asyncio.timeout(60):
        while True:
            header = await reader.readexactly(16)
            length, *_ = struct.unpack(">I", header[:4])
            frame = header + await reader.readexactly(length - 16)
            pdu = decode(frame)
            if (pdu.command, pdu.sequence) == (command, sequence):
                return pdu


def chopped(octets, lengths):
    turn = 0
    while octets:
        length = lengths[turn % len(lengths)]
        turn += 1
        yield octets[:length]
        octets = octets[length:]


@settings(max_examples=60, deadline=None)
@given(st.lists(NOISY_FRAMES, max_size=8), st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_an_smsc_understands_the_submit_behind_any_noisy_frames(noise, lengths):
    async def situation():
        server = Server("127.0.0.1", 0, on_bind=welcome, on_request=accept)
        port = await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(encode(Pdu(Command.BIND_TRANSCEIVER, sequence=1)))
        await read_until(reader, Command.BIND_TRANSCEIVER_RESP, 1)
        behind = encode(Pdu(Command.SUBMIT_SM, sequence=0x77777777, fields=SUBMIT))
        for piece in chopped(b"".join(noise) + behind, lengths):
            writer.write(piece)
        response = await read_until(reader, Command.SUBMIT_SM_RESP, 0x77777777)
        assert (response.status, response.octets("message_id")) == (0, b"ok")
        writer.close()
        await server.stop(graceful=False)

    asyncio.run(situation())


@settings(max_examples=60, deadline=None)
@given(st.lists(NOISY_FRAMES, max_size=8))
def test_an_esme_understands_the_answer_behind_any_noisy_frames(noise):
    async def situation():
        async def noisy(session, pdu):
            # Noise may hit our sequence number as a response; then it is one, and not a crash.
            for frame in noise:
                if frame[12:16] != struct.pack(">I", pdu.sequence):
                    session._queue(frame)
            return pdu.reply(fields={"message_id": b"ok"})

        server = Server("127.0.0.1", 0, on_bind=welcome, on_request=noisy)
        port = await server.start()
        session = await connect(
            "127.0.0.1", port, system_id="acme", password="", window=2, on_request=accept
        )
        for _ in range(3):
            response = await session.request(Command.SUBMIT_SM, SUBMIT, timeout=5)
            assert response.octets("message_id") == b"ok"
        assert session.in_flight == 0
        await session.close()
        await server.stop(graceful=False)

    asyncio.run(situation())


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=300))
def test_raw_noise_ends_at_most_its_own_connection(noise):
    async def situation():
        problems = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: problems.append(what))
        server = Server("127.0.0.1", 0, on_bind=welcome, on_request=accept)
        port = await server.start()
        bound = await connect("127.0.0.1", port, system_id="acme", password="", on_request=accept)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(encode(Pdu(Command.BIND_TRANSCEIVER, sequence=1)) + noise)
        writer.write_eof()
        async with asyncio.timeout(60):
            await reader.read()
        writer.close()
        assert (await bound.request(Command.SUBMIT_SM, SUBMIT)).octets("message_id") == b"ok"
        await bound.close()
        await server.stop(graceful=False)
        assert not problems

    asyncio.run(situation())


async def test_a_length_that_cannot_be_is_nacked_and_ends_the_connection():
    server = Server("127.0.0.1", 0, on_bind=welcome, on_request=accept)
    port = await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(encode(Pdu(Command.BIND_TRANSCEIVER, sequence=1)) + bytes(16))
    nack = await read_until(reader, Command.GENERIC_NACK, 0)
    await read_until(reader, Command.BIND_TRANSCEIVER_RESP, 1)
    assert nack.status == Status.ESME_RINVCMDLEN
    assert await reader.read() == b""
    writer.close()
    await server.stop(graceful=False)


async def test_an_unknown_command_is_nacked_and_a_damaged_one_refused():
    server = Server("127.0.0.1", 0, on_bind=welcome, on_request=accept)
    port = await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(encode(Pdu(Command.BIND_TRANSCEIVER, sequence=1)))
    await read_until(reader, Command.BIND_TRANSCEIVER_RESP, 1)
    writer.write(struct.pack(">4I", 20, 0x0F00, 0, 2) + b"what")
    writer.write(struct.pack(">4I", 20, Command.SUBMIT_SM, 0, 3) + b"what")
    writer.write(struct.pack(">4I", 20, 0x80000F00, 0, 4) + b"what")
    nack = await read_until(reader, Command.GENERIC_NACK, 2)
    assert nack.status == Status.ESME_RINVCMDID
    refused = await read_until(reader, Command.SUBMIT_SM_RESP, 3)
    assert refused.status == Status.ESME_RINVCMDLEN
    writer.write(encode(Pdu(Command.ENQUIRE_LINK, sequence=5)))
    # The next that comes: a response is never answered, or two peers could nack each other for ever.
    assert await reader.readexactly(16) == encode(Pdu(Command.ENQUIRE_LINK_RESP, sequence=5))
    writer.close()
    await server.stop(graceful=False)
