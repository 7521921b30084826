"""Clients and the fake gateway held against the OpenAPI document of a gateway."""

import dataclasses
import os
from datetime import UTC, datetime, timedelta

import pytest
from sdks.python.tests.fakes.openapi import WHERE, breaches, document_of_a_gateway, operations, used

from smsgateway import GatewayError, Recipient

TO = "+447700900123"
DEAD = "+447700900199"


def use_everything(client, operator, gateway):
    use_as_operator(operator)
    later = datetime.now(UTC) + timedelta(hours=1)
    earlier = datetime.now(UTC) - timedelta(hours=1)
    message_id = client.send(
        to=TO,
        sender="Acme",
        body="Hello",
        mode="alert",
        priority="high",
        callback_url="https://shop.example.com/sms",
        validity_period=600,
        receipt_deadline=45,
        missing_receipt="expire",
        metadata={"order": "17"},
        parameters={"template_id": "1107"},
        smart_encoding=False,
    ).message_id
    client.preview(to=TO, sender="Acme", body="It\u2019s here", mode="alert")
    client.wait(message_id)
    scheduled = client.send(to=TO, sender="Acme", body="Hello", scheduled_at=later).message_id
    use_batches(client, later)
    dead = client.send(to=DEAD, sender="Acme", body="Hello").message_id
    while not client.message(dead).has_ended:
        pass
    callback_id = gateway.add_callback(message_id)
    first = client.messages(
        status="dead_letter",
        mode="transactional",
        to=DEAD,
        sender="Acme",
        since=later - timedelta(days=1),
        until=later,
        limit=1,
    )
    assert len(first.items) == 1
    list(client.each_message(limit=2))
    client.messages(provider="primary")
    client.events(message_id)
    client.account_events(status="delivered", since=earlier, limit=5)
    client.explain(message_id)
    client.cancel(scheduled)
    client.dead_letters(provider="primary", limit=5)
    client.replay_dead_letters(message_ids=[dead])
    client.replay_dead_letters(provider="primary", limit=1)
    client.providers()
    client.provider("primary")
    key = client.create_key(
        name="k", environment="test", scopes=["messages:read"], expires_at=later
    )
    client.keys()
    client.revoke_key(key.id)
    client.callbacks(state="failed", message_id=message_id, limit=5)
    client.replay_callback(callback_id)
    client.replay_callbacks(state="failed", limit=5)
    client.callback_secret()
    client.readiness()
    for refused in (
        lambda: client.message("msg_none"),
        lambda: client.cancel(scheduled),
        lambda: client.replay_dead_letter(dead),
        lambda: client.send(to="nobody", sender="Acme", body=""),
    ):
        with pytest.raises(GatewayError):
            refused()


def use_as_operator(operator):
    later = datetime.now(UTC) + timedelta(hours=1)
    operator.reparse_receipts("primary")
    operator.reparse_receipts("primary", after=500)
    operator.provider_addresses("primary")
    operator.provider_addresses("backup")
    test = operator.send_provider_test(
        "primary", to=TO, sender="Acme", body="A test.", account_id="default"
    )
    operator.explain_provider_test("primary", test.message_id)
    operator.configuration()
    operator.check_configuration("[")
    operator.apply_configuration(operator.configuration().content)
    account = operator.create_account("Acme Logistics")
    operator.accounts()
    operator.account(account.id)
    operator.suspend_account(account.id)
    operator.resume_account(account.id)
    operator.create_account_key(
        account.id, name="admin", environment="live", scopes=["admin"], expires_at=later
    )
    key = operator.create_operator_key(name="ci", scopes=["config:manage"], expires_at=later)
    operator.operator_keys()
    operator.revoke_operator_key(key.id)
    for refused in (
        lambda: operator.send_provider_test("backup", to=TO),
        lambda: operator.explain_provider_test("primary", "msg_none"),
        lambda: operator.account("acc_none"),
        lambda: operator.create_account("Acme Logistics"),
        operator.messages,
    ):
        with pytest.raises(GatewayError):
            refused()


