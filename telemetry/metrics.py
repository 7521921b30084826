"""Metrics for Prometheus: what may be counted, under which labels, and how it is served.

Every label is a member of a closed set, a name from the configuration, or a code; `_label` holds
back whatever is neither, and bounds how many different codes one process may bring up. Which query
answers which question stands in `docs/metrics.md`.
"""

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

from domain.errors import ErrorClass
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
    "Requests refused, by the reason that the answer named",
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
    "From a part's write to the socket to the provider's answer",
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
_window = Gauge(
    "smsgateway_window_in_use",
    "Submits that a provider has not answered yet, in this process",
    ["provider"],
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
_unmatched = Gauge(
    "smsgateway_unmatched_receipts",
    "Receipts of the last days that met no part, after the last sweep",
    registry=REGISTRY,
)
_last_sweep = Gauge(
    "smsgateway_last_sweep_timestamp_seconds",
    "When the last sweep of the reconciler ended, as Unix time",
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
    "From a request's arrival to the end of its answer",
    ["method", "route"],
    buckets=_FAST,
    registry=REGISTRY,
)

# --- what happened -----------------------------------------------------------------------------


def message_moved(
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
    """A part was handed to a provider; `seconds` from the socket to the answer, if there was one."""
    _child(
        _attempts,
        _label("provider", provider),
        _label("outcome", outcome),
        _label("error_class", error_class),
        _code_label(code),
    ).inc()
    if seconds is not None:
        _child(_submit, _label("provider", provider)).observe(seconds)


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


def binds_counted(provider: str, by_state: Mapping[str, int]) -> None:
    """How many sessions with a provider are in which state, such as {"up": 2, "down": 0}."""
    for state, count in by_state.items():
        _binds.labels(_label("provider", provider), _label("state", state)).set(count)


def shares_measured(provider: str, claimed: int) -> None:
    """How many messages of batches are claimed for a provider and not recorded, in this process."""
    _claimed.labels(_label("provider", provider)).set(claimed)


def window_watched(provider: str, in_use: Callable[[], int]) -> None:
    """`in_use` tells, whenever it is asked, how many submits a provider has not answered here."""
    _window.labels(_label("provider", provider)).set_function(in_use)


def callbacks_tried(*, outcome: str, events: int, seconds: float) -> None:
    """A request with callbacks ended; `outcome` such as "delivered", "refused", "unreachable"."""
    label = _label("outcome", outcome)
    _callbacks.labels(label).inc(events)
    _callback_requests.labels(label).inc()
    _callback_seconds.observe(seconds)


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


def upkeep_done(*, overdue: int, unmatched_receipts: int) -> None:
    """A sweep of the reconciler has ended."""
    _overdue.set(overdue)
    _unmatched.set(unmatched_receipts)
    _last_sweep.set_to_current_time()


def provider_gone(provider: str) -> None:
    """Forgets the gauges of a provider that was removed, which would else keep their last value."""
    name = _label("provider", provider)
    _window.remove_by_labels({"provider": name})
    _claimed.remove_by_labels({"provider": name})
    _binds.remove_by_labels({"provider": name})


_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


def request_answered(*, method: str, route: str, status: int, seconds: float) -> None:
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
