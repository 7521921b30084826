"""Metrics for Prometheus: what may be counted, under which labels, and how it is served.

Every label is a member of a closed set, a name from the configuration, or a code; `_label` holds
back whatever is neither, and bounds how many different codes one process may bring up. Which query
answers which question stands in `docs/metrics.md`.
"""

import contextlib
import threading
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    make_asgi_app,
    start_http_server,
)

from domain.binds import BindFailure
from domain.error_classes import ErrorClass
from domain.modes import Mode
from domain.outcomes import OutcomeKind
from domain.receipts import ReceiptState
from domain.states import MessageStatus
from telemetry.redaction import ALLOWED, REDACTED

REGISTRY = CollectorRegistry()
"""All metrics of this process."""

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

NONE = "none"
OTHER = "other"

_MOST_CODES = 300
_codes: set[str] = set()
_codes_lock = threading.Lock()


@lru_cache(maxsize=4096)  # closed sets and names: nearly always the same ones, in every send
def _label(key: str, value: Hashable) -> str:
    """The value of a label, in the shape that `telemetry.redaction` gives its key."""
    if value is None or value == "":
        return NONE
    passed = ALLOWED[key](value)
    return OTHER if passed == REDACTED else str(passed)


_Metric = TypeVar("_Metric", Counter, Histogram)


@lru_cache(maxsize=4096)
def _child(metric: _Metric, *labels: str) -> _Metric:
    """A metric with its labels; finding it anew costs more than counting."""
    return metric.labels(*labels)


def _code_label(value: Hashable) -> str:
    """A carrier's code; after 300 different ones the rest are "other", since carriers choose."""
    label = _label("code", value)
    if label in _codes:
        return label
    with _codes_lock:
        if len(_codes) >= _MOST_CODES and label not in {NONE, OTHER}:
            return OTHER
        _codes.add(label)
    return label


# From a submit on the same machine to the minutes of a receipt.
_FAST = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10, 30, 60)
_SLOW = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 12 * 3600, 24 * 3600)