def use_batches(client, later):
    batch = client.send_batch(
        sender="Acme",
        body="Hello {name}",
        recipients=[
            Recipient(TO, {"name": "Ann"}),
            Recipient("+447700900124", body="Hello", metadata={"order": "17"}),
            Recipient("4477", {"name": "Ben"}),
        ],
        mode="promotional",
        priority="low",
        callback_url="https://shop.example.com/sms",
        validity_period=600,
        receipt_deadline=45,
        missing_receipt="expire",
        scheduled_at=later,
        parameters={"template_id": "1107"},
        smart_encoding=False,
    )
    for _ in range(2):
        client.send_batch(
            sender="Acme", body="Hello", recipients=[Recipient(TO)], idempotency_key="news"
        )
    client.batches(limit=1)
    list(client.each_batch(limit=1))
    client.batch_results(batch.batch_id)
    for change in (client.pause_batch, client.resume_batch, client.cancel_batch, client.batch):
        change(batch.batch_id)
    while not (batch := client.batches(limit=1).items[0]).has_ended:
        pass
    for refused in (
        lambda: client.batch("bat_none"),
        lambda: client.pause_batch(list(client.each_batch())[-1].batch_id),
        lambda: client.send_batch(sender="Acme", body="{", recipients=[Recipient(TO)]),
        lambda: client.send_batch(sender="Acme", recipients=[Recipient(TO)]),
    ):
        with pytest.raises(GatewayError):
            refused()


def test_all_that_the_client_and_the_fake_say_is_allowed_by_the_gateways_document(
    client, operator, gateway
):
    document = document_of_a_gateway()
    if document is None:
        missing = f"there is no gateway beside the client, and {WHERE} names none"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    use_everything(client, operator, gateway)
    assert breaches(document, gateway.exchanges) == []
    assert operations(document) - used(document, gateway.exchanges) == set()


DOCUMENT = {
    "openapi": "3.1.0",
    "paths": {
        "/api/v1/sms/send": {
            "post": {
                "parameters": [
                    {
                        "name": "Idempotency-Key",
                        "in": "header",
                        "schema": {"type": "string", "maxLength": 255},
                    }
                ],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Send"}}
                    },
                },
                "responses": {
                    "202": {
                        "content": {
                            "application/json": {
                                "schema": {"type": "object", "required": ["message_id"]}
                            }
                        }
                    }
                },
            }
        },
        "/api/v1/sms": {
            "get": {
                "parameters": [
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 200}}
                ],
                "responses": {"200": {"description": "a page"}},
            }
        },
    },
    "components": {
        "schemas": {
            "Number": {"type": "string", "pattern": "^\\+"},
            "Send": {
                "type": "object",
                "additionalProperties": False,
                "required": ["to", "from", "body"],
                "properties": {
                    "to": {"$ref": "#/components/schemas/Number"},
                    "from": {"type": "string"},
                    "body": {"type": "string"},
                },
            },
        }
    },
}


@pytest.fixture
def sent(client, gateway):
    client.send(to=TO, sender="Acme", body="Hello")
    client.messages(limit=3)
    return gateway.exchanges


def test_what_the_document_allows_is_no_breach(sent):
    assert breaches(DOCUMENT, sent) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"body": b'{"to": "44", "from": "a", "body": "b"}'}, "at $.to: pattern"),
        ({"body": b'{"to": "+44", "from": "a", "body": "b", "x": 1}'}, "additionalProperties"),
        ({"body": b'{"to": "+44", "from": "a"}'}, "required"),
        ({"body": b""}, "a body is required"),
        ({"headers": {"content-type": "text/plain"}}, "not one of"),
        ({"status": 418}, "418 is not documented"),
        ({"response": b"{}"}, "response at $: required"),
        ({"path": "/api/v1/other"}, "no such operation"),
        ({"method": "DELETE"}, "no such operation"),
        ({"query": (("deep", "1"),)}, "deep is not known"),
        (
            {"headers": {"content-type": "application/json", "idempotency-key": "k" * 256}},
            "header Idempotency-Key",
        ),
    ],
)
def test_what_the_document_does_not_allow_is_found(sent, change, sentence):
    found = breaches(DOCUMENT, [dataclasses.replace(sent[0], **change)])
    assert any(sentence in breach for breach in found), found


def test_an_operation_that_nobody_used_is_found(sent):
    assert operations(DOCUMENT) == {"POST /api/v1/sms/send", "GET /api/v1/sms"}
    assert used(DOCUMENT, sent[1:]) == {"GET /api/v1/sms"}


def test_a_query_parameter_out_of_bounds_is_found(sent):
    wrong = dataclasses.replace(sent[1], query=(("limit", "201"),))
    assert breaches(DOCUMENT, [wrong]) == [
        "GET /api/v1/sms: query limit at $: maximum does not hold."
    ]
