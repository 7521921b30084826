"""Each request is counted, logged and traced by its template, and by nothing that it holds."""

from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, FastAPI, HTTPException, Query
from starlette.responses import PlainTextResponse

from telemetry.http import FASTAPI_TELEMETRY_OFF, HttpTelemetry
from telemetry.logs import log_context
from telemetry.metrics import REGISTRY, metric_value
from telemetry.tracing import current_traceparent, recorded_spans

NUMBER = "+447700900123"
MESSAGE_ID = "msg_" + "0123456789abcdef" * 2

router = APIRouter(prefix="/sms")


@router.get("/{number}")
async def show(number: str, body: Annotated[str, Query()] = "") -> PlainTextResponse:
    return PlainTextResponse(current_traceparent() or f"{number}{body}")


@router.post("/{number}/refused")
async def refuse(number: str) -> None:
    raise HTTPException(422, detail=number)


@router.get("/{number}/broken")
async def fail(number: str) -> None:
    with log_context(message_id=MESSAGE_ID):
        raise ValueError(f"cannot show {number}")


def application() -> FastAPI:
    app = FastAPI(telemetry=FASTAPI_TELEMETRY_OFF)
    app.include_router(router, prefix="/api/v1")
    app.add_api_route("/healthz", lambda: "ok")
    app.add_middleware(HttpTelemetry)
    return app


@pytest.fixture
async def client():
    transport = httpx.ASGITransport(app=application(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as opened:
        yield opened


def counted(route: str, status: int, method: str = "GET") -> float:
    labels = {"method": method, "route": route, "status": str(status)}
    return metric_value("smsgateway_http_requests_total", labels)


async def test_a_request_is_known_by_its_template(client, logged):
    before = counted("/api/v1/sms/{number}", 200)
    await client.get(f"/api/v1/sms/{NUMBER}", params={"body": "hello there"})
    assert counted("/api/v1/sms/{number}", 200) == before + 1
    record = next(r for r in logged.records if r["event"] == "http_request")
    assert (record["method"], record["route"], record["status"]) == (
        "GET",
        "/api/v1/sms/{number}",
        "200",
    )
    assert record["duration_ms"] >= 0
    assert "900123" not in logged.text
    assert "hello" not in logged.text


async def test_refusals_are_counted_by_their_status(client, logged):
    before = counted("/api/v1/sms/{number}/refused", 422, "POST")
    await client.post(f"/api/v1/sms/{NUMBER}/refused")
    assert counted("/api/v1/sms/{number}/refused", 422, "POST") == before + 1


async def test_what_nobody_serves_is_unmatched(client, logged):
    await client.get(f"/{NUMBER}")
    assert counted("unmatched", 404) >= 1
    assert "900123" not in logged.text


async def test_an_unheard_of_method_is_other(client, logged):
    await client.request("PURGE447700900123", "/healthz")
    methods = {
        sample.labels.get("method") for family in REGISTRY.collect() for sample in family.samples
    }
    assert "other" in methods
    assert "900123" not in logged.text


async def test_a_failure_is_logged_with_its_place_and_without_its_text(client, logged):
    response = await client.get(f"/api/v1/sms/{NUMBER}/broken")
    assert response.status_code == 500
    assert counted("/api/v1/sms/{number}/broken", 500) >= 1
    failed = next(r for r in logged.records if r["event"] == "request_failed")
    assert failed["exception"][0]["type"] == "builtins.ValueError"
    assert failed["exception"][0]["places"][-1].endswith("fail")
    assert "900123" not in logged.text


async def test_watchers_are_counted_but_not_logged(client, logged):
    before = counted("/healthz", 200)
    await client.get("/healthz")
    assert counted("/healthz", 200) == before + 1
    assert logged.text == ""


async def test_the_callers_trace_goes_on(client, logged):
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    with recorded_spans("api") as spans:
        response = await client.get(f"/api/v1/sms/{NUMBER}", headers=headers)
    assert trace in response.text
    (request,) = spans.get_finished_spans()
    assert request.name == "http request"
    assert request.attributes == {
        "smsgateway.method": "GET",
        "smsgateway.route": "/api/v1/sms/{number}",
        "smsgateway.status": "200",
    }
    assert "900123" not in request.to_json()


async def test_what_one_request_bound_does_not_show_on_the_next(client, logged):
    await client.get(f"/api/v1/sms/{NUMBER}/broken")
    await client.get(f"/api/v1/sms/{NUMBER}")
    assert "message_id" not in logged.records[-1]


async def test_a_client_that_left_before_the_response_is_counted_with_status_499(logged):
    async def left(scope, receive, send):
        return

    before = counted("unmatched", 499)
    await HttpTelemetry(left)({"type": "http", "method": "GET", "headers": []}, None, None)
    assert counted("unmatched", 499) == before + 1


@pytest.mark.parametrize("began", [False, True])
async def test_what_fails_since_the_client_left_is_no_fault(logged, began):
    async def failing(scope, receive, send):
        if began:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        raise ValueError

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    before = counted("unmatched", 499)
    await HttpTelemetry(failing)({"type": "http", "method": "GET", "headers": []}, receive, send)
    assert counted("unmatched", 499) == before + 1
    assert "request_failed" not in {record["event"] for record in logged.records}


async def test_what_fails_after_a_complete_answer_is_a_fault(logged):
    async def failing(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        await receive()
        raise ValueError("cannot finish")

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    before = counted("unmatched", 500)
    with pytest.raises(ValueError, match="cannot finish"):
        await HttpTelemetry(failing)(
            {"type": "http", "method": "GET", "headers": []}, receive, send
        )
    assert counted("unmatched", 500) == before + 1


async def test_other_protocols_pass_through(logged):
    seen = []

    async def inner(scope, receive, send):
        seen.append(scope["type"])

    await HttpTelemetry(inner)({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]
    assert logged.text == ""