_transitions = Counter(
    "smsgateway_message_transitions",
    "Moves of messages from one status to another",
    ["from", "to", "mode", "provider", "reason"],
    registry=REGISTRY,
)
_accepted = Counter(
    "smsgateway_accepted",
    "Messages accepted, that is, answered with 202, by whom they share their runner with",
    ["mode", "environment", "country", "runner"],
    registry=REGISTRY,
)
_group = Histogram(
    "smsgateway_group_messages",
    "Single messages that were accepted in one commit, where they came too fast for one each",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200),
    registry=REGISTRY,
)
_refused = Counter(
    "smsgateway_refused_requests",
    "Requests refused, by the reason that the response named",
    ["reason"],
    registry=REGISTRY,
)
_attempts = Counter(
    "smsgateway_attempts",
    "Parts that were handed to a provider, by what came of them",
    ["provider", "outcome", "error_class", "code"],
    registry=REGISTRY,
)
_submit = Histogram(
    "smsgateway_submit_seconds",
    "From a part's write to the socket to the provider's response",
    ["provider"],
    buckets=_FAST,
    registry=REGISTRY,
)
_request_to_wire = Histogram(
    "smsgateway_request_to_wire_seconds",
    "From a request's arrival to the first write of its message to a socket",
    ["mode"],
    buckets=_FAST,
    registry=REGISTRY,
)
_receipts = Counter(
    "smsgateway_receipts",
    "Receipts that came, and whether their part was found",
    ["provider", "state", "matched"],
    registry=REGISTRY,
)
_unparsed_receipts = Counter(
    "smsgateway_unparsed_receipts",
    "Receipts that could not be parsed and were stored as they came",
    ["provider", "reason"],
    registry=REGISTRY,
)
_repeats = Counter(
    "smsgateway_request_repeats_total",
    "Requests to HTTP providers that were sent again after a lost response, which sends no second SMS",
    ["provider"],
    registry=REGISTRY,
)
_receipt_polls = Counter(
    "smsgateway_receipt_polls_total",
    "Requests for missing receipts, by their outcome",
    ["provider", "outcome"],
    registry=REGISTRY,
)
_webhooks = Counter(
    "smsgateway_provider_webhooks_total",
    "Requests of providers to the gateway, by what became of them",
    ["provider", "outcome"],
    registry=REGISTRY,
)
_irregular_pdus = Counter(
    "smsgateway_irregular_pdus",
    "PDUs of a provider that are not as SMPP has them, and whether they were read nonetheless",
    ["provider", "command", "outcome"],
    registry=REGISTRY,
)
_receipt_delay = Histogram(
    "smsgateway_receipt_delay_seconds",
    "From a part's acceptance by the provider to its final receipt",
    ["provider"],
    buckets=_SLOW,
    registry=REGISTRY,
)
_binds = Gauge(
    "smsgateway_binds",
    "Sessions of this process with a provider",
    ["provider", "state"],
    registry=REGISTRY,
)
_bind_errors = Gauge(
    "smsgateway_bind_errors",
    "Sessions of this process that should be bound and are not, by the reason",
    ["provider", "reason"],
    registry=REGISTRY,
)
_window = Gauge(
    "smsgateway_window_in_use",
    "Requests (submit, cancel, query) that a provider has not answered yet, in this process",
    ["provider"],
    registry=REGISTRY,
)
_rate_ratio = Gauge(
    "smsgateway_rate_ratio",
    "Rate of a provider just now by its usual one, in this process; below 1 while it throttles",
    ["provider"],
    registry=REGISTRY,
)
_rate = Gauge(
    "smsgateway_rate",
    "Messages a second that all processes together may submit to a provider, as configured",
    ["provider"],
    registry=REGISTRY,
)
_rate_share = Gauge(
    "smsgateway_rate_share",
    "Messages a second that this process may submit to a provider, by its role",
    ["provider", "role"],
    registry=REGISTRY,
)
_rate_demand = Gauge(
    "smsgateway_rate_demand",
    "Messages a second that this process wanted to submit to a provider, by its role",
    ["provider", "role"],
    registry=REGISTRY,
)
_claimed = Gauge(
    "smsgateway_claimed_messages",
    "Messages of batches that were claimed for a provider and whose outcome is not recorded yet",
    ["provider"],
    registry=REGISTRY,
)
_callbacks = Counter(
    "smsgateway_callbacks",
    "Callbacks sent, by what came of them; a request carries one or many",
    ["outcome"],
    registry=REGISTRY,
)
_callback_requests = Counter(
    "smsgateway_callback_requests",
    "Callback requests, by what came of them",
    ["outcome"],
    registry=REGISTRY,
)
_callback_seconds = Histogram(
    "smsgateway_callback_seconds",
    "Duration of a callback request",
    buckets=_FAST,
    registry=REGISTRY,
)
_reconciled = Counter(
    "smsgateway_reconciled",
    "Messages taken up again because something that should have happened had not",
    ["reason"],
    registry=REGISTRY,
)
_deleted = Counter(
    "smsgateway_deleted_messages",
    "Messages deleted because they are older than they are kept",
    registry=REGISTRY,
)
_open = Gauge(
    "smsgateway_open_messages",
    "Messages that are not final; every process that counts them counts all",
    ["status"],
    registry=REGISTRY,
)
_overdue = Gauge(
    "smsgateway_overdue_messages",
    "Messages and bulks past their check_by when the last sweep began, at most one batch of each",
    registry=REGISTRY,
)
_steps = Counter(
    "smsgateway_reconciler_steps",
    "Steps of the reconciler's sweeps, by what came of them",
    ["step", "outcome"],
    registry=REGISTRY,
)
_step_seconds = Gauge(
    "smsgateway_reconciler_step_seconds",
    "Duration of each step of the last sweep",
    ["step"],
    registry=REGISTRY,
)
_unmatched = Gauge(
    "smsgateway_unmatched_receipts",
    "Receipts that match no part yet and are matched again, after the last sweep",
    ["provider"],
    registry=REGISTRY,
)
_never_matched = Counter(
    "smsgateway_receipts_never_matched",
    "Receipts that matched no part for three days, and are not matched again",
    ["provider"],
    registry=REGISTRY,
)
_last_sweep = Gauge(
    "smsgateway_last_sweep_timestamp_seconds",
    "When the last sweep of the reconciler ended, as Unix time",
    registry=REGISTRY,
)
_pollers = Gauge(
    "smsgateway_provider_pollers",
    "Whether this process polls a role's task queues for a provider: 1 or 0",
    ["provider", "role"],
    registry=REGISTRY,
)
_loop_failures = Counter(
    "smsgateway_loop_failures",
    "Failures of loops that must never end; each was logged, and its loop started again",
    ["operation"],
    registry=REGISTRY,
)
_http_requests = Counter(
    "smsgateway_http_requests",
    "Requests answered by the API",
    ["method", "route", "status"],
    registry=REGISTRY,
)
_http_seconds = Histogram(
    "smsgateway_http_seconds",
    "From a request's arrival to the end of its response",
    ["method", "route"],
    buckets=_FAST,
    registry=REGISTRY,
)

