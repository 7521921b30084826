"""An SMSC and real ESMEs, both in the test's own event loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from domain.segments import PartMethod, segment, wire_parts
from simulator.content import UDHI
from simulator.smsc import Smsc
from smpp.client import connect
from smpp.commands import Command
from smpp.pdus import Pdu
from smpp.receipts import Receipt, parse_receipt
from smpp.session import BindType, Session
from smpp.statuses import Status
from smpp.tlvs import Tag, Tlv


class Esme:
    """A bound ESME that notes what it is sent, and answers for it with `responses`."""

    def __init__(self) -> None:
        self.session: Session
        self.delivered: list[Pdu] = []
        self.responses: list[int | None] = []
        self.happened: list[str] = []
        self._news = asyncio.Event()

    async def take(self, _: Session, pdu: Pdu) -> Pdu | None:
        self.delivered.append(pdu)
        self._news.set()
        self.happened.append("receipt" if parse_receipt(pdu) else "mo")
        response = self.responses.pop(0) if self.responses else Status.ESME_ROK
        return None if response is None else pdu.reply(response)

    @property
    def receipts(self) -> list[Receipt]:
        return [receipt for pdu in self.delivered if (receipt := parse_receipt(pdu))]

    @property
    def states(self) -> list[str]:
        return [receipt.state.value for receipt in self.receipts]

    @property
    def texts(self) -> list[Pdu]:
        return [pdu for pdu in self.delivered if not parse_receipt(pdu)]

    async def submit(
        self,
        destination: str,
        text: str = "hello",
        *,
        source: str = "12345",
        reference: int | None = None,
        within: float = 120,
        tlvs: tuple[Tlv, ...] = (),
        **fields: int | bytes,
    ) -> Pdu:
        """One part; returns the submit_sm_resp."""
        if reference is not None:
            tlvs = (*tlvs, Tlv(Tag.USER_MESSAGE_REFERENCE, reference.to_bytes(2)))
        response = await self.session.request(
            Command.SUBMIT_SM,
            {
                "source_addr": source.encode(),
                "destination_addr": destination.removeprefix("+").encode(),
                "dest_addr_ton": 1,
                "dest_addr_npi": 1,
                "registered_delivery": 1,
                "short_message": text.encode(),
                **fields,
            },
            tlvs,
            timeout=within,
        )
        self.happened.append("response")
        return response

    async def submit_long(
        self, destination: str, text: str, method: PartMethod = PartMethod.UDH8, reference: int = 7
    ) -> list[Pdu]:
        """As many parts as the text takes, one after the other; returns their responses."""
        segmented = segment(text, method=method)
        return [
            await self.submit(
                destination,
                short_message=part.short_message,
                esm_class=UDHI if part.has_header else 0,
                data_coding=8 if segmented.encoding.value == "ucs2" else 0,
                tlvs=tuple(Tlv(tag, value) for tag, value in part.tlvs),
            )
            for part in wire_parts(segmented, reference)
        ]

    async def gets(self, count: int, *, within: float = 120) -> list[Receipt]:
        """Wait for so many deliveries in all, and a moment longer so that one too many shows."""
        async with asyncio.timeout(within):
            while len(self.delivered) < count:
                self._news.clear()
                await self._news.wait()
        await asyncio.sleep(0.05)
        assert len(self.delivered) == count
        return self.receipts


Binds = Callable[..., Awaitable[Esme]]


@pytest.fixture
async def smsc() -> AsyncIterator[Smsc]:
    async with Smsc("primary") as smsc:
        yield smsc


@pytest.fixture
async def binds() -> AsyncIterator[Binds]:
    """Binds an ESME to an SMSC: `await binds(smsc, system_id=…, bind_type=…)`."""
    async with AsyncExitStack() as ends:

        async def bind(
            smsc: Smsc,
            system_id: str = "acme",
            bind_type: BindType = BindType.TRANSCEIVER,
            **options: object,
        ) -> Esme:
            esme = Esme()
            esme.session = await connect(
                "127.0.0.1",
                smsc.port,
                system_id=system_id,
                password="secret",
                bind_type=bind_type,
                on_request=esme.take,
                response_timeout=5,
                **options,
            )
            ends.push_async_callback(esme.session.close)
            return esme

        yield bind


@pytest.fixture
async def esme(smsc: Smsc, binds: Binds) -> Esme:
    return await binds(smsc)
