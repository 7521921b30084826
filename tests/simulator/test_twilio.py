"""The simulated Twilio: its API over HTTP, its signed status callbacks, and its faults."""

import asyncio
import logging
import tomllib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import AsyncMock
from urllib.parse import parse_qsl
from uuid import uuid4

import httpx
import pytest
from pydantic import ValidationError
from twilio.http import HttpClient
from twilio.http.response import Response as VendorsResponse
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from domain.configuration.providers.twilio import (
    SIMULATED_ACCOUNT,
    SIMULATED_TOKEN,
    TwilioConfiguration,
)
from domain.modes import Priority
from domain.outcomes import OutcomeKind
from domain.provider_codes.twilio import TWILIO_CODES
from domain.receipts import ReceiptState
from providers.base import Outbound, ProviderSinks
from providers.twilio import TwilioProvider
from simulator.behaviour import TEST_NUMBERS
from simulator.control import Carriers, control_app
from simulator.http_server import HttpRequest, HttpResponse, HttpServer, NoResponse
from simulator.twilio import TwilioCarrier
from simulator.twilio_behaviour import REFUSALS, TWILIO_NUMBERS, CallbackStep, TwilioBehaviour

PLAIN = "+447700900500"
SENDER = "+12015550190"
MESSAGES = f"/2010-04-01/Accounts/{SIMULATED_ACCOUNT}/Messages"
ACCESS = (SIMULATED_ACCOUNT, SIMULATED_TOKEN)