_database_failures = Counter(
    "smsgateway_database_failures",
    "Uses of the database that failed and may succeed later, by pool and reason",
    ["pool", "reason"],
    registry=REGISTRY,
)
_database_connections = Gauge(
    "smsgateway_database_connections_in_use",
    "Connections of a pool that are in use in this process",
    ["pool"],
    registry=REGISTRY,
)
_database_limit = Gauge(
    "smsgateway_database_connections_limit",
    "Connections that a pool of this process may have",
    ["pool"],
    registry=REGISTRY,
)

# --- what happened -----------------------------------------------------------------------------


def message_transitioned(
    was: MessageStatus | None,
    now: MessageStatus,
    *,
    mode: Mode,
    provider: str | None = None,
    reason: str | None = None,
    messages: int = 1,
) -> None:
    """Messages changed their status; `was` is None when they were accepted just now."""
    _transitions.labels(
        _label("was", was),
        _label("now", now),
        _label("mode", mode),
        _label("provider", provider),
        _label("reason", reason),
    ).inc(messages)


def message_accepted(
    *, mode: Mode, environment: str, country: str | None, runner: str, messages: int = 1
) -> None:
    """Messages were committed; `country` is the region of their numbers.

    `runner` is "single" for a workflow each, "group" or "batch" for one that they share.
    """
    _accepted.labels(
        _label("mode", mode),
        _label("environment", environment),
        _label("country", country),
        _label("runner", runner),
    ).inc(messages)


def group_committed(messages: int) -> None:
    """So many single messages were accepted in one commit."""
    _group.observe(messages)


def request_refused(reason: str) -> None:
    """A request was refused; `reason` is the last part of its problem's type."""
    _refused.labels(_label("reason", reason)).inc()


def part_submitted(
    *,
    provider: str,
    outcome: OutcomeKind,
    error_class: ErrorClass | None = None,
    code: str | int | None = None,
    seconds: float | None = None,
) -> None:
    """A part was handed to a provider; `seconds` from the socket to the response, if there was one."""
    _child(
        _attempts,
        _label("provider", provider),
        _label("outcome", outcome),
        _label("error_class", error_class),
        _code_label(code),
    ).inc()
    if seconds is not None:
        _child(_submit, _label("provider", provider)).observe(seconds)


def request_repeated(*, provider: str) -> None:
    """A request to an HTTP provider was sent again, since no response came to the first one."""
    _child(_repeats, _label("provider", provider)).inc()


def receipt_polled(*, provider: str, outcome: str) -> None:
    """A missing receipt was requested from a provider: final, pending, unanswered, failed or not_stored."""
    _child(_receipt_polls, _label("provider", provider), _label("outcome", outcome)).inc()


def webhook_came(*, provider: str, outcome: str) -> None:
    """A provider has reported over HTTP: stored, ignored, unparsed, not_stored or forged."""
    _child(_webhooks, _label("provider", provider), _label("outcome", outcome)).inc()


