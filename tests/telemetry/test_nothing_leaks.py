"""Numbers and texts of people stay in Postgres: they are searched for wherever else a gateway writes.

An evening's work is done through the REST API on real parts, with all that can go wrong; then each
log line, metric, span and Temporal history is searched for what was sent.
"""

import asyncio
import io
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from temporalio.client import Client
from temporalio.runtime import Runtime

from api.app import create_app
from domain.callbacks.signatures import signed_headers
from local.processes import free_port
from services.keys import Scope
from settings.settings import LogLevel
from simulator.behaviour import Behaviour, ReceiptStep, Response
from telemetry.logs import configure_logging
from telemetry.metrics import REGISTRY
from telemetry.temporal import DATA_CONVERTER, use_temporal_runtime
from telemetry.tracing import recorded_spans
from tests.fakes.callback_receiver import CallbackReceiver, Reply
from tests.gateway import Gateway, running_gateway
from tests.histories import texts_in, texts_of

SEND = "/api/v1/sms/send"
BATCHES = "/api/v1/sms/batches"

# --- what is searched for ----------------------------------------------------------------------

# Numbers that are documented as nobody's, and words that no program has a use for.
NUMBERS = ("+447700900617", "+447700900684", "+12015550187", "+33639987654")
BRITISH, OTHER_BRITISH, AMERICAN, FRENCH = NUMBERS
WORDS = (
    "xylophone",
    "marmalade",
    "wilhelmina",
    "bassoon",
    "quagmire",
    "dumbwaiter",
    "periwinkle",
    "zucchini",
    "hullabaloo",
    "ottoman",
    "gooseberry",
    "flibbertigibbet",
)

SHORTEST = 7
"""So many consecutive digits of a number identify it."""
SHORTEST_AMONG_LETTERS = 9
"""Among letters it takes more, since ids in hexadecimal hold seven digits of any kind by chance."""


def leaks(text: str, secrets: Iterable[str] = ()) -> set[str]:
    """What of all that was sent stands in a text: numbers in part and in any writing, words."""
    found = {secret for secret in [*WORDS, *secrets] if secret.lower() in text.lower()}
    unspaced = re.sub(r"(?<=\d)[ ()-]{1,2}(?=\d)", "", text)
    for token in {*re.findall(r"[0-9A-Za-z]+", text), *re.findall(r"[0-9A-Za-z]+", unspaced)}:
        size = SHORTEST if token.isdigit() else SHORTEST_AMONG_LETTERS
        found |= {part for part in _parts_of_numbers(size) if part in token}
    return found


def _parts_of_numbers(size: int) -> Iterator[str]:
    for number in NUMBERS:
        digits = number.removeprefix("+")
        yield from (digits[start : start + size] for start in range(len(digits) - size + 1))


@pytest.mark.parametrize(
    "planted",
    [
        BRITISH,
        BRITISH[1:],
        "0" + BRITISH[3:],
        "+44 7700 900617",
        "(201) 555-0187",
        "%2B33639987654",
        "tel33639987654x",
        "…0900684",
        "Your MARMALADE is here",
        "/hooks/wilhelmina",
    ],
)
def test_the_search_finds_a_number_or_a_word_in_any_writing(planted):
    assert leaks(f'{{"event": "message_accepted", "text": "{planted}"}}')


def test_the_search_finds_nothing_where_there_is_nothing():
    assert not leaks(
        '{"message_id": "msg_019aa5c0d1e27700900b3c8f4e5a6b7c8d", "duration_ms": 77009}'
    )


# --- what is searched --------------------------------------------------------------------------


@dataclass
class Left:
    """All that an evening left behind outside the database, place by place."""

    logs: str = ""
    output: str = ""
    metrics: str = ""
    temporal_metrics: str = ""
    spans: str = ""
    histories: str = ""
    secrets: list[str] = field(default_factory=list)

    def leaks(self) -> dict[str, set[str]]:
        """What was found, by place."""
        places = ("logs", "output", "metrics", "temporal_metrics", "spans", "histories")
        found = {place: leaks(getattr(self, place), self.secrets) for place in places}
        return {place: parts for place, parts in found.items() if parts}


@pytest.mark.parametrize(
    "place", ["logs", "output", "metrics", "temporal_metrics", "spans", "histories"]
)
def test_every_place_is_searched(place):
    assert not Left().leaks()
    assert replace(Left(), **{place: f"… {AMERICAN} …"}).leaks().keys() == {place}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What processes write to their log; pytest's own handlers come back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out = io.StringIO()
    configure_logging("test", level=LogLevel.DEBUG, out=out)
    yield out
    root.handlers, root.level = handlers, level
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


