"""Logs: one JSON object a line on standard error, with nothing in it that could be personal data.

Our own records are an event (a constant in snake case) and keys from `telemetry.redaction`:

    log = get_logger(__name__)
    log.info("bind_up", provider=name, binds_up=2)

Records of libraries come through `logging` into the same pipeline. Their texts are free, so one
passes only when it is provably a constant of the code that logged it; its arguments do not pass.
Exceptions keep their types, codes and places, and lose their texts and the values of variables.
"""

import asyncio
import errno
import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from pathlib import PurePath
from types import CodeType, FrameType, MappingProxyType, TracebackType
from typing import Any, TextIO, cast

import structlog
import temporalio.activity
import temporalio.workflow
from opentelemetry import trace
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from settings.settings import LogFormat, LogLevel
from telemetry.redaction import ALLOWED, REDACTED, Passed, code, masked, redacted

_EVENT = re.compile(r"[a-z][a-z_]*[0-9]{0,3}(?:[._][a-z][a-z_]*[0-9]{0,3})*", re.ASCII)
_LONGEST_EVENT = 64
_MOST_FRAMES = 25
_MOST_CAUSES = 8

_LEVELS: Mapping[LogLevel, int] = MappingProxyType(
    {
        LogLevel.DEBUG: logging.DEBUG,
        LogLevel.INFO: logging.INFO,
        LogLevel.WARNING: logging.WARNING,
        LogLevel.ERROR: logging.ERROR,
    }
)

# Libraries that talk too much below the given level, or that log what we log ourselves.
_QUIET: Mapping[str, int] = MappingProxyType(
    {
        "uvicorn.access": logging.CRITICAL + 1,  # raw paths and addresses; ours is telemetry.http
        "httpx": logging.WARNING,
        "httpcore": logging.WARNING,
        "asyncio": logging.WARNING,
        "sqlalchemy": logging.WARNING,
        "urllib3": logging.WARNING,
        "opentelemetry": logging.WARNING,
    }
)


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger of ours; `name` is the module's, and is written with each record."""
    return cast("FilteringBoundLogger", structlog.get_logger(logger_name=name))


def is_event(text: str) -> bool:
    """Whether a text may be an event: up to 64 characters in snake case, with hardly a digit."""
    return len(text) <= _LONGEST_EVENT and _EVENT.fullmatch(text) is not None


@contextmanager
def log_context(**values: Any) -> Iterator[None]:
    """Puts ids on every record that is logged within, in this task and those that it starts."""
    with structlog.contextvars.bound_contextvars(**values):
        yield


def configure_logging(
    service: str,
    *,
    level: LogLevel = LogLevel.INFO,
    log_format: LogFormat = LogFormat.JSON,
    out: TextIO | None = None,
) -> None:
    """Sends everything that this process logs through one pipeline to standard error.

    This covers our loggers and those of libraries; `log_what_nobody_caught` covers the rest. It may
    be called again; the last call holds.

    Args:
        service: the process, such as "api" or "worker"; stands in every record.
        level: the least urgent records that are written.
        log_format: JSON for machines, CONSOLE for a person at a terminal.
        out: where to, instead of standard error.
    """
    threshold = _LEVELS[level]
    sink = _Sink(out)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _Record(service),
            _renderer(log_format),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_ForeignRecords(service, log_format, sink)]
    root.setLevel(threshold)
    for name in list(logging.Logger.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, threshold))
    # They would write workflow inputs' ids into the text; we take them from the record's extras.
    temporalio.activity.logger.activity_info_on_message = False
    temporalio.workflow.logger.workflow_info_on_message = False


def log_loop_exceptions(loop: asyncio.AbstractEventLoop) -> None:
    """Logs a loop's uncaught exceptions by our rules; asyncio would print the tasks' contents."""

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        get_logger("asyncio").error(
            "exception_nobody_awaited", exc_info=context.get("exception") or False
        )

    loop.set_exception_handler(handle)


# --- our own records ---------------------------------------------------------------------------


class _Sink:
    """Writes whole lines; looks up standard error at each, because tests and services swap it."""

    def __init__(self, out: TextIO | None) -> None:
        self._out = out
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        out = self._out or sys.stderr
        try:
            with self._lock:
                out.write(line + "\n")
                out.flush()
        except (OSError, ValueError):
            # Nobody reads us any more (a closed pipe, an interpreter at its end): the work goes on.
            return

    debug = info = warning = error = critical = exception = msg