def message_reached_wire(*, mode: Mode, seconds: float) -> None:
    """A message's first part was written to a socket, `seconds` after its request arrived."""
    _child(_request_to_wire, _label("mode", mode)).observe(max(seconds, 0.0))


def receipts_came(
    *,
    provider: str,
    state: ReceiptState,
    matched: bool,
    count: int = 1,
    seconds: float | None = None,
) -> None:
    """Receipts were stored, `seconds` since the provider accepted their parts, if they are final."""
    name = _label("provider", provider)
    _child(_receipts, name, _label("state", state), str(matched).lower()).inc(count)
    if seconds is not None and state.is_final:
        delay = _child(_receipt_delay, name)
        for _ in range(count):
            delay.observe(max(seconds, 0.0))


def receipt_not_parsed(*, provider: str, reason: str) -> None:
    """A receipt came that cannot be parsed."""
    _unparsed_receipts.labels(_label("provider", provider), _label("reason", reason)).inc()


def pdu_irregular(*, provider: str, command: str, outcome: str) -> None:
    """A PDU came with octets too many or too few; `outcome` is "read" or "malformed"."""
    _irregular_pdus.labels(
        _label("provider", provider), _label("command", command), _label("outcome", outcome)
    ).inc()


def binds_counted(provider: str, by_state: Mapping[str, int]) -> None:
    """How many sessions with a provider are in which state, such as {"up": 2, "down": 0}."""
    for state, count in by_state.items():
        _binds.labels(_label("provider", provider), _label("state", state)).set(count)


def bind_errors_counted(provider: str, by_reason: Mapping[BindFailure, int]) -> None:
    """How many sessions with a provider are not bound for which reason."""
    for reason in BindFailure:
        labels = _label("provider", provider), _label("reason", reason)
        if count := by_reason.get(reason, 0):
            _bind_errors.labels(*labels).set(count)
        else:
            with contextlib.suppress(KeyError):
                _bind_errors.remove(*labels)


def pollers_counted(provider: str, by_role: Mapping[str, bool]) -> None:
    """For which roles this process polls for a provider, such as {"providers": True}."""
    for role, polls in by_role.items():
        _pollers.labels(_label("provider", provider), _label("role", role)).set(polls)


def loop_failed(operation: str) -> None:
    """A loop that must never end did, and starts again."""
    _loop_failures.labels(_label("operation", operation)).inc()


def chunks_measured(provider: str, claimed: int) -> None:
    """How many messages of batches are claimed for a provider and not recorded, in this process."""
    _claimed.labels(_label("provider", provider)).set(claimed)


def window_watched(provider: str, in_use: Callable[[], int]) -> None:
    """`in_use` returns, at each scrape, how many requests of this process a provider has not answered."""
    _window.labels(_label("provider", provider)).set_function(in_use)


def rate_watched(provider: str, ratio: Callable[[], float]) -> None:
    """`ratio` gives the present rate of a provider by its usual one, 1 unless it throttles."""
    _rate_ratio.labels(_label("provider", provider)).set_function(ratio)


def rate_divided(
    provider: str, *, role: str, rate: float | None, share: float | None, demand: float
) -> None:
    """A heartbeat divided the rate of a provider; `rate` and `share` are None where nothing limits it.

    `role` is that of this process, or "all".
    """
    labels = _label("provider", provider), _label("role", role)
    if rate is not None and share is not None:
        _rate.labels(labels[0]).set(rate)
        _rate_share.labels(*labels).set(share)
    _rate_demand.labels(*labels).set(demand)


def callbacks_tried(*, outcome: str, events: int, seconds: float) -> None:
    """A request with callbacks ended; `outcome` such as "delivered", "refused", "unreachable"."""
    label = _label("outcome", outcome)
    _callbacks.labels(label).inc(events)
    _callback_requests.labels(label).inc()
    _callback_seconds.observe(seconds)


def callbacks_not_tried(outcome: str, events: int) -> None:
    """Events were not sent: their secret cannot be used, or this worker does not know their kind."""
    _callbacks.labels(_label("outcome", outcome)).inc(events)