class Receiver:
    """Where status callbacks arrive."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []
        self.responses: list[HttpResponse | NoResponse] = []
        """What the next callbacks are answered with; then 204."""
        self.server = HttpServer("127.0.0.1", 0, self._take)

    async def _take(self, request: HttpRequest) -> HttpResponse | NoResponse:
        self.requests.append(request)
        return self.responses.pop(0) if self.responses else HttpResponse(204)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/receipts/token-1?a=%41"

    @property
    def forms(self) -> list[dict[str, str]]:
        return [
            dict(parse_qsl(request.body.decode(), keep_blank_values=True))
            for request in self.requests
        ]

    @property
    def statuses(self) -> list[str]:
        return [form["MessageStatus"] for form in self.forms]

    async def gets(self, *statuses: str, within: float = 20) -> None:
        """Wait for these callbacks in this order, and a moment for one too many."""
        async with asyncio.timeout(within):
            while len(self.requests) < len(statuses):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert self.statuses == list(statuses)


@pytest.fixture
async def carrier() -> AsyncIterator[TwilioCarrier]:
    async with TwilioCarrier("carrier") as carrier:
        yield carrier


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.server.start()
    yield receiver
    await receiver.server.stop()


@pytest.fixture
async def http(carrier: TwilioCarrier) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=carrier.url, auth=ACCESS, timeout=20) as client:
        yield client


@pytest.fixture
async def control(carrier: TwilioCarrier) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=control_app(Carriers(twilio=carrier)))
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
        yield client


async def send(http: httpx.AsyncClient, to: str = PLAIN, **more: str) -> httpx.Response:
    fields = {"To": to, "From": SENDER, "Body": "Hello"} | more
    return await http.post(
        f"{MESSAGES}.json", data={name: text for name, text in fields.items() if text}
    )


async def test_a_message_is_taken_sent_and_delivered_and_can_be_looked_up(http, receiver):
    response = await send(http, StatusCallback=receiver.url, Body="€" * 161)
    taken = response.json()
    assert response.status_code == 201
    assert (taken["status"], taken["num_segments"], taken["price"]) == ("queued", "3", None)
    await receiver.gets("sent", "delivered")
    found = (await http.get(f"{MESSAGES}/{taken['sid']}.json")).json()
    assert (found["status"], found["price"], found["error_code"]) == ("delivered", "-0.02370", None)


async def test_the_vendors_own_validator_accepts_each_callback_and_none_that_was_changed(
    http, receiver
):
    await send(
        http, StatusCallback=f"{receiver.url}#rc=5&rp=all", MessagingServiceSid="MG" + "0" * 32
    )
    await receiver.gets("sent", "delivered")
    validator = RequestValidator(SIMULATED_TOKEN)
    for request, form in zip(receiver.requests, receiver.forms, strict=True):
        signature = request.headers["x-twilio-signature"]
        assert request.target == "/receipts/token-1?a=%41", "the fragment is not sent"
        assert validator.validate(receiver.url, form, signature)
        assert not validator.validate(receiver.url, form | {"MessageStatus": "read"}, signature)


async def test_the_vendors_own_client_sends_and_looks_up(carrier, receiver):
    class OnLoopback(HttpClient):
        def request(self, method, url, params=None, data=None, headers=None, auth=None, timeout=None,
                    allow_redirects=False):  # fmt: skip
            here = url.replace("https://api.twilio.com", carrier.url)
            got = httpx.request(method, here, params=params, data=data, headers=headers, auth=auth)
            return VendorsResponse(got.status_code, got.text)

    def use() -> tuple[str, str]:
        client = Client(*ACCESS, http_client=OnLoopback(logging.getLogger(), is_async=False))
        sent = client.messages.create(
            to=PLAIN, from_=SENDER, body="Hello", status_callback=receiver.url
        )
        assert sent.sid is not None
        return sent.status, client.messages(sent.sid).fetch().sid

    status, sid = await asyncio.to_thread(use)
    assert status == "queued"
    assert sid == carrier.messages[0].sid


async def test_a_failed_callback_is_tried_again_as_the_address_says(http, receiver, carrier):
    receiver.responses = [HttpResponse(503), NoResponse.RESET, HttpResponse(204)]
    carrier.set_default(TwilioBehaviour(callbacks=(CallbackStep(),)))
    await send(http, StatusCallback=f"{receiver.url}#rc=5&rp=all")
    await receiver.gets("delivered", "delivered", "delivered")
    tokens = {request.headers["i-twilio-idempotency-token"] for request in receiver.requests}
    assert len(tokens) == 1, "tries of one callback have one token"
    await carrier.until(lambda: carrier.counts.callbacks_acknowledged == 1)
    assert (carrier.counts.callbacks_sent, carrier.counts.callbacks_resent) == (3, 2)


async def test_without_overrides_a_callback_is_tried_again_only_if_no_connection_was_made(
    http, receiver, carrier
):
    carrier.set_default(TwilioBehaviour(callbacks=(CallbackStep(),)))
    receiver.responses = [HttpResponse(500)]
    await send(http, StatusCallback=receiver.url)
    await receiver.gets("delivered")
    await carrier.until(lambda: carrier.counts.callbacks_failed == 1)
    await receiver.server.stop()
    await send(http, StatusCallback=receiver.url)
    await carrier.until(lambda: carrier.counts.callbacks_failed == 2)
    assert carrier.counts.callbacks_sent == 1 + 2
    [callback] = carrier.messages[1].callbacks
    assert (callback.tries, callback.response) == (2, None)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"To": ""}, 21604),
        ({"To": "07700900123"}, 21211),
        ({"From": ""}, 21603),
        ({"Body": ""}, 21602),
        ({"Body": "x" * 1601}, 21617),
        ({"StatusCallback": "ftp://example.com"}, 21609),
        ({"StatusCallback": "/receipts"}, 21609),
        ({"ValidityPeriod": "0"}, 21624),
        ({"ValidityPeriod": "36001"}, 21624),
        ({"ValidityPeriod": "²"}, 21624),
    ],
)
async def test_a_request_with_a_mistake_is_refused_with_twilios_code(http, carrier, fields, code):
    response = await send(http, **fields)
    assert (response.status_code, response.json()["code"]) == (400, code)
    assert carrier.counts.refused == {str(code): 1}
    assert carrier.messages == []


@pytest.mark.parametrize(
    "auth", [("AC" + "1" * 32, SIMULATED_TOKEN), (SIMULATED_ACCOUNT, "x"), None]
)
async def test_nobody_else_sends_from_the_account(carrier, auth):
    async with httpx.AsyncClient(base_url=carrier.url, auth=auth) as client:
        response = await send(client)
    assert (response.status_code, response.json()["code"]) == (401, 20003)
    assert carrier.messages == []


async def test_there_is_nothing_else_and_what_is_no_http_is_refused(http, carrier):
    for path in ("/", f"{MESSAGES}/SM{'0' * 32}.json", "/2010-04-01/Accounts/AC1/Messages.json"):
        response = await http.get(path)
        assert (response.status_code, response.json()["code"]) == (404, 20404)
    assert (await http.post(f"{MESSAGES}.json", content=b"x" * 70_000)).status_code == 413
    reader, writer = await asyncio.open_connection("127.0.0.1", carrier.port)
    writer.write(b"\x00\x01\x02\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_the_adapter_sends_and_asks_with_the_documented_section(carrier, receiver):
    page = (Path(__file__).parents[2] / "docs/simulator.md").read_text(encoding="utf-8")
    [example] = [it for it in page.split("```toml\n") if it.startswith("[providers.twilio")]
    section = tomllib.loads(example.split("```")[0])["providers"]["twilio_simulator"]
    declared = TwilioConfiguration.model_validate(section | {"url": carrier.url})
    [secret] = declared.secrets()
    assert (secret.is_literal, secret.reference) == (True, SIMULATED_TOKEN)
    provider = TwilioProvider(
        "twilio_simulator",
        declared,
        {"auth_token": secret.reference},
        ProviderSinks(on_receipt=AsyncMock(), receipt_url=lambda *_: receiver.url),
    )
    await provider.hold(1)
    try:
        async with asyncio.timeout(20):
            await provider.wait_until(up=True)
        async with provider.acquire(Priority.NORMAL):
            [outcome] = await provider.submit(
                Outbound(
                    message_id=uuid4(), attempt=1, sender=SENDER, recipient=PLAIN, text="Hello",
                    reference=7, valid_until=datetime.now(UTC) + timedelta(hours=1),
                    priority=Priority.NORMAL, receipt_token="token-1",
                ),
                [1],
            )  # fmt: skip
        assert (outcome.kind, outcome.segments) == (OutcomeKind.ACCEPTED, 1)
        await receiver.gets("sent", "delivered")
        found = await provider.query(outcome.provider_message_id, sender=SENDER)
        assert found is not None
        assert found.state is ReceiptState.DELIVERED
    finally:
        await provider.stop(timedelta(seconds=1))


def test_only_the_simulators_account_may_have_its_token_in_the_file():
    section = {"type": "twilio", "account_sid": SIMULATED_ACCOUNT}
    for other in (
        section | {"auth_token": "another-token"},
        section | {"account_sid": "AC" + "1" * 32, "auth_token": SIMULATED_TOKEN},
        section | {"auth_token": SIMULATED_TOKEN, "previous_auth_token": SIMULATED_TOKEN},
    ):
        with pytest.raises(ValidationError, match="secrets are not written into the configuration"):
            TwilioConfiguration.model_validate(other)


# --- the table of numbers ------------------------------------------------------------------------


def test_it_knows_the_numbers_of_the_smsc_and_no_others():
    assert TWILIO_NUMBERS.keys() == TEST_NUMBERS.keys()
    for digits, number in TWILIO_NUMBERS.items():
        smsc = TEST_NUMBERS[digits].behaviour
        if smsc.part is None:
            assert number.behaviour.response == smsc.response, digits
            assert number.behaviour.times == smsc.times, digits
            assert number.behaviour.taken == smsc.taken, digits


def test_the_gateway_knows_every_code_that_it_refuses_or_fails_with():
    used = {step.error for it in TWILIO_NUMBERS.values() for step in it.behaviour.callbacks}
    used |= {it.behaviour.code for it in TWILIO_NUMBERS.values()} | {*REFUSALS}
    assert {str(code) for code in used if code} <= {*TWILIO_CODES}


@pytest.mark.parametrize(
    ("digits", "status", "code"),
    [("01", 400, 21211), ("08", 500, 20500), ("45", 400, 21612), ("58", 429, 20429), ("64", 503, 20503)],
)  # fmt: skip
async def test_a_refusing_number_is_answered_with_status_and_code(http, digits, status, code):
    for number in (f"+4477009000{digits}", f"+120155501{digits}", f"+336399800{digits}"):
        response = await send(http, number)
        assert (response.status_code, response.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("digits", "last", "error"),
    [
        ("20", "undelivered", "30003"),
        ("21", "failed", "30007"),
        ("22", "failed", "30036"),
        ("23", "canceled", None),
        ("24", "failed", "30410"),
    ],
)
async def test_a_failing_number_ends_with_status_and_code(http, receiver, digits, last, error):
    sid = (await send(http, f"+4477009000{digits}", StatusCallback=receiver.url)).json()["sid"]
    await receiver.gets("sent", last)
    assert receiver.forms[-1].get("ErrorCode") == error
    found = (await http.get(f"{MESSAGES}/{sid}.json")).json()
    assert found["error_code"] == (None if error is None else int(error))


async def test_a_phone_that_is_off_fails_when_its_validity_is_over(http, receiver):
    await send(http, "+447700900025", StatusCallback=receiver.url, ValidityPeriod="1")
    await receiver.gets("sent", "failed")
    assert receiver.forms[-1]["ErrorCode"] == "30036"


async def test_what_is_delivered_without_a_callback_is_delivered_for_those_who_ask(
    http, receiver, carrier
):
    sid = (await send(http, "+447700900030", StatusCallback=receiver.url)).json()["sid"]
    await carrier.until(lambda: carrier.messages[0].status == "delivered")
    assert (await http.get(f"{MESSAGES}/{sid}.json")).json()["status"] == "delivered"
    assert receiver.requests == []


async def test_an_early_callback_comes_before_the_response(http, receiver):
    await send(http, "+447700900032", StatusCallback=receiver.url)
    assert receiver.statuses == ["delivered"]


async def test_callbacks_come_thrice_and_out_of_order(http, receiver):
    await send(http, "+447700900034", StatusCallback=receiver.url)
    await receiver.gets("sent", "delivered", "delivered", "delivered")
    receiver.requests.clear()
    await send(http, "+447700900036", StatusCallback=receiver.url)
    await receiver.gets("delivered", "sent")


@pytest.mark.parametrize(("digits", "refusals", "code"), [("50", 2, 20429), ("51", 1, 20500)])
async def test_a_number_that_is_refused_at_first_is_taken_then(http, digits, refusals, code):
    for _ in range(refusals):
        assert (await send(http, f"+4477009000{digits}")).json()["code"] == code
    assert (await send(http, f"+4477009000{digits}")).status_code == 201


@pytest.mark.parametrize(("digits", "taken"), [("70", 0), ("71", 1)])
async def test_silence_answers_nothing_and_only_some_of_it_was_delivered(
    http, receiver, carrier, digits, taken
):
    with pytest.raises(httpx.ReadTimeout):
        await http.post(
            f"{MESSAGES}.json",
            data={"To": f"+4477009000{digits}", "From": SENDER, "Body": "Hello",
                  "StatusCallback": receiver.url},
            timeout=0.3,
        )  # fmt: skip
    await receiver.gets(*["sent", "delivered"][: 2 * taken])
    assert (carrier.counts.taken, carrier.counts.without_response) == (taken, 1)


@pytest.mark.parametrize(("digits", "taken"), [("72", 0), ("73", 1)])
async def test_a_reset_answers_nothing_and_only_some_of_it_was_delivered(
    http, receiver, carrier, digits, taken
):
    with pytest.raises(httpx.ReadError):
        await send(http, f"+4477009000{digits}", StatusCallback=receiver.url)
    await receiver.gets(*["sent", "delivered"][: 2 * taken])
    assert (carrier.counts.taken, carrier.counts.resets) == (taken, 1)


async def test_what_a_client_does_not_wait_for_is_delivered_all_the_same(http, receiver, carrier):
    carrier.set_default(TwilioBehaviour(latency=0.5))
    with pytest.raises(httpx.ReadTimeout):
        await http.post(
            f"{MESSAGES}.json",
            data={"To": PLAIN, "From": SENDER, "Body": "Hello", "StatusCallback": receiver.url},
            timeout=0.1,
        )
    await receiver.gets("sent", "delivered")


async def test_what_it_was_about_to_do_ends_with_it(receiver):
    behaviour = TwilioBehaviour(latency=0.2)
    async with (
        TwilioCarrier("short", behaviour=behaviour) as carrier,
        httpx.AsyncClient(base_url=carrier.url, auth=ACCESS) as http,
    ):
        sending = asyncio.create_task(send(http, StatusCallback=receiver.url))
        await carrier.until(lambda: carrier.counts.taken == 1)
        await carrier.stop()
        with pytest.raises(httpx.TransportError):
            await sending
    await asyncio.sleep(0.4)
    assert receiver.requests == []


# --- steering ------------------------------------------------------------------------------------


async def test_an_outage_refuses_connections_until_it_ends_on_the_same_port(carrier, http, control):
    assert (await send(http)).status_code == 201
    down = await control.post("/twilio/outage", json={"on": True})
    assert down.json() == {"outage": "not_listening"}
    with pytest.raises(httpx.ConnectError):
        await send(http)
    assert (await control.post("/twilio/outage", json={"on": False})).json() == {"outage": None}
    assert (await send(http)).status_code == 201


async def test_it_is_slow_throttles_and_refuses_by_request(http, control, carrier):
    await control.post("/twilio/throttle", json={"next": 1})
    assert [(await send(http)).status_code for _ in range(2)] == [429, 201]
    await control.put(f"/twilio/behaviour/{PLAIN}", json={"response": "refuse", "code": 21610})
    assert (await send(http)).json()["code"] == 21610
    assert list((await control.get("/twilio/state")).json()["numbers"]) == [PLAIN]
    await control.delete(f"/twilio/behaviour/{PLAIN}")
    await control.put("/twilio/behaviour", json={"latency": 0.3})
    began = asyncio.get_running_loop().time()
    assert (await send(http)).status_code == 201
    assert asyncio.get_running_loop().time() - began >= 0.3
    assert (await control.get("/twilio/counts")).json()["taken"] == 2


async def test_held_callbacks_are_released_by_request(http, control, receiver, carrier):
    await send(http, "+447700900037", StatusCallback=receiver.url)
    await carrier.until(lambda: carrier.held == 2)
    assert receiver.requests == []
    released = await control.post("/twilio/receipts/release", json={"newest_first": True})
    assert released.json() == {"released": 2}
    await receiver.gets("delivered", "sent")


async def test_messages_are_listed_with_their_signed_callbacks_and_forgotten(
    http, control, receiver
):
    await send(http, StatusCallback=receiver.url)
    await receiver.gets("sent", "delivered")
    [message] = (await control.get("/twilio/messages")).json()
    assert (message["to"], message["text"], message["status"]) == (PLAIN, "Hello", "delivered")
    assert [(it["status"], it["response"], it["tries"]) for it in message["callbacks"]] == [
        ("sent", 204, 1),
        ("delivered", 204, 1),
    ]
    signatures = [request.headers["x-twilio-signature"] for request in receiver.requests]
    assert [it["signature"] for it in message["callbacks"]] == signatures
    assert "token-1" not in (await control.get("/")).text + str(message)
    assert (await control.delete("/twilio/messages")).status_code == 204
    assert (await control.get("/twilio/messages")).json() == []


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/twilio/behaviour", '{"response": "refuse", "code": 1}', "code: "),
        ("/twilio/behaviour", '{"status": "ESME_ROK"}', "status: there is no such field"),
        ("/twilio/behaviour", '{"callbacks": [{"status": "lost"}]}', "callbacks.0.status: "),
        ("/twilio/behaviour/home", "{}", "number: "),
    ],
)
async def test_bad_input_is_answered_in_a_sentence(control, path, body, says):
    response = await control.put(path, content=body)
    assert response.status_code == 422
    assert says in response.json()["detail"]


async def test_only_numbers_that_belong_to_nobody_are_shown(http, control, carrier):
    carrier.set_number("+441632960123", TwilioBehaviour())
    for number in ("+441632960123", "+447700900999"):
        await send(http, number, From="+441632960999", Body="from me <b>&")
    page = (await control.get("/")).text
    everything = page + (await control.get("/twilio/messages")).text
    everything += (await control.get("/twilio/state")).text
    assert "441632" not in everything
    assert page.count("from me &lt;b&gt;&amp;") == 1


async def test_it_remembers_the_last_messages_and_counts_repeated_ones(receiver):
    async with (
        TwilioCarrier("small", keep=2) as carrier,
        httpx.AsyncClient(base_url=carrier.url, auth=ACCESS) as http,
    ):
        for body in ("one", "two", "two"):
            await send(http, Body=body)
        assert [message.body for message in carrier.messages] == ["two", "two"]
        assert carrier.duplicates() == 1
