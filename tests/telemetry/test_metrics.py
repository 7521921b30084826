"""Metrics count what happened, under labels that are bounded and hold no personal data."""

import urllib.request

import httpx
import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from domain.error_classes import ErrorClass
from domain.modes import Mode
from domain.outcomes import OutcomeKind
from domain.receipts import ReceiptState
from domain.states import MessageStatus
from telemetry import metrics
from telemetry.metrics import metric_value, metrics_app, serve_metrics

NUMBER = "+447700900123"


@pytest.fixture(autouse=True)
def fresh_codes(monkeypatch):
    monkeypatch.setattr(metrics, "_codes", set())


def test_each_move_of_a_message_is_counted():
    labels = {"from": "sending", "to": "sent", "mode": "alert", "provider": "m1", "reason": "none"}
    metrics.message_transitioned(
        MessageStatus.SENDING, MessageStatus.SENT, mode=Mode.ALERT, provider="m1"
    )
    metrics.message_transitioned(
        MessageStatus.SENDING, MessageStatus.SENT, mode=Mode.ALERT, provider="m1"
    )
    assert metric_value("smsgateway_message_transitions_total", labels) == 2


def test_acceptance_is_a_move_from_none():
    name = "smsgateway_message_transitions_total"
    labels = {
        "from": "none",
        "to": "queued",
        "mode": "two_way",
        "provider": "none",
        "reason": "none",
    }
    before = metric_value(name, labels)
    metrics.message_transitioned(None, MessageStatus.QUEUED, mode=Mode.TWO_WAY)
    assert metric_value(name, labels) == before + 1


def test_a_part_is_counted_with_what_came_of_it_and_timed_if_answered():
    metrics.part_submitted(
        provider="m2",
        outcome=OutcomeKind.REFUSED,
        error_class=ErrorClass.ROUTE,
        code="0x00000045",
        seconds=0.03,
    )
    metrics.part_submitted(provider="m2", outcome=OutcomeKind.UNREACHABLE)
    refused = {"provider": "m2", "outcome": "refused", "error_class": "route", "code": "0x00000045"}
    assert metric_value("smsgateway_attempts_total", refused) == 1
    assert metric_value("smsgateway_submit_seconds_count", {"provider": "m2"}) == 1


def test_only_final_receipts_are_timed():
    metrics.receipts_came(provider="m3", state=ReceiptState.ENROUTE, matched=True, seconds=1)
    metrics.receipts_came(provider="m3", state=ReceiptState.DELIVERED, matched=True, seconds=2)
    metrics.receipts_came(provider="m3", state=ReceiptState.DELIVERED, matched=False)
    assert metric_value("smsgateway_receipt_delay_seconds_sum", {"provider": "m3"}) == 2
    unmatched = {"provider": "m3", "state": "delivered", "matched": "false"}
    assert metric_value("smsgateway_receipts_total", unmatched) == 1


def test_a_clock_that_went_back_breaks_no_histogram():
    metrics.message_reached_wire(mode=Mode.ALERT, seconds=-1)
    metrics.receipts_came(provider="m4", state=ReceiptState.DELIVERED, matched=True, seconds=-1)
    assert metric_value("smsgateway_receipt_delay_seconds_sum", {"provider": "m4"}) == 0


def test_gauges_have_the_current_values_and_drop_a_removed_provider():
    metrics.binds_counted("m5", {"up": 1, "down": 1})
    metrics.binds_counted("m5", {"up": 2, "down": 0})
    metrics.window_watched("m5", lambda: 17)
    metrics.rate_watched("m5", lambda: 0.5)
    metrics.chunks_measured("m5", 3)
    metrics.pollers_counted("m5", {"providers": True, "chunks": False})
    polls = {"provider": "m5", "role": "providers"}
    assert metric_value("smsgateway_provider_pollers", polls) == 1
    up = {"provider": "m5", "state": "up"}
    assert metric_value("smsgateway_binds", up) == 2
    assert metric_value("smsgateway_rate_ratio", {"provider": "m5"}) == 0.5
    metrics.provider_gone("m5")
    assert metrics.REGISTRY.get_sample_value("smsgateway_binds", up) is None
    assert metrics.REGISTRY.get_sample_value("smsgateway_provider_pollers", polls) is None
    for gauge in (
        "smsgateway_window_in_use",
        "smsgateway_rate_ratio",
        "smsgateway_claimed_messages",
    ):
        assert metrics.REGISTRY.get_sample_value(gauge, {"provider": "m5"}) is None