def message_reconciled(reason: str, count: int = 1) -> None:
    """Rows past their `check_by` were taken up again."""
    _reconciled.labels(_label("reason", reason)).inc(count)


def messages_deleted(count: int) -> None:
    """Messages older than they are kept are gone, with all that was known of them."""
    _deleted.inc(count)


def open_messages_counted(by_status: Mapping[MessageStatus, int]) -> None:
    """How many messages are in which status that is not final."""
    for status, count in by_status.items():
        _open.labels(_label("status", status)).set(count)


def unmatched_receipts_counted(by_provider: Mapping[str, int]) -> None:
    """How many receipts match no part yet, of all providers that have any."""
    _unmatched.clear()
    for provider, count in by_provider.items():
        _unmatched.labels(_label("provider", provider)).set(count)


def receipts_never_matched(provider: str, count: int) -> None:
    """Receipts matched no part, and are not matched again."""
    _never_matched.labels(_label("provider", provider)).inc(count)


def sweep_done(*, overdue: int) -> None:
    """A sweep of the reconciler has ended."""
    _overdue.set(overdue)
    _last_sweep.set_to_current_time()


def reconciler_step(step: str, *, failed: bool, seconds: float) -> None:
    """A step of a sweep has ended, or has failed."""
    name = _label("step", step)
    _steps.labels(name, _label("outcome", "failed" if failed else "done")).inc()
    _step_seconds.labels(name).set(seconds)


def database_failed(pool: str, reason: str) -> None:
    """A use of the database failed, and may succeed later.

    `reason` is "no_response", "connection_lost", "statement_timeout", "transaction_lost" or
    "pool_timeout" (no connection of the pool was free in time).
    """
    _database_failures.labels(_label("pool", pool), _label("reason", reason)).inc()


def database_pool_watched(pool: str, *, size: int, in_use: Callable[[], int]) -> None:
    """`in_use` returns, whenever metrics are read, how many of `size` connections are in use."""
    _database_limit.labels(_label("pool", pool)).set(size)
    _database_connections.labels(_label("pool", pool)).set_function(in_use)


def provider_gone(provider: str) -> None:
    """Forgets the gauges of a provider that was removed, which would else keep their last value."""
    name = _label("provider", provider)
    _window.remove_by_labels({"provider": name})
    _rate_ratio.remove_by_labels({"provider": name})
    for gauge in (_rate, _rate_share, _rate_demand):
        gauge.remove_by_labels({"provider": name})
    _claimed.remove_by_labels({"provider": name})
    _binds.remove_by_labels({"provider": name})
    _bind_errors.remove_by_labels({"provider": name})
    _pollers.remove_by_labels({"provider": name})


_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


def request_completed(*, method: str, route: str, status: int, seconds: float) -> None:
    """The API answered; `route` is the template, never the path."""
    known = method if method in _METHODS else OTHER
    template = _label("route", route)
    _http_requests.labels(known, template, str(status)).inc()
    _http_seconds.labels(known, template).observe(seconds)


# --- how it is served --------------------------------------------------------------------------


class MetricsServer:
    """Serves `/metrics` on a thread of its own, until closed."""

    def __init__(self, host: str, port: int) -> None:
        self._server, self._thread = start_http_server(port, addr=host, registry=REGISTRY)

    @property
    def port(self) -> int:
        """The port that it listens on, also when any free one was asked for."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stops listening and ends the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_metrics(host: str, port: int) -> MetricsServer:
    """Serves this process's metrics over HTTP.

    Args:
        host: address to listen on.
        port: 0 for any free one.

    Raises:
        OSError: the address is taken.
    """
    return MetricsServer(host, port)


def metrics_app() -> Any:
    """An ASGI application that answers with this process's metrics."""
    return make_asgi_app(registry=REGISTRY)


def metric_value(name: str, labels: Mapping[str, str] | None = None) -> float:
    """The present value of a sample, such as "smsgateway_accepted_total"; 0 if never touched."""
    return REGISTRY.get_sample_value(name, dict(labels or {})) or 0.0
