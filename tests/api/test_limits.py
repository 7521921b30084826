"""What a request may cost: who asks is looked at first, then how much, and only then what."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from api.app import BODY_LIMITS
from api.batches import PATH as BATCHES
from api.body_limiter import longest_prefix
from api.problems import MOST_ERRORS
from domain.callbacks.signatures import signed_headers
from domain.templates import Template
from services.keys import Scope
from tests.api.conftest import (
    MOST_BYTES,
    NUMBER,
    ORDER,
    SEND,
    Api,
    document,
    errors_of,
    slug_of,
)

pytestmark = pytest.mark.stack

JSON = {"content-type": "application/json"}
MOST_SEGMENTS = 3  # as the tests' configuration allows the account


class Body:
    """A body without an end, that counts what is read of it."""

    def __init__(self) -> None:
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"["
        while True:
            self.read += 1000
            yield b"{}, " * 250


# How much, by the path


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("/", "/"),
        ("/api/v1/sms", "/"),
        ("/api/v1/alerts", "/api/v1/alerts"),
        ("/api/v1/alerts/", "/api/v1/alerts"),
        ("/api/v1/alerts/17", "/api/v1/alerts"),
        ("/api/v1/alerts/raw/17", "/api/v1/alerts/raw"),
        ("/api/v1/alertsandmore", "/"),
        ("/other/api/v1/alerts", "/"),
        ("", "/"),
    ],
)
def test_the_longest_prefix_of_a_path_counts(path: str, prefix: str) -> None:
    assert longest_prefix(("/", "/api/v1/alerts", "/api/v1/alerts/raw"), path) == prefix


async def test_the_refusal_of_a_body_names_the_limit_of_its_path(api: Api) -> None:
    for path, prefix in ((SEND, "/"), (BATCHES, BATCHES)):
        most = getattr(api.services.settings, BODY_LIMITS[prefix])
        assert (await api.post(path, content=b" " * most, headers=JSON)).status_code != 413
        refused = await api.post(path, content=b" " * (most + 1), headers=JSON)
        assert (refused.status_code, slug_of(refused)) == (413, "body-too-large")
        where = "here" if prefix == "/" else f"for {prefix}"
        assert f"at most {most} bytes {where}" in refused.json()["detail"]


# Who asks


async def test_nothing_is_read_of_a_request_without_a_good_key(api: Api) -> None:
    powerless = await api.key_of(Scope.READ_PROVIDERS)
    without_body = {"get", "delete"}
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            if "security" not in operation or method in without_body:
                continue
            address = path.replace("{", "").replace("}", "")
            for key, status in ((None, 401), ("sg_live_wrong", 401), (powerless, 403)):
                body = Body()
                response = await api.ask(
                    method.upper(), address, key=key, content=body, headers=JSON
                )
                assert response.status_code == status, (address, key)
                assert body.read == 0, (address, key)


async def test_nothing_is_read_of_a_receipt_whose_headers_cannot_hold(api: Api) -> None:
    for headers in (
        {},
        {"webhook-id": "a", "webhook-timestamp": "1795000000"},
        {"webhook-id": "a", "webhook-timestamp": "1", "webhook-signature": "v1,YQ=="},
        {"webhook-id": "a", "webhook-timestamp": "9" * 5000, "webhook-signature": "v1,YQ=="},
    ):
        body = Body()
        response = await api.ask(
            "POST", "/webhooks/sms-delivery", key=None, content=body, headers=JSON | headers
        )
        assert (response.status_code, slug_of(response)) == (401, "signature-refused")
        assert body.read == 0


async def test_a_receipt_is_parsed_only_if_it_is_signed(api: Api) -> None:
    body = b"[" * 5000
    headers = signed_headers("whsec_" + "YWJj" * 8, "rcpt_1", datetime.now(UTC), body)
    response = await api.ask(
        "POST", "/webhooks/sms-delivery", key=None, content=body, headers=JSON | headers
    )
    assert (response.status_code, slug_of(response)) == (401, "signature-refused")


async def test_a_key_with_a_body_too_large_reads_up_to_the_limit(api: Api) -> None:
    body = Body()
    response = await api.post(SEND, content=body, headers=JSON)
    assert (response.status_code, slug_of(response)) == (413, "body-too-large")
    assert body.read <= MOST_BYTES + 1000


# What is wrong


async def test_of_many_errors_twenty_are_listed_and_the_others_counted(api: Api) -> None:
    unknown = {f"x{number}": 1 for number in range(500)}
    for path, body in (
        (SEND, ORDER | unknown),
        (BATCHES, {"from": "ACME", "recipients": [{"to": NUMBER}]} | unknown),
        (BATCHES, {"from": "ACME", "recipients": [{"to": NUMBER} | unknown]}),
        (BATCHES, {"from": "ACME", "body": "a", "recipients": [{"t": NUMBER}] * 250}),
    ):
        response = await api.post(path, json=body)
        assert (response.status_code, slug_of(response)) == (422, "invalid-request")
        assert len(response.json()["errors"]) == MOST_ERRORS
        assert response.json()["more_errors"] == 500 - MOST_ERRORS
        assert len(response.content) < 8000


async def test_a_few_errors_are_listed_without_a_count(api: Api) -> None:
    response = await api.post(SEND, json=ORDER | {"x": 1})
    assert len(response.json()["errors"]) == 1
    assert "more_errors" not in response.json()


async def test_if_no_recipient_is_left_the_other_refusals_are_counted(api: Api) -> None:
    recipients = [{"to": "+4477"}] * 100
    response = await api.post(BATCHES, json={"from": "ACME", "body": "a", "recipients": recipients})
    assert (response.status_code, slug_of(response)) == (422, "invalid-request")
    assert len(response.json()["errors"]) == MOST_ERRORS
    assert response.json()["more_errors"] == 100 - MOST_ERRORS


async def test_names_that_were_sent_are_repeated_up_to_a_length(api: Api) -> None:
    names = ["x" * 4000, "metadata", "\\u0000" * 600]
    for name in names:
        content = json.dumps(ORDER)[:-1] + f', "{name}": {{"{name[:1800]}": 7}}}}'
        response = await api.post(SEND, content=content, headers=JSON)
        assert response.status_code == 422
        assert all(len(field) <= 140 for field in errors_of(response))
        assert len(response.content) < 2000


# Texts


@pytest.mark.parametrize(
    ("body", "variables"),
    [
        ("{a}" * 2000, {"a": "😀" * 1000}),
        ("{a}" * 1000, {"a": ""}),
        ("x" * 8000, {}),
        ("{{" * 4000, {}),
        ("{a}", {"a": "\u200b" * 1000}),
    ],
    ids=["places times values", "empty places", "literal", "braces", "one value"],
)
async def test_a_text_that_is_too_long_is_never_made(
    api: Api, monkeypatch: pytest.MonkeyPatch, body: str, variables: dict[str, str]
) -> None:
    def made(_: Template, __: Any) -> str:
        raise AssertionError("the text was made")

    monkeypatch.setattr(Template, "fill", made)
    request = {"from": "ACME", "body": body, "recipients": [{"to": NUMBER, "variables": variables}]}
    response = await api.post(BATCHES, json=request)
    assert (response.status_code, slug_of(response)) == (422, "invalid-request")
    [(_, detail)] = errors_of(response).items()
    assert f"at most {MOST_SEGMENTS} are allowed" in detail


async def test_the_texts_of_a_batch_are_bounded_together(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.batches.MOST_CHARACTERS", 1000)
    made = 0
    fill = Template.fill

    def counted(template: Template, variables: Any) -> str:
        nonlocal made
        text = fill(template, variables)
        made += len(text)
        return text

    monkeypatch.setattr(Template, "fill", counted)
    recipients = [
        {"to": f"+447700900{n}", "variables": {"a": str(n) * 40}} for n in range(100, 200)
    ]
    request = {"from": "ACME", "body": "{a}", "recipients": recipients}
    response = await api.post(BATCHES, json=request)
    assert (response.status_code, slug_of(response)) == (422, "invalid-request")
    assert "several batches" in errors_of(response)["recipients"]
    assert made <= 1000
    assert not any((await api.rows()).values())


async def test_an_own_text_that_is_too_long_is_refused_before_it_is_encoded(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encoded(*_: object) -> None:
        raise AssertionError("the text was encoded")

    monkeypatch.setattr("domain.segments.try_gsm7", encoded)
    text = "😀" * 1900
    response = await api.post(SEND, json=ORDER | {"body": text})
    assert f"at most {MOST_SEGMENTS} are allowed" in errors_of(response)["body"]
    request = {"from": "ACME", "recipients": [{"to": NUMBER, "body": text}]}
    response = await api.post(BATCHES, json=request)
    assert f"at most {MOST_SEGMENTS} are allowed" in errors_of(response)["recipients.0.body"]
