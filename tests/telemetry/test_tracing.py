"""One trace from the request to the receipt, with ids and codes only."""

import json

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from telemetry.tracing import configure_tracing, current_traceparent, recorded_spans, span

NUMBER = "+447700900123"
BODY = "Your code is 493021"
MESSAGE_ID = "msg_" + "0123456789abcdef" * 2


def test_tracing_is_off_until_it_is_configured():
    configure_tracing("api", None)
    with span("http request", provider="primary") as opened:
        assert not opened.is_recording()
        assert current_traceparent() is None


def test_a_stored_traceparent_goes_on_in_another_process():
    with recorded_spans("api") as api, span("http request", kind=SpanKind.SERVER):
        stored = current_traceparent()
    assert stored is not None
    with recorded_spans("worker") as worker:
        with span("submit part", parent=stored, kind=SpanKind.CLIENT):
            submitted = current_traceparent()
        with span("receipt", parent=submitted):
            pass
    (request,) = api.get_finished_spans()
    submit, receipt = worker.get_finished_spans()
    assert request.context
    assert submit.parent
    assert submit.parent.span_id == request.context.span_id
    assert {s.context.trace_id for s in (request, submit, receipt)} == {request.context.trace_id}
    assert request.resource.attributes["service.name"] == "smsgateway-api"
    assert submit.resource.attributes["service.name"] == "smsgateway-worker"


def test_spans_nest_without_a_word():
    with recorded_spans() as spans, span("decide"), span("submit part"):
        pass
    inner, outer = spans.get_finished_spans()
    assert inner.parent
    assert outer.context
    assert inner.parent.span_id == outer.context.span_id


@pytest.mark.parametrize("wrong", ["", "x", "00-0-0-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "a" * 10_000])  # fmt: skip
def test_a_malformed_traceparent_starts_a_trace_of_its_own(wrong):
    with recorded_spans() as spans, span("receipt", parent=wrong):
        pass
    (ended,) = spans.get_finished_spans()
    assert ended.parent is None


def test_spans_carry_ids_and_codes_and_nothing_else():
    with (
        recorded_spans() as spans,
        span(
            "submit part",
            message_id=MESSAGE_ID,
            code="0x00000058",
            to=NUMBER,
            reason=BODY,
            route=None,
        ),
    ):
        pass
    (ended,) = spans.get_finished_spans()
    assert ended.attributes == {
        "smsgateway.message_id": MESSAGE_ID,
        "smsgateway.code": "0x00000058",
        "smsgateway.reason": "[redacted]",
        "smsgateway.dropped": 1,
    }


def test_an_exception_marks_the_span_and_leaves_no_text():
    with recorded_spans() as spans, pytest.raises(ConnectionRefusedError), span("submit part"):
        raise ConnectionRefusedError(111, f"{NUMBER}: {BODY}")
    (ended,) = spans.get_finished_spans()
    assert ended.status.status_code is StatusCode.ERROR
    assert ended.attributes == {
        "error.type": "ConnectionRefusedError",
        "smsgateway.code": "ECONNREFUSED",
    }
    assert ended.events == ()
    written = json.dumps(json.loads(ended.to_json()))
    assert "900123" not in written
    assert "493021" not in written


def test_after_recording_tracing_is_off_again():
    with recorded_spans() as spans:
        pass
    with span("late"):
        pass
    assert spans.get_finished_spans() == ()