@pytest.fixture
def temporal_runtime(monkeypatch: pytest.MonkeyPatch) -> tuple[Runtime, str]:
    """The runtime as a process of ours makes it, and the address of its metrics."""
    made: list[Runtime] = []
    port = free_port()
    with monkeypatch.context() as patched:
        patched.setattr(Runtime, "set_default", lambda runtime, **_: made.append(runtime))
        use_temporal_runtime("127.0.0.1", port)
    (runtime,) = made
    return runtime, f"http://127.0.0.1:{port}/metrics"


class TemporalAway:
    """A Temporal that can be switched off and on for the one who connects."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.away = True

    async def connect(self) -> Client:
        if self.away:
            raise RuntimeError(f"nobody listens to {BRITISH}")
        return self.client


# --- an evening --------------------------------------------------------------------------------

CONFIGURATION = """
[providers.primary]
type = "simulator"
port = {primary}
receipt_deadline = "2s"
response_timeout = "1s"
receipt_secret = "file:{secret}"
rebind_backoff = {{ min = "100ms", max = "200ms" }}

[providers.backup]
type = "simulator"
port = {backup}
response_timeout = "1s"
rebind_backoff = {{ min = "100ms", max = "200ms" }}

[[routes]]
providers = ["primary", "backup"]

[modes.two_way]
outage_patience = "1s"

[callbacks]
retry_delays = ["100ms", "100ms", "100ms"]
"""

RECEIPT_SECRET = "whsec_c2lnbnMgcmVjZWlwdHMgb2YgcHJpbWFyeSE="

# A database that quotes rows in its errors, as databases do; each kind of trouble is soon over.
_QUOTES_WHAT_IS_ACCEPTED = """
CREATE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    quoted text;
BEGIN
    SELECT NEW.body || ' to ' || number INTO quoted FROM recipients
    WHERE id = NEW.recipient_id AND NEW.metadata->>'trouble' = TG_OP;
    IF quoted IS NOT NULL AND (TG_OP = 'INSERT' OR nextval('troubles') <= 2) THEN
        RAISE EXCEPTION 'no room for %', quoted USING DETAIL = quoted, ERRCODE = 'data_exception';
    END IF;
    RETURN NEW;
END $$
"""
_QUOTES_WHAT_IS_SENT = """
CREATE FUNCTION quote_sent() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    quoted text;
BEGIN
    SELECT m.body || ' to ' || r.number INTO quoted
    FROM messages m JOIN recipients r ON r.id = m.recipient_id
    WHERE m.id = NEW.message_id AND m.metadata->>'trouble' = 'attempt';
    IF quoted IS NOT NULL AND nextval('troubles_of_attempts') <= 1 THEN
        RAISE EXCEPTION 'no room for %', quoted USING DETAIL = quoted, ERRCODE = 'data_exception';
    END IF;
    RETURN NEW;
END $$
"""
_QUOTES_A_RECEIPT = """
CREATE FUNCTION quote_receipt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('troubles_of_receipts') <= 1 THEN
        RAISE EXCEPTION 'no room for +447700900617' USING DETAIL = 'marmalade';
    END IF;
    RETURN NEW;
