"""Prometheus, its alerts and Grafana's dashboard: every name that they ask for is one that we count.

promtool, of Debian's package `prometheus`, checks what only it can know.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.app import create_app
from domain.binds import ProviderRole
from domain.callbacks.retries import Trouble
from domain.error_classes import ErrorClass
from domain.modes import Mode
from domain.outcomes import OutcomeKind
from domain.receipts import ReceiptState
from domain.states import MessageStatus
from providers.base import UnparsedReason
from services.assembly import assemble
from settings.settings import load_settings
from telemetry.metrics import REGISTRY
from tests.deploy.compose import (
    CHECKOUT,
    LONG_RUNNING,
    OURS,
    SERVICES,
    image_environment,
    mounts,
    published,
)
from tests.deploy.promql import ParsedExpression, read

DEPLOY = CHECKOUT / "deploy"
PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
ALERTS = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in DEPLOY.glob("grafana/**/*.json")}
PAGES = sorted(str(page.relative_to(CHECKOUT)) for page in CHECKOUT.glob("docs/**/*.md"))

# What Prometheus adds to every sample, and its own metrics that are asked for.
OF_PROMETHEUS = {"job", "instance", "service"}
ITS_OWN = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
SUFFIXES = {"counter": ("_total", "_created"), "histogram": ("_bucket", "_sum", "_count")}

STATUS = {*MessageStatus, "none"}
VALUES: dict[str, dict[str, set[str]]] = {
    "smsgateway_unparsed_receipts_total": {"reason": set(UnparsedReason)},
    "smsgateway_message_transitions_total": {"from": STATUS, "to": STATUS, "mode": set(Mode)},
    "smsgateway_accepted_total": {
        "mode": set(Mode),
        "environment": {"live", "test"},
        "runner": {"single", "group", "batch"},
    },
    "smsgateway_attempts_total": {
        "outcome": set(OutcomeKind),
        "error_class": {*ErrorClass, "none"},
    },
    "smsgateway_request_to_wire_seconds_bucket": {"mode": set(Mode)},
    "smsgateway_receipts_total": {"state": set(ReceiptState), "matched": {"true", "false"}},
    "smsgateway_binds": {"state": {"up", "down"}},
    "smsgateway_provider_pollers": {"role": set(ProviderRole)},
    "smsgateway_callbacks_total": {"outcome": {*Trouble, "delivered"}},
    "smsgateway_reconciled_total": {"reason": {"runner_gone", "reminded"}},
    "smsgateway_open_messages": {"status": set(MessageStatus)},
    "up": {"service": set(OURS), "job": {job["job_name"] for job in PROMETHEUS["scrape_configs"]}},
}


def panels() -> Iterator[dict[str, Any]]:
    for dashboard in DASHBOARDS.values():
        yield from dashboard["panels"]


def expressions() -> Iterator[tuple[str, str]]:
    """Each expression, with where it stands."""
    for rule in ALERTS:
        yield f"alert {rule['alert']}", rule["expr"]
    for panel in panels():
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]
    for name, dashboard in DASHBOARDS.items():
        for variable in dashboard["templating"]["list"]:
            query = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert query, variable
            yield f"variable of {name}", f"count by ({query[2]}) ({query[1]})"
        for annotation in dashboard["annotations"]["list"]:
            yield f"annotation of {name}", annotation["expr"]
    for page in PAGES:
        for block in re.findall(r"```promql\n(.*?)```", (CHECKOUT / page).read_text(), re.DOTALL):
            yield page, block


ALL = list(expressions())
EVERY_EXPRESSION = pytest.mark.parametrize(
    ("where", "expression"), ALL, ids=[where for where, _ in ALL]
)


def samples() -> dict[str, set[str]]:
    """Every name under which a sample may be asked for, with the labels that it has."""
    found: dict[str, set[str]] = {}
    for collector in REGISTRY._collector_to_names:
        labels = set(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            names = [family.name + end for end in SUFFIXES.get(family.type, ("",))]
            names += [sample.name for sample in family.samples]
            own = {label for sample in family.samples for label in sample.labels}
            for name in names:
                found[name] = labels | own - {"le"}
                if name.endswith("_bucket"):
                    found[name] |= {"le"}
    return found


SAMPLES = samples() | ITS_OWN


def asked(expression: str) -> ParsedExpression:
    return read(expression.replace("$__rate_interval", "5m"))


# --- names ---------------------------------------------------------------------------------------


def test_the_expressions_are_read_as_prometheus_reads_them():
    found = read(
        'histogram_quantile(0.9, sum by (le, mode) (rate(a_bucket{x="1", y!~"b{c}|,d"}[5m]))) > 5e3'
        " and on (mode) c offset 15m unless deriv(max without (x) (d:e)[15m:1m]) == bool 1"
    )
    assert found.metrics == [("a_bucket", [("x", "=", "1"), ("y", "!~", "b{c}|,d")]), ("c", []),
                             ("d:e", [])]  # fmt: skip
    assert found.labels == {"le", "mode", "x"}


def test_all_places_are_looked_at():
    places = {where for where, _ in ALL}
    assert {"alert ServiceDown", "panel send_rate", "docs/metrics.md"} <= places
    assert {"variable of gateway.json", "annotation of gateway.json"} <= places


@EVERY_EXPRESSION
def test_every_metric_and_label_exists(where: str, expression: str):
    found = asked(expression)
    assert found.metrics, where
    known = set()
    for metric, matchers in found.metrics:
        assert metric in SAMPLES, f"{where}: nobody counts {metric}"
        labels = SAMPLES[metric] | OF_PROMETHEUS
        known |= labels
        for label, _, _ in matchers:
            assert label in labels, f"{where}: {metric} has no label {label}"
    assert found.labels <= known, f"{where} groups by {found.labels - known}"


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_metrics_that_exist(page: str):
    families = {name.removesuffix("_bucket") for name in SAMPLES}
    named = set(re.findall(r"smsgateway_\w+", (CHECKOUT / page).read_text()))
    assert named <= SAMPLES.keys() | families


@EVERY_EXPRESSION
def test_every_value_that_a_label_is_compared_with_can_occur(where: str, expression: str):
    for metric, matchers in asked(expression).metrics:
        for label, operator, value in matchers:
            possible = VALUES.get(metric, {}).get(label)
            if possible is None or value.startswith("$"):
                continue
            values = value.split("|") if "~" in operator else [value]
            assert set(values) <= possible, f"{where}: {label}={value}"


def test_every_route_that_is_named_is_one_of_the_api():
    settings = load_settings(
        database_url="postgresql://nobody@127.0.0.1/", recipient_hash_key="k" * 32
    )
    routes = create_app(assemble(settings)).openapi()["paths"]
    for where, expression in ALL:
        for _, matchers in asked(expression).metrics:
            for label, _, value in matchers:
                if label == "route":
                    assert set(value.split("|")) <= {*routes, "/metrics"}, where


# --- Prometheus ----------------------------------------------------------------------------------


def test_every_process_of_ours_is_asked_at_its_ports():
    ports = {
        "gateway": int(image_environment()["SMSGATEWAY_METRICS_PORT"]),
        "temporal-sdk": int(image_environment()["SMSGATEWAY_TEMPORAL_METRICS_PORT"]),
    }
    processes = set(OURS) & set(LONG_RUNNING) - {"simulator"}
    jobs = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}
    for name, port in ports.items():
        [discovery] = jobs[name]["dns_sd_configs"]
        assert set(discovery["names"]) == processes, name
        assert discovery["port"] == port, name
        [label] = jobs[name]["relabel_configs"]
        assert label == {"source_labels": ["__meta_dns_name"], "target_label": "service"}


def test_temporal_is_asked_where_it_answers():
    jobs = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}
    [[target]] = [it["targets"] for it in jobs["temporal"]["static_configs"]]
    port = SERVICES["temporal"]["environment"]["PROMETHEUS_ENDPOINT"].rpartition(":")[2]
    assert target == f"temporal:{port}"
    assert set(jobs) == {"gateway", "temporal-sdk", "temporal", "prometheus"}


def test_prometheus_finds_its_files():
    [folder] = [src for target, src in mounts(SERVICES["prometheus"]).items() if "etc" in target]
    [alertmanagers] = PROMETHEUS["alerting"]["alertmanagers"]
    for name in (*PROMETHEUS["rule_files"], *alertmanagers["file_sd_configs"][0]["files"]):
        assert (CHECKOUT / folder / name).is_file(), name


def test_every_alert_says_what_it_means_what_to_do_and_how_soon():
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "action"}, rule["alert"]
        assert all(text.endswith(".") for text in rule["annotations"].values()), rule["alert"]
    names = [rule["alert"] for rule in ALERTS]
    assert len(names) == len(set(names))


def test_an_alert_names_only_labels_that_its_expression_leaves():
    for rule in ALERTS:
        left = asked(rule["expr"]).labels
        named = re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values()))
        assert set(named) <= left, rule["alert"]


def test_the_page_lists_every_alert():
    page = (CHECKOUT / "docs/deployment.md").read_text()
    for rule in ALERTS:
        assert f"`{rule['alert']}`" in page, rule["alert"]


def test_the_services_that_alerts_and_pages_name_exist():
    words = "\n".join(text for rule in ALERTS for text in rule["annotations"].values())
    words += (CHECKOUT / "docs/deployment.md").read_text()
    named = re.findall(r"docker compose (?:logs|exec|restart|stop|start) ((?:[a-z-]+ ?)+)", words)
    assert named
    for names in named:
        first = names.split()[0]
        assert first in SERVICES or first.startswith("-"), names
    # The example of a worker group is a service that the reader adds.
    for service in re.findall(r"--scale ([a-z-]+)=", words):
        assert service in SERVICES or f"\n    {service}:\n" in words, service


# --- Grafana -------------------------------------------------------------------------------------


def test_grafana_finds_prometheus_and_the_dashboards():
    sources = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )
    [source] = sources["datasources"]
    [port] = published(SERVICES["prometheus"])
    assert source["url"] == f"http://prometheus:{port}"
    [provider] = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/dashboards/gateway.yml").read_text()
    )["providers"]
    place = provider["options"]["path"]
    assert CHECKOUT / mounts(SERVICES["grafana"])[place] == DEPLOY / "grafana/dashboards"
    environment = SERVICES["grafana"]["environment"]
    home = environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).name in DASHBOARDS
    for panel in panels():
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == source["uid"], panel["title"]
            assert {it["datasource"]["uid"] for it in panel["targets"]} == {source["uid"]}


def test_a_dashboard_can_be_read():
    for name, dashboard in DASHBOARDS.items():
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(ids) == len(set(ids)), name
        assert dashboard["uid"], name
        for panel in dashboard["panels"]:
            if panel["type"] == "row":
                continue
            assert panel["description"].endswith("."), panel["title"]
            refs = [target["refId"] for target in panel["targets"]]
            assert len(refs) == len(set(refs)), panel["title"]


def test_panels_do_not_lie_on_each_other():
    for name, dashboard in DASHBOARDS.items():
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            grid = panel["gridPos"]
            assert grid["x"] + grid["w"] <= 24, panel["title"]
            cells = {
                (x, y)
                for x in range(grid["x"], grid["x"] + grid["w"])
                for y in range(grid["y"], grid["y"] + grid["h"])
            }
            assert not cells & taken, f"{name}: {panel['title']}"
            taken |= cells
        rows = sorted({y for _, y in taken})
        assert all(after - before == 1 for before, after in pairwise(rows)), name


# --- what only promtool knows --------------------------------------------------------------------


def run(*command: str | Path) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_its_configuration(promtool: str):
    run(promtool, "check", "config", DEPLOY / "prometheus/prometheus.yml")


def test_prometheus_understands_every_query(promtool: str, tmp_path: Path):
    names = {"$__rate_interval": "5m", "$provider": ".*", "$mode": ".*"}
    rules = []
    for number, (_, expression) in enumerate(ALL):
        for name, value in names.items():
            expression = expression.replace(name, value)  # noqa: PLW2901 - the same one, put in
        assert "$" not in expression, expression
        rules.append({"record": f"query_{number}", "expr": expression})
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    run(promtool, "check", "rules", file)
