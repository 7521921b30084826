"""Receipts that cannot be parsed: stored as they came, counted, and parsed again."""

import asyncio
import io
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.configuration import Environment
from domain.configuration.providers.smpp import SmppConfiguration
from providers.base import ReceivedReceipt, UnparsedReason, UnparsedReceipt
from providers.smpp import received_receipt
from services.keys import Scope
from smpp.commands import Command
from smpp.pdus import Pdu, encode
from smpp.tlvs import Tag, Tlv
from store import retention
from tests.api.conftest import CONFIGURATION, NUMBER, Api, slug_of

pytestmark = pytest.mark.stack

REPARSE = "/api/v1/providers/primary/receipts/reparse"
WITH_STATES = CONFIGURATION.replace(
    'type = "simulator"\n', 'type = "simulator"\nreceipt_states = { "0" = "delivered" }\n', 1
)


def frame_of(text: str) -> bytes:
    fields: dict[str, int | bytes] = {
        "source_addr": NUMBER.removeprefix("+").encode(),
        "destination_addr": b"ACME",
        "esm_class": 4,
        "short_message": text.encode(),
    }
    return encode(Pdu(Command.DELIVER_SM, 0, 7, fields))


async def store(api: Api, text: str, provider: str = "primary") -> None:
    await api.services.unparsed_receipts.store(
        UnparsedReceipt(provider, UnparsedReason.UNKNOWN_STATE, frame_of(text))
    )


async def unparsed(api: Api) -> int:
    return int((await api.get("/api/v1/providers/primary")).json()["unparsed_receipts"])


async def test_a_receipt_that_could_not_be_parsed_delivers_its_message_after_the_fix(
    api: Api, logged: io.StringIO
) -> None:
    message = await api.sent()
    await api.submitted(message, "7009")
    await store(api, "id:7009 stat:0 err:000")
    await store(api, "id:7009 stat:9 err:000")
    await store(api, "id:7009 stat:0 err:000", provider="backup")
    assert await unparsed(api) == 2

    assert (await api.post(REPARSE)).json() == {"parsed": 0, "unparsed": 2, "next_after": None}
    assert (await api.get(f"/api/v1/sms/{message}")).json()["status"] == "sent"

    await api.services.configurations.apply(WITH_STATES, applied_by="key_test")
    assert (await api.post(REPARSE)).json() == {"parsed": 1, "unparsed": 1, "next_after": None}
    assert (await api.get(f"/api/v1/sms/{message}")).json()["status"] == "delivered"
    assert await unparsed(api) == 1
    assert "receipts_reparsed" in logged.getvalue()


async def test_a_receipt_that_is_parsed_again_has_the_time_at_which_it_came(api: Api) -> None:
    await store(api, "id:7009 stat:0 err:000")
    await api.execute("UPDATE unparsed_receipts SET received_at = now() - interval '2 days'")
    await api.services.configurations.apply(WITH_STATES, applied_by="key_test")
    assert (await api.post(REPARSE)).json()["parsed"] == 1
    (stored,) = await api.fetch("SELECT received_at FROM receipts")
    age = datetime.now(UTC) - stored["received_at"]
    assert timedelta(days=1) < age < timedelta(days=3)


async def test_many_are_parsed_again_by_several_requests(api: Api) -> None:
    frame = frame_of("id:1 stat:9")
    await api.execute(
        "INSERT INTO unparsed_receipts (provider, received_at, reason, frame)"
        " SELECT 'primary', now(), 'unknown_state', :frame FROM generate_series(1, 700)",
        frame=frame,
    )
    first = (await api.post(REPARSE)).json()
    assert (first["unparsed"], first["parsed"]) == (500, 0)
    rest = (await api.post(f"{REPARSE}?after={first['next_after']}")).json()
    assert rest == {"parsed": 0, "unparsed": 200, "next_after": None}


async def test_only_an_operator_parses_again_and_only_a_declared_provider(api: Api) -> None:
    for scopes, environment in (
        ((Scope.READ_PROVIDERS,), Environment.LIVE),
        ((Scope.ADMIN,), Environment.TEST),
    ):
        key = await api.key_of(*scopes, environment=environment)
        assert (await api.post(REPARSE, key=key)).status_code == 403
    response = await api.post(REPARSE.replace("primary", "nobody"))
    assert (response.status_code, slug_of(response)) == (404, "not-found")


async def test_they_are_deleted_when_they_are_older_than_receipts_are_kept(api: Api) -> None:
    await store(api, "id:1 stat:9")
    for days, left in ((-1, 1), (1, 0)):
        async with api.services.database.begin() as connection:
            await retention.delete(connection, datetime.now(UTC) + timedelta(days=days), 100)
        assert await unparsed(api) == left


OCTETS = st.binary(max_size=200)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.builds(
                lambda message_id, error, rest: (
                    b"id:%b stat:DELIVRD err:%b %b" % (message_id, error, rest)
                ),
                OCTETS,
                OCTETS,
                OCTETS,
            ),
            OCTETS,
            OCTETS,
            OCTETS,
            st.integers(0, 255),
        ),
        min_size=1,
        max_size=10,
    )
)
async def test_postgres_takes_whatever_receipts_are_parsed(
    api: Api, deliveries: list[tuple[bytes, bytes, bytes, bytes, int]]
) -> None:
    """No octets of one receipt may hold up those that are written with it."""
    configuration = SmppConfiguration.model_validate({"type": "simulator"})
    for text, id_in_tlv, source, destination, data_coding in deliveries:
        pdu = Pdu(
            Command.DELIVER_SM,
            fields={
                "source_addr": source,
                "destination_addr": destination,
                "esm_class": 4,
                "data_coding": data_coding,
                "short_message": text,
            },
            tlvs=(Tlv(Tag.RECEIPTED_MESSAGE_ID, id_in_tlv), Tlv(Tag.MESSAGE_STATE, b"\2")),
        )
        received = received_receipt("primary", configuration, pdu)
        if isinstance(received, ReceivedReceipt):
            await asyncio.wait_for(api.services.receipts.take(received), 60)