class _Record:
    """Makes the record that is written out of what was logged."""

    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(
        self, _logger: WrappedLogger, method: str, event_dict: EventDict
    ) -> MutableMapping[str, Any]:
        values = dict(event_dict)
        event = str(values.pop("event", ""))
        name = values.pop("logger_name", "")
        exception = _exception_of(values.pop("exc_info", None))
        for key in ("stack_info", "stack"):
            values.pop(key, None)
        record = _head(self._service, "error" if method == "exception" else method, name)
        if is_event(event):
            record["event"] = event
        else:
            # A text that was put together could hold anything; the place shows which call to fix.
            record["event"] = "event_is_no_constant"
            record["place"] = _caller()
        record.update(_trace_ids())
        record.update(redacted(values))
        if exception is not None:
            record["exception"] = described(exception)
        return record


def _head(service: str, level: str, name: str, at: datetime | None = None) -> dict[str, Any]:
    moment = (at or datetime.now(UTC)).isoformat(timespec="milliseconds")
    return {
        "timestamp": moment.replace("+00:00", "Z"),
        "level": level,
        "service": service,
        "logger": name,
    }


def _trace_ids() -> dict[str, str]:
    context = trace.get_current_span().get_span_context()
    return {"trace_id": trace.format_trace_id(context.trace_id)} if context.is_valid else {}


def _caller() -> str:
    """The place of the nearest frame that is neither ours nor structlog's."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - what logging.findCaller does, too
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module != __name__ and module.split(".", maxsplit=1)[0] != "structlog":
            return _place(frame.f_code, frame.f_lineno)
        frame = frame.f_back
    return ""


# --- exceptions --------------------------------------------------------------------------------


def described(exception: BaseException) -> list[dict[str, Any]]:
    """An exception and its causes: type, code and places of each, without texts and variables.

    The text of an exception stays in only if its class says so with `loggable = True`; a class
    that does promises that its texts are made of constants and ids.
    """
    chain: list[dict[str, Any]] = []
    waiting: list[BaseException] = [exception]
    seen: set[int] = set()
    while waiting and len(chain) < _MOST_CAUSES:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        chain.append(_described_alone(current))
        if isinstance(current, BaseExceptionGroup):
            waiting.extend(current.exceptions)
        if current.__cause__ is not None:
            waiting.append(current.__cause__)
        elif current.__context__ is not None and not current.__suppress_context__:
            waiting.append(current.__context__)
    return chain


def _described_alone(exception: BaseException) -> dict[str, Any]:
    kind = type(exception)
    description: dict[str, Any] = {"type": f"{kind.__module__}.{kind.__qualname__}"}
    exception_code = error_code(exception)
    if exception_code:
        description["code"] = exception_code
    if getattr(kind, "loggable", False) is True:
        description["text"] = masked(str(exception))
    description["places"] = _places(exception.__traceback__)
    return description


def error_code(exception: BaseException) -> str:
    """The code by which an exception of another system says what it is, such as "23505"; or ""."""
    if isinstance(exception, OSError) and exception.errno is not None:
        return errno.errorcode.get(exception.errno, str(exception.errno))
    # psycopg: sqlstate; Temporal: status (RPCError), type (ApplicationError); ours: status, code.
    for attribute in ("sqlstate", "status", "code", "type"):
        found = getattr(exception, attribute, None)
        if isinstance(found, Enum):
            return found.name
        passed = code(found) if isinstance(found, str | int) else REDACTED
        if passed not in {REDACTED, ""}:
            return str(passed)
    return ""


def _places(start: TracebackType | None) -> list[str]:
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(start)]
    return [_place(code_object, line) for code_object, line in frames[-_MOST_FRAMES:]]


def _place(code_object: CodeType, line: int) -> str:
    """The last two parts of the path, the line, and the function: store/messages.py:51 accept."""
    path = "/".join(PurePath(code_object.co_filename).parts[-2:])
    return f"{path}:{line} {code_object.co_name}"


def _exception_of(exc_info: object) -> BaseException | None:
    match exc_info:
        case BaseException():
            return exc_info
        case (_, BaseException() as exception, _):
            return exception
        case None | False:
            return None
        case _:
            return sys.exc_info()[1]


def log_what_nobody_caught() -> None:
    """Sends uncaught exceptions and warnings to the log; Python would print their texts.

    For whole processes, not for tests: it replaces the interpreter's hooks.
    """
    log = get_logger("python")

    def uncaught(
        kind: type[BaseException], exception: BaseException, _: TracebackType | None
    ) -> None:
        if not issubclass(kind, KeyboardInterrupt | SystemExit):
            log.error("uncaught_exception", exc_info=exception)

    def uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            log.error("uncaught_exception_in_thread", exc_info=args.exc_value)

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        log.error("unraisable_exception", exc_info=args.exc_value or False)

    def warned(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        del message, file, line
        path = "/".join(PurePath(filename).parts[-2:])
        log.warning("python_warning", error_type=category.__name__, place=f"{path}:{lineno}")

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
    sys.unraisablehook = unraisable
    warnings.showwarning = warned


# --- records of libraries ----------------------------------------------------------------------


class _ForeignRecords(logging.Handler):
    """Takes the records of `logging`, and lets through of them what cannot be data."""

    def __init__(self, service: str, log_format: LogFormat, sink: _Sink) -> None:
        super().__init__()
        self._service = service
        self._sink = sink
        self._render = _renderer(log_format)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if record.name.startswith("uvicorn.access"):
                return
            self._sink.msg(str(self._render(None, "", self._written(record))))
        except Exception:  # noqa: BLE001 - a record that cannot be written must not stop the work
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Says that a record was lost; logging's own way would print its text and arguments."""
        del record
        self._sink.msg('{"level": "error", "event": "log_record_lost"}')

    def _written(self, record: logging.LogRecord) -> dict[str, Any]:
        at = datetime.fromtimestamp(record.created, UTC)
        written = _head(self._service, record.levelname.lower(), record.name, at)
        written["event"] = "library_message"
        written["text"] = _text_of(record)
        written["place"] = f"{'/'.join(PurePath(record.pathname).parts[-2:])}:{record.lineno}"
        written.update(_trace_ids())
        written.update(redacted(_context_of(record)))
        exception = _exception_of(record.exc_info)
        if exception is not None:
            written["exception"] = described(exception)
        return written