END $$
"""
TROUBLES = (
    "CREATE SEQUENCE troubles",
    "CREATE SEQUENCE troubles_of_attempts",
    "CREATE SEQUENCE troubles_of_receipts",
    _QUOTES_WHAT_IS_ACCEPTED,
    _QUOTES_WHAT_IS_SENT,
    _QUOTES_A_RECEIPT,
    "CREATE TRIGGER quote BEFORE INSERT OR UPDATE ON messages FOR EACH ROW EXECUTE FUNCTION quote()",
    "CREATE TRIGGER quote BEFORE INSERT ON attempts FOR EACH ROW EXECUTE FUNCTION quote_sent()",
    "CREATE TRIGGER quote BEFORE INSERT ON receipts FOR EACH ROW EXECUTE FUNCTION quote_receipt()",
)


def _send(**what: Any) -> dict[str, Any]:
    return {"json": {"to": BRITISH, "from": "ACME", "body": "An ottoman"} | what}


def _batch(*recipients: Any, **what: Any) -> dict[str, Any]:
    body = {"from": "ACME", "body": "An ottoman, {name}", "recipients": recipients}
    return {"json": body | what}


# What people get wrong, with numbers and words wherever there is room for them.
BAD_REQUESTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", SEND, {"content": f'{{"to": "{BRITISH}", "body": "gooseberry'}),
    ("POST", SEND, {"content": f'{{"to": "{BRITISH}", "body": "goose'.encode() + b"\xff\xfe"}),
    ("POST", SEND, {"json": [BRITISH, "gooseberry"]}),
    ("POST", SEND, _send(to=int(BRITISH))),
    ("POST", SEND, _send(to="0" + BRITISH[3:])),
    ("POST", SEND, _send(to=BRITISH[:9])),
    ("POST", SEND, _send(to=BRITISH + "0" * 90)),
    ("POST", SEND, _send(body={"marmalade": BRITISH})),
    ("POST", SEND, _send(body="marmalade " * 400)),
    ("POST", SEND, _send(body="marmalade " * 40_000)),
    ("POST", SEND, _send(body="marmalade\0")),
    ("POST", SEND, _send(**{BRITISH: "ottoman"})),
    ("POST", SEND, _send(**{"from": "flibbertigibbet"})),
    ("POST", SEND, _send(mode="hullabaloo")),
    ("POST", SEND, _send(scheduled_at=f"quagmire {BRITISH}")),
    ("POST", SEND, _send(callback_url=f"http://[{BRITISH}]/wilhelmina")),
    ("POST", SEND, _send(callback_url="https://wilhelmina:ottoman@shop.example.com/")),
    ("POST", SEND, _send(metadata={BRITISH: {"marmalade": 1}})),
    ("POST", SEND, {**_send(), "headers": {"Authorization": f"Bearer sg_live_{BRITISH}"}}),
    ("POST", SEND, {**_send(), "headers": {"Authorization": "Basic wilhelmina"}}),
    ("POST", SEND, {**_send(to="+44"), "headers": {"traceparent": f"00-{BRITISH}-wilhelmina-01"}}),
    ("POST", SEND, {**_send(to="+44"), "headers": {"Idempotency-Key": f"zucchini {BRITISH}"}}),
    ("POST", BATCHES, _batch({"to": BRITISH[:9]})),
    ("POST", BATCHES, _batch({"to": BRITISH, "variables": {BRITISH: "zucchini"}})),
    ("POST", BATCHES, _batch({"to": BRITISH, "variables": {"name": ["zucchini"]}})),
    ("POST", BATCHES, _batch({"to": BRITISH, "xylophone": FRENCH})),
    ("POST", BATCHES, _batch({"to": BRITISH}, body="Marmalade for {wilhelmina")),
    ("POST", BATCHES, {"content": f'{{"recipients": [{{"to": "{BRITISH}", "body": "goose'}),
    ("GET", f"{BATCHES}/bat_{BRITISH[1:]}", {}),
    ("GET", f"/api/v1/sms/{BRITISH}", {}),
    ("GET", f"/api/v1/sms/{BRITISH}/explain", {}),
    ("GET", f"/api/v1/sms/msg_{BRITISH[1:]}/events", {}),
    ("GET", "/api/v1/sms", {"params": {"to": BRITISH[:9]}}),
    ("GET", "/api/v1/sms", {"params": {"cursor": BRITISH, "status": "xylophone"}}),
    ("GET", "/api/v1/sms", {"params": {BRITISH: "marmalade"}}),
    ("GET", f"/{BRITISH}/marmalade", {"params": {"to": BRITISH}}),
    ("PUT", f"/api/v1/sms/{BRITISH}", _send()),
    ("POST", "/api/v1/dead-letters/replay", {"json": {"message_ids": [BRITISH, "zucchini"]}}),
    ("POST", f"/api/v1/callbacks/{BRITISH}/replay", {}),
    ("POST", "/api/v1/config/check", {"json": {"source": f'wilhelmina = "{BRITISH}"'}}),
    ("POST", "/api/v1/keys", {"json": {"name": BRITISH, "scopes": ["gooseberry"]}}),
    ("POST", "/webhooks/sms-delivery", {"json": {"to": BRITISH, "message_id": "ottoman"}}),
)


@dataclass
class Evening:
    """A gateway with its API, and what is needed to give it trouble."""

    gateway: Gateway
    temporal: TemporalAway
    api: httpx.AsyncClient
    customer: CallbackReceiver
    key: str

    async def ask(self, method: str, path: str, **what: Any) -> httpx.Response:
        return await self.api.request(method, path, **what)

    async def send(self, to: str, body: str, **what: Any) -> str:
        response = await self.ask(
            "POST", SEND, json={"to": to, "from": "ACME", "body": body} | what
        )
        assert response.status_code == 202, response.text
        return str(response.json()["message_id"])

    async def ends(self, message_id: str, status: str) -> None:
        """Wait until the message has this status."""
        end = time.monotonic() + 120
        while (row := await self.row(message_id))["status"] != status:
            if time.monotonic() > end:
                explained = (await self.ask("GET", f"/api/v1/sms/{message_id}/explain")).json()
                pytest.fail(f"still {row['status']}, not {status}: {explained['summary']}")
            await asyncio.sleep(0.1)

    async def row(self, message_id: str) -> Any:
        return (await self.ask("GET", f"/api/v1/sms/{message_id}")).json()

    async def all_goes_well(self) -> None:
        """The situations of the demo."""
        primary, backup = self.gateway.primary, self.gateway.backup
        accepted = await self.send(BRITISH, "Wilhelmina expects the xylophone")
        self.temporal.away = False
        await asyncio.sleep(2.1)  # as long as a failed connection is not tried again
        await self.gateway.execute("UPDATE messages SET check_by = now() - interval '1 s'")
        primary.set_number(FRENCH, Behaviour(response=Response.REFUSE))
        primary.set_number(OTHER_BRITISH, Behaviour(receipts=()))
        long = await self.send(AMERICAN, "🎺 The marmalade is in the dumbwaiter. " * 6)
        refused = await self.send(FRENCH, "Bassoon rehearsal")
        alert = await self.send(OTHER_BRITISH, "Quagmire ahead", mode="alert")
        for message in (accepted, long, refused, alert):
            await self.ends(message, "delivered")
        for carrier in (primary, backup):
            await carrier.outage()
        await self.gateway.providers_up()
        await asyncio.sleep(0.4)  # as long as it is remembered who was up
        lost = await self.send(BRITISH, "Periwinkle?", mode="two_way", **{"from": "12345"})
        await self.ends(lost, "dead_letter")
        for carrier in (primary, backup):
            await carrier.outage(on=False)
        await self.gateway.providers_up("primary", "backup")
        assert (await self.ask("POST", f"/api/v1/dead-letters/{lost}/replay")).status_code == 202
        await self.ends(lost, "delivered")
        for path in ("", "/events", "/explain"):
            assert (await self.ask("GET", f"/api/v1/sms/{lost}{path}")).status_code == 200
        found = await self.ask("GET", "/api/v1/sms", params={"to": BRITISH})
        assert len(found.json()["items"]) == 2

    async def carriers_give_trouble(self) -> None:
        """A refusal for good, silence, a cut, a response from a phone, receipts of nobody."""
        primary = self.gateway.primary
        primary.set_number(FRENCH, Behaviour(response=Response.REFUSE, status="ESME_RINVDSTADR"))
        primary.set_number(AMERICAN, Behaviour(response=Response.SILENCE, receipts=()))
        refused = await self.send(FRENCH, "Zucchini, madame?")
        unknown = await self.send(AMERICAN, "Hullabaloo!", mode="promotional")
        await self.ends(refused, "failed")
        await self.ends(unknown, "expired")
        primary.inject_mo(BRITISH.removeprefix("+"), "12345", "Which ottoman?")
        primary.set_number(BRITISH, Behaviour(response=Response.RESET, times=1))
        cut = await self.send(BRITISH, "A bassoon", mode="alert")
        await self.ends(cut, "delivered")
        primary.set_number(BRITISH, Behaviour(receipts=(ReceiptStep(after=600),)))
        cancelled_at_provider = await self.send(BRITISH, "A bassoon?")
        await self.ends(cancelled_at_provider, "sent")
        assert (
            await self.ask("POST", f"/api/v1/sms/{cancelled_at_provider}/cancel")
        ).status_code < 300
        await self.ends(cancelled_at_provider, "canceled")
        body = json.dumps({"message_id": "x1", "to": BRITISH, "status": "DELIVERED"}).encode()
        headers = signed_headers(RECEIPT_SECRET, "rcpt_1", datetime.now(UTC), body)
        receipt = {"content": body, "headers": {**headers, "content-type": "application/json"}}
        assert (await self.ask("POST", "/webhooks/sms-delivery", **receipt)).status_code < 300
        primary.set_number(BRITISH, None)

    async def a_batch_goes_out(self, **trouble: str) -> None:
        """Some of it is refused at once, some by the carrier, and the carrier is silent about some."""
        primary = self.gateway.primary
        primary.set_number(OTHER_BRITISH, None)
        primary.set_number(FRENCH, Behaviour(response=Response.REFUSE, status="ESME_RINVDSTADR"))
        primary.set_number(AMERICAN, Behaviour(response=Response.SILENCE, receipts=()))
        recipients = [
            {"to": number, "variables": {"name": name}, "metadata": trouble}
            for number, name in zip([*NUMBERS, BRITISH[:9]], WORDS, strict=False)
        ]
        response = await self.ask("POST", BATCHES, **_batch(*recipients, mode="promotional"))
        assert response.status_code == 202, response.text
        batch = f"{BATCHES}/{response.json()['batch_id']}"
        end = time.monotonic() + 120
        while (view := (await self.ask("GET", batch)).json())["open"]:
            assert time.monotonic() < end, view
            await asyncio.sleep(0.1)
        assert {each["status"] for each in view["counts"]} == {"delivered", "failed", "expired"}
        assert view["refused"] == 1
        assert (await self.ask("GET", f"{batch}/results")).status_code == 200
        for number in (FRENCH, AMERICAN):
            primary.set_number(number, None)

    async def the_database_gives_trouble(self) -> None:
        """Errors that quote rows: while a message is accepted, decided upon, and submitted."""
        for statement in TROUBLES:
            await self.gateway.execute(statement)
        troubled = {"metadata": {"trouble": "INSERT", "note": "gooseberry"}}
        response = await self.ask("POST", SEND, **_send(body="Flibbertigibbet", **troubled))
        assert response.status_code >= 500
        for trouble in ("UPDATE", "attempt"):
            message = await self.send(BRITISH, "Flibbertigibbet", metadata={"trouble": trouble})
            await self.ends(message, "delivered")
        for sequence in ("troubles", "troubles_of_attempts"):
            await self.gateway.execute(f"ALTER SEQUENCE {sequence} RESTART")
        await self.a_batch_goes_out(trouble="attempt")

    async def customers_give_trouble(self) -> None:
        """Bad requests, and a server that fails, redirects and talks nonsense."""
        for method, path, what in BAD_REQUESTS:
            response = await self.ask(method, path, **what)
            assert response.status_code not in {202, *range(500, 600)}, (method, path, what)
        keyed = {"headers": {"Idempotency-Key": f"zucchini-{BRITISH}"}}
        for body, status in (("Ottoman", 202), ("Ottoman", 202), ("Gooseberry", 422)):
            response = await self.ask("POST", SEND, **_send(body=body), **keyed)
            assert response.status_code == status
        path = f"/hooks/wilhelmina?to={BRITISH[1:]}"
        body = f"Who is {BRITISH}? Marmalade!".encode()
        elsewhere = {"Location": f"http://127.0.0.1:1/gooseberry/{BRITISH}"}
        self.customer.will_respond(
            Reply(500, body=body), Reply(302, headers=elsewhere), Reply(raw=body), path=path
        )
        message = await self.send(BRITISH, "Ottoman?", callback_url=self.customer.url(path))
        nobody = f"http://127.0.0.1:1/periwinkle/{BRITISH}"
        await self.send(BRITISH, "Ottoman!", callback_url=nobody)
        await self.ends(message, "delivered")
        async with asyncio.timeout(60):
            while await self.gateway.fetch("SELECT FROM outbox WHERE state = 'pending'"):
                await asyncio.sleep(0.1)
        assert (await self.ask("GET", "/api/v1/callbacks")).status_code == 200


@asynccontextmanager
async def an_evening(
    database_url: str, client: Client, folder: Path, environment: pytest.MonkeyPatch
) -> AsyncIterator[Evening]:
    temporal = TemporalAway(client)
    secret = folder / "secret"
    secret.write_text(RECEIPT_SECRET)
    environment.setenv("SMSGATEWAY_ALLOWED_SECRET_FOLDERS", str(folder))
    async with (
        CallbackReceiver() as customer,
        running_gateway(
            database_url,
            client,
            connect=temporal.connect,
            with_worker=False,
            secret_folders=(str(folder),),
        ) as gateway,
    ):
        configuration = CONFIGURATION.format(
            primary=gateway.primary.port, backup=gateway.backup.port, secret=secret
        )
        await gateway.services.configurations.apply(configuration, applied_by="test")
        await gateway.start_worker()
        await gateway.providers_up("primary", "backup")
        key = await gateway.services.keys.create_root(
            "default", name="wilhelmina", scopes=[Scope.ADMIN]
        )
        assert key.secret
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(gateway.services), raise_app_exceptions=False),
            base_url="http://gateway",
            headers={"Authorization": f"Bearer {key.secret}"},
        ) as api:
            yield Evening(gateway, temporal, api, customer, key.secret)


@pytest.fixture
async def client(temporal_server, temporal_namespace, temporal_runtime) -> Client:
    """A client as production has it."""
    runtime, _ = temporal_runtime
    return await Client.connect(
        temporal_server.address,
        namespace=temporal_namespace,
        data_converter=DATA_CONVERTER,
        runtime=runtime,
    )


async def test_no_number_and_no_text_leaves_the_database(
    database_url, client, temporal_runtime, tmp_path, log, capfd, monkeypatch
):
    with recorded_spans() as spans:
        async with an_evening(database_url, client, tmp_path, monkeypatch) as evening:
            await evening.all_goes_well()
            await evening.carriers_give_trouble()
            await evening.a_batch_goes_out()
            await evening.the_database_gives_trouble()
            await evening.customers_give_trouble()
            async with httpx.AsyncClient() as http:
                temporal_metrics = (await http.get(temporal_runtime[1])).text
        left = Left(
            logs=log.getvalue(),
            output="".join(capfd.readouterr()),
            metrics=_samples(generate_latest(REGISTRY).decode()),
            temporal_metrics=_samples(temporal_metrics),
            spans=_spans(spans),
            histories="\n".join([text async for text in _histories(client)]),
            secrets=[evening.key, RECEIPT_SECRET],
        )
    assert left.leaks() == {}
    # It was a full evening: what is searched holds what happened.
    events = {json.loads(line).get("event") for line in left.logs.splitlines()}
    assert events >= {
        "message_accepted",
        "batch_accepted",
        "message_transitioned",
        "http_request",
        "bind_down",
        "inbound_not_taken",
        "receipt_refused",
        "temporal_away",
    }
    assert "smsgateway_message_transitions_total" in left.metrics
    assert "temporal_workflow_completed_total" in left.temporal_metrics
    assert {"http request", "submit", "receipt"} <= set(left.spans.splitlines())
    assert "SendWorkflow" in left.histories
    assert "BulkSendWorkflow" in left.histories
    assert "CallbackWorkflow" in left.histories
    assert "DataException 22000" in left.histories


def _samples(exposition: str) -> str:
    """Names, labels and help texts; the values are figures."""
    lines = []
    for family in text_string_to_metric_families(exposition):
        lines.append(f"{family.name} {family.documentation}")
        lines += [f"{sample.name} {json.dumps(sample.labels)}" for sample in family.samples]
    return "\n".join(lines)


def _spans(exporter: InMemorySpanExporter) -> str:
    """Names, attributes, events, links and statuses; the times are figures."""
    lines = []
    for span in exporter.get_finished_spans():
        members = json.loads(span.to_json())
        lines.append(span.name)
        lines += [json.dumps(members[key]) for key in ("attributes", "events", "links", "status")]
    return "\n".join(lines)


async def _histories(client: Client) -> AsyncIterator[str]:
    """All that Temporal knows of all workflows: events, and what it shows of each."""
    async for execution in client.list_workflows():
        handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
        for text in texts_of(await handle.fetch_history()):
            yield text
        for text in texts_in((await handle.describe()).raw_description):
            yield text


async def test_one_trace_leads_from_the_request_to_the_receipt(
    database_url, client, tmp_path, monkeypatch
):
    with recorded_spans() as spans:
        async with an_evening(database_url, client, tmp_path, monkeypatch) as evening:
            evening.temporal.away = False
            message = await evening.send(BRITISH, "Ottoman")
            await evening.ends(message, "delivered")
        found = {
            span.name: span
            for span in spans.get_finished_spans()
            if span.attributes.get("smsgateway.message_id") == message
            or span.attributes.get("smsgateway.route") == SEND
        }
    assert found.keys() == {"http request", "submit", "receipt"}
    assert len({span.context.trace_id for span in found.values()}) == 1
    request = found["http request"].context.span_id
    assert found["submit"].parent.span_id == request
    assert found["receipt"].parent.span_id == request