def test_a_number_becomes_no_label():
    metrics.message_accepted(mode=Mode.ALERT, environment=NUMBER, country=NUMBER, runner="single")
    metrics.request_refused(f"cannot send to {NUMBER}")
    metrics.part_submitted(provider=NUMBER, outcome=OutcomeKind.REFUSED, code=NUMBER)
    metrics.receipts_came(provider=NUMBER, state=ReceiptState.DELIVERED, matched=True)
    metrics.callbacks_tried(outcome=NUMBER, events=1, seconds=0.1)
    metrics.message_reconciled(NUMBER)
    metrics.loop_failed(NUMBER)
    metrics.pollers_counted(NUMBER, {NUMBER: True})
    metrics.request_completed(method=NUMBER, route=f"/sms/{NUMBER}", status=200, seconds=0.1)
    for family in metrics.REGISTRY.collect():
        for sample in family.samples:
            assert not any("7700900123" in value for value in sample.labels.values())


def test_a_carrier_that_invents_codes_does_not_fill_the_memory():
    for code in range(1000):
        metrics.part_submitted(provider="m6", outcome=OutcomeKind.REFUSED, code=code)
    codes = {
        sample.labels["code"]
        for family in metrics.REGISTRY.collect()
        for sample in family.samples
        if sample.name == "smsgateway_attempts_total" and sample.labels["provider"] == "m6"
    }
    assert len(codes) == 301
    assert "other" in codes
    assert metric_value(
        "smsgateway_attempts_total",
        {"provider": "m6", "outcome": "refused", "error_class": "none", "code": "other"},
    ) == 700  # fmt: skip


def test_figures_are_served_until_closed():
    metrics.message_reconciled("runner_gone", 3)
    server = serve_metrics("127.0.0.1", 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as response:
        families = {f.name for f in text_string_to_metric_families(response.read().decode())}
    server.close()
    assert {"smsgateway_reconciled", "smsgateway_http_requests", "process_cpu_seconds"} <= families
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5)


def test_a_port_that_is_taken_is_an_error():
    server = serve_metrics("127.0.0.1", 0)
    try:
        with pytest.raises(OSError, match="in use"):
            serve_metrics("127.0.0.1", server.port)
    finally:
        server.close()


async def test_figures_are_served_within_another_application():
    transport = httpx.ASGITransport(app=metrics_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        response = await client.get("/metrics")
    assert "smsgateway_accepted_total" in response.text


def test_the_share_of_a_rate_is_shown_by_provider_and_role_until_the_provider_is_removed():
    metrics.rate_divided("carrier", role="chunks", rate=200.0, share=195.0, demand=310.0)
    metrics.rate_divided("unlimited", role="all", rate=None, share=None, demand=7.0)
    labels = {"provider": "carrier", "role": "chunks"}
    assert metric_value("smsgateway_rate", {"provider": "carrier"}) == 200
    assert metric_value("smsgateway_rate_share", labels) == 195
    assert metric_value("smsgateway_rate_demand", labels) == 310
    unlimited = {"provider": "unlimited", "role": "all"}
    assert metric_value("smsgateway_rate_demand", unlimited) == 7
    metrics.provider_gone("carrier")
    metrics.provider_gone("unlimited")
    shown = generate_latest(metrics.REGISTRY).decode()
    assert 'provider="carrier"' not in shown
    assert 'provider="unlimited"' not in shown


def test_the_page_lists_every_metric_and_its_labels():
    page = (metrics.__file__.rsplit("/", 2)[0]) + "/docs/metrics.md"
    with open(page) as file:  # noqa: PTH123 - one line
        text = file.read()
    for family in metrics.REGISTRY.collect():
        if family.name.startswith("smsgateway_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert f"| `{name}` |" in text, name


def test_every_metric_of_this_process_is_served():
    defined = {each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)}
    served = set(metrics.REGISTRY._collector_to_names)
    assert [each for each in defined if each not in served] == []