def _context_of(record: logging.LogRecord) -> dict[str, Any]:
    """Our context, and the ids that Temporal's loggers give beside their texts."""
    values: dict[str, Any] = dict(structlog.contextvars.get_contextvars())
    for extra in ("temporal_workflow", "temporal_activity"):
        details = getattr(record, extra, None)
        if isinstance(details, Mapping):
            values.update({str(k): v for k, v in details.items() if k in ALLOWED})
    return values


def _text_of(record: logging.LogRecord) -> str:
    core = getattr(record, "temporal_log", None)
    if core is not None:
        # Temporal's core has only ids to speak of; its fields stay out all the same.
        return masked(str(getattr(core, "message", "")))
    template = record.msg
    if not isinstance(template, str) or not _is_constant(template, record):
        return REDACTED
    return _PLACEHOLDER.sub(_Arguments(record.args), template)


def _is_constant(text: str, record: logging.LogRecord) -> bool:
    """Whether the text stands literally in the function that logged it, so that it holds no data.

    What was put together (f-strings, `%`, `+`, `format`) is not among the function's constants.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - what logging.findCaller does, too
    while frame is not None:
        if frame.f_code.co_name == record.funcName and frame.f_code.co_filename == record.pathname:
            return text in frame.f_code.co_consts
        frame = frame.f_back
    return False


_PLACEHOLDER = re.compile(r"%(?:\((?P<key>\w+)\))?[-+ #0]*[\d*]*(?:\.[\d*]+)?[a-zA-Z%]")


class _Arguments:
    """Fills a template's placeholders: small whole numbers as they are, everything else as dots."""

    def __init__(self, arguments: object) -> None:
        self._by_key = arguments if isinstance(arguments, Mapping) else {}
        self._in_order = iter(arguments if isinstance(arguments, tuple) else ())

    def __call__(self, found: re.Match[str]) -> str:
        if found[0].endswith("%"):
            return "%"
        value = self._by_key.get(found["key"]) if found["key"] else next(self._in_order, None)
        small = isinstance(value, int) and abs(value) < _SMALL
        return str(int(value)) if small and isinstance(value, int) else "..."


_SMALL = 100_000  # ports and counts; a one-time code of six digits is larger

# --- how it is written --------------------------------------------------------------------------------


def _renderer(log_format: LogFormat) -> Processor:
    if log_format is LogFormat.CONSOLE:
        return _render_console
    return structlog.processors.JSONRenderer()


def _render_console(_: object, __: str, record: MutableMapping[str, Any]) -> str:
    """One line for a person, and the places of an exception below it."""
    values: dict[str, Passed | list[dict[str, Any]]] = dict(record)
    moment, level = str(values.pop("timestamp"))[11:23], str(values.pop("level"))
    service, _name = values.pop("service"), values.pop("logger")
    event, text = values.pop("event"), values.pop("text", None)
    exceptions = cast("list[dict[str, Any]]", values.pop("exception", []))
    pairs = " ".join(f"{key}={value}" for key, value in values.items())
    lines = [f"{moment} {level:<7} {service}: {text or event} {pairs}".rstrip()]
    for exception in exceptions:
        head = " ".join(str(exception[k]) for k in ("type", "code", "text") if k in exception)
        lines.append(f"    {head}")
        lines.extend(f"        {place}" for place in exception["places"])
    return os.linesep.join(lines)
