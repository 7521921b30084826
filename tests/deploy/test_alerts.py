"""Alerts in situations: each fires in its own, and nothing else does."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.deploy.compose import CHECKOUT

RULES = CHECKOUT / "deploy/prometheus/alerts.yml"
BEFORE = 30
"""Minutes of a healthy day, where something stops."""
LOOK = 75
"""The minute at which alerts are looked at: every `for` and every window is over."""

Series = Mapping[str, str]
"""Each sample's series with its values, one a minute, in promtool's notation."""


def always(value: float) -> str:
    return f"{value}+0x{LOOK}"


def growing(by: float) -> str:
    """By so much a minute."""
    return f"0+{by}x{LOOK}"


def until_it_stops(by: float) -> str:
    """Growing for half an hour, and then no more."""
    return f"0+{by}x{BEFORE} {by * BEFORE}+0x{LOOK - BEFORE}"


def then(value: float, later: float) -> str:
    """One value for half an hour, and then another."""
    return f"{value}+0x{BEFORE} {later}+0x{LOOK - BEFORE}"


def histogram(name: str, labels: str, seconds: float) -> Series:
    """One whose every observation took as long, one a second."""
    bounds = (0.1, 0.5, 1, 2.5, 5, 10, 60)
    series = {
        f'{name}_bucket{{{labels}, le="{bound}"}}': growing(60 if seconds <= bound else 0)
        for bound in bounds
    }
    return {**series, f'{name}_bucket{{{labels}, le="+Inf"}}': growing(60)}


def up(service: str) -> str:
    return f'up{{job="gateway", service="{service}", instance="{service}:1"}}'


def attempts(outcome: str) -> str:
    return f'smsgateway_attempts_total{{provider="primary", outcome="{outcome}"}}'


def receipts(state: str, *, matched: bool = True) -> str:
    labels = f'provider="primary", state="{state}", matched="{str(matched).lower()}"'
    return f"smsgateway_receipts_total{{{labels}}}"


def binds(state: str) -> str:
    return f'smsgateway_binds{{provider="primary", state="{state}"}}'


def bind_errors(reason: str) -> str:
    return f'smsgateway_bind_errors{{provider="primary", reason="{reason}"}}'


def pollers(role: str) -> str:
    return f'smsgateway_provider_pollers{{provider="primary", role="{role}"}}'


def opened(status: str) -> str:
    return f'smsgateway_open_messages{{service="worker-reconciler", status="{status}"}}'


def moves(mode: str, to: str, reason: str = "none") -> str:
    labels = f'mode="{mode}", to="{to}", reason="{reason}"'
    return f"smsgateway_message_transitions_total{{{labels}}}"


def requests(route: str, status: int) -> str:
    return f'smsgateway_http_requests_total{{route="{route}", status="{status}"}}'


def database_failures(reason: str) -> str:
    labels = f'service="api", pool="main", reason="{reason}"'
    return f"smsgateway_database_failures_total{{{labels}}}"


def callbacks(outcome: str) -> str:
    return f'smsgateway_callbacks_total{{outcome="{outcome}"}}'


SERVICES = ("api", "worker-sends", "worker-providers", "worker-callbacks", "worker-reconciler")
TEMPORAL = 'up{job="temporal", instance="temporal:8000"}'
LOOP = (
    'smsgateway_loop_failures_total{service="worker-providers", operation="follow_configuration"}'
)
MEMORY = 'process_resident_memory_bytes{job="gateway", service="worker-sends"}'
UNPARSED = 'smsgateway_unparsed_receipts_total{provider="primary", reason="unknown_state"}'
SEND = 'route="/api/v1/sms/send", method="POST"'

HEALTHY: Series = {
    **{up(service): always(1) for service in SERVICES},
    TEMPORAL: always(1),
    MEMORY: always(150e6),
    binds("up"): always(2),
    binds("down"): always(0),
    pollers("providers"): always(1),
    pollers("chunks"): always(1),
    LOOP: f"0+0x{BEFORE} 1+0x{LOOK - BEFORE}",
    attempts("accepted"): growing(60),
    receipts("delivered"): growing(55),
    receipts("undeliverable"): growing(5),
    opened("queued"): always(20),
    opened("unknown"): always(0),
    moves("transactional", "delivered"): growing(50),
    moves("alert", "delivered"): growing(10),
    requests("/api/v1/sms/send", 202): growing(60),
    requests("/readyz", 200): growing(6),
    callbacks("delivered"): growing(30),
    **histogram("smsgateway_submit_seconds", 'provider="primary"', 0.1),
    **histogram("smsgateway_request_to_wire_seconds", 'mode="alert"', 0.1),
    **histogram("smsgateway_http_seconds", SEND, 0.1),
}


@dataclass(frozen=True)
class Situation:
    """What differs from a healthy day, and what is heard of it."""

    what: str
    differs: Series = field(default_factory=dict)
    without: tuple[str, ...] = ()
    fires: tuple[str, ...] = ()

    def series(self) -> Series:
        whole = {**HEALTHY, **self.differs}
        return {name: whole[name] for name in whole if name not in self.without}


SITUATIONS = [
    Situation("all is well"),
    Situation(
        "one worker does not answer", {up("worker-sends"): always(0)}, fires=("ServiceDown",)
    ),
    Situation("one service has no container", without=(up("api"),), fires=("ServiceDown",)),
    Situation(
        "one of two processes is down",
        {up("worker-sends").replace(":1", ":2"): always(0)},
    ),
    Situation("Temporal does not answer", {TEMPORAL: always(0)}, fires=("TemporalDown",)),
    Situation("Temporal has no container", without=(TEMPORAL,), fires=("TemporalDown",)),
    Situation(
        "nothing is accepted",
        {requests("/readyz", 200): until_it_stops(6), requests("/readyz", 503): growing(6)},
        fires=("NotReady",),
    ),
    Situation(
        "a probe now and then meets a restart of the database",
        {requests("/readyz", 503): growing(1)},
    ),
    Situation(
        "statements are not answered",
        {database_failures("no_response"): growing(10)},
        fires=("DatabaseSlow",),
    ),
    Situation("a deadlock now and then", {database_failures("transaction_lost"): growing(0.5)}),
    Situation("a process grows", {MEMORY: always(450e6)}, fires=("MemoryGrows",)),
    Situation(
        "a carrier is away",
        {
            binds("up"): then(2, 0),
            binds("down"): then(0, 2),
            pollers("providers"): then(1, 0),
            pollers("chunks"): then(1, 0),
        },
        fires=("ProviderWithoutBind", "ProviderBindsMissing"),
    ),
    Situation(
        "a carrier takes fewer sessions than declared",
        {binds("up"): always(1), binds("down"): always(1)},
        fires=("ProviderBindsMissing",),
    ),
    Situation(
        "a carrier refuses the password",
        {binds("up"): always(0), binds("down"): always(0), bind_errors("bind_refused"): always(2)},
        fires=("ProviderWithoutBind", "ProviderBindFails"),
    ),
    Situation(
        "a provider has a bind, and nobody polls for single messages",
        {pollers("providers"): then(1, 0)},
        fires=("ProviderRoleNotServed",),
    ),
    Situation("a loop fails again and again", {LOOP: growing(20)}, fires=("LoopFails",)),
    Situation(
        "nobody serves a provider any more",
        {binds("up"): f"2+0x{LOOK - 12} stale", binds("down"): f"0+0x{LOOK - 12} stale"},
        fires=("ProviderVanished",),
    ),
    Situation("answers get lost", {attempts("unknown"): growing(0.5)}, fires=("OutcomesUnknown",)),
    Situation(
        "a carrier refuses a third", {attempts("refused"): growing(30)}, fires=("ProviderRefuses",)
    ),
    Situation("a carrier refuses a few", {attempts("refused"): growing(5)}),
    Situation(
        "a carrier throttles", {attempts("throttled"): growing(30)}, fires=("ProviderThrottles",)
    ),
    Situation(
        "a carrier throttles for a long time",
        {'smsgateway_rate_ratio{provider="primary"}': then(1, 0.1)},
        fires=("ProviderSlowedDown",),
    ),
    Situation(
        "a carrier answers late",
        histogram("smsgateway_submit_seconds", 'provider="primary"', 8),
        fires=("ProviderSlow",),
    ),
    Situation(
        "receipts stop",
        {
            receipts("delivered"): until_it_stops(55),
            receipts("undeliverable"): until_it_stops(5),
        },
        fires=("ReceiptsStopped",),
    ),
    Situation(
        "a provider never sends receipts",
        without=(receipts("delivered"), receipts("undeliverable")),
    ),
    Situation(
        "receipts meet no message",
        {receipts("delivered", matched=False): growing(90)},
        fires=("ReceiptsUnmatched",),
    ),
    Situation(
        "a carrier's receipts cannot be parsed",
        {UNPARSED: growing(2)},
        fires=("ReceiptsUnparsed",),
    ),
    Situation(
        "a single receipt cannot be parsed",
        {UNPARSED: f"_x{LOOK - 10} 1+0x10"},
        fires=("ReceiptsUnparsed",),
    ),
    Situation("a receipt could not be parsed yesterday", {UNPARSED: always(1)}),
    Situation(
        "half is not delivered",
        {receipts("undeliverable"): growing(50)},
        fires=("DeliveryRateLow",),
    ),
    Situation(
        "messages had lost their runners",
        {'smsgateway_reconciled_total{reason="runner_gone"}': growing(2)},
        fires=("RunnersLost",),
    ),
    Situation(
        "the reconciler does not count",
        without=(opened("queued"), opened("unknown")),
        fires=("ReconcilerSilent",),
    ),
    Situation(
        "a step of the reconciler fails each time",
        {'smsgateway_reconciler_steps_total{step="retention",outcome="failed"}': growing(2)},
        fires=("ReconcilerStepFails",),
    ),
    Situation(
        "a step of the reconciler fails now and then",
        {
            'smsgateway_reconciler_steps_total{step="retention",outcome="failed"}': growing(2),
            'smsgateway_reconciler_steps_total{step="retention",outcome="done"}': growing(2),
        },
    ),
    Situation("messages pile up", {opened("queued"): growing(100)}, fires=("BacklogGrows",)),
    Situation("a pile is worked off", {opened("queued"): f"20000-100x{LOOK}"}),
    Situation("unknowns pile up", {opened("unknown"): always(80)}, fires=("UnknownPileUp",)),
    Situation(
        "messages find no way",
        {moves("transactional", "dead_letter", "no_route"): growing(0.2)},
        fires=("DeadLetters",),
    ),
    Situation(
        "alerts do not arrive",
        {moves("alert", "expired"): growing(5)},
        fires=("AlertsLost",),
    ),
    Situation(
        "alerts are slow",
        histogram("smsgateway_request_to_wire_seconds", 'mode="alert"', 8),
        fires=("SlowToWire",),
    ),
    Situation(
        "the API has a fault",
        {requests("/api/v1/sms/send", 500): growing(3)},
        fires=("ServerErrors",),
    ),
    Situation(
        "accepting is slow",
        histogram("smsgateway_http_seconds", SEND, 2),
        fires=("AcceptSlow",),
    ),
    Situation(
        "customers' servers are down",
        {callbacks("timeout"): growing(60)},
        fires=("CallbacksFail",),
    ),
    Situation(
        "the secret that signs an account's callbacks is missing",
        {callbacks("secret_unusable"): growing(60)},
        fires=("CallbackSecretUnusable",),
    ),
]


def as_promtool_wants_it(situation: Situation) -> dict[str, object]:
    fired = [
        {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(situation.fires)
    ]  # fmt: skip
    return {
        "name": situation.what,
        "interval": "1m",
        "input_series": [
            {"series": name, "values": values} for name, values in situation.series().items()
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{LOOK}m",
                "exp_samples": fired,
            }
        ],
    }


def test_each_alert_fires_in_its_situation_and_no_other_does(promtool: str, tmp_path: Path):
    file = tmp_path / "alerts.yml"
    tests = [as_promtool_wants_it(situation) for situation in SITUATIONS]
    # Seldom, since promtool evaluates all rules for all situations one after the other.
    whole = {"rule_files": [str(RULES)], "evaluation_interval": "5m", "tests": tests}
    file.write_text(yaml.safe_dump(whole))
    done = subprocess.run(
        [promtool, "test", "rules", file], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_situation():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    named = {name for situation in SITUATIONS for name in situation.fires}
    assert named == {rule["alert"] for group in groups for rule in group["rules"]}


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.what)
def test_a_situation_differs_from_a_healthy_day(situation: Situation):
    assert set(situation.without) <= set(HEALTHY)
    assert bool(situation.fires) <= bool(situation.differs or situation.without)
