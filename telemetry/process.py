"""How every process of the server starts and ends.

The end matters: threads of the Temporal SDK outlive the event loop, and when the interpreter then
takes itself apart, it sometimes aborts (temporalio/sdk-python#300), which looks like a failure after
all work was done. So a process that had a Temporal client ends here, past the interpreter's own end.
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn

import uvloop

from settings.settings import LogFormat, LogLevel, Settings, SettingsMistakes, load_settings
from telemetry.logs import (
    configure_logging,
    get_logger,
    log_loop_exceptions,
    log_what_nobody_caught,
)
from telemetry.metrics import serve_metrics
from telemetry.temporal import use_temporal_runtime
from telemetry.tracing import configure_tracing, shut_down_tracing

Main = Callable[[asyncio.Event], Awaitable[int | None]]
"""A process's work: runs until it is done or the event is set, and gives the exit code."""

EXIT_FAILED = 1
EXIT_MISCONFIGURED = 2
EXIT_INTERRUPTED = 130

_ALLOCATIONS_BETWEEN_COLLECTIONS = 20_000

_log = get_logger(__name__)


def run(
    main: Main,
    *,
    service: str,
    settings: Settings | None = None,
    log_format: LogFormat = LogFormat.JSON,
) -> NoReturn:
    """Runs a process from its start to its end, and ends it with the exit code of `main`.

    Logs, metrics, traces and the Temporal runtime are set up first. SIGINT and SIGTERM set the
    event that `main` was given, so that it can finish what it began; a second signal cancels it.

    Args:
        main: the process's work.
        service: its name in logs, metrics and traces, such as "api".
        settings: without them there is only a log, and no Temporal.
        log_format: of that log, where there are no settings.
    """
    level = settings.log_level if settings else LogLevel.INFO
    configure_logging(
        service, level=level, log_format=settings.log_format if settings else log_format
    )
    log_what_nobody_caught()
    try:
        if settings is not None:
            _start_telemetry(service, settings)
        _spare_the_collector()
        # Never closed: that would wait for tasks which their owner has given up waiting for.
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        code = runner.run(_until_done(main))
    except asyncio.CancelledError:
        code = EXIT_INTERRUPTED
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BaseException:  # noqa: BLE001 - the process's last line: whatever it was, it is logged
        _log.exception("process_failed")
        code = EXIT_FAILED
    _log.info("process_ended", exit_code=code)
    exit_cleanly(code)


def exit_cleanly(code: int = 0) -> NoReturn:
    """Ends this process at once, with what was traced, logged and printed written out.

    Nothing else runs after it: no `atexit`, no destructors, no threads.
    """
    # Spans that nobody takes make no failure of what succeeded.
    with contextlib.suppress(Exception):
        shut_down_tracing()
    for stream in (sys.stdout, sys.stderr):
        # A closed pipe behind us is no reason to fail.
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def settings_or_exit() -> Settings:
    """The settings from the environment; if they are wrong, says how, and ends the process with 2."""
    try:
        return load_settings()
    except SettingsMistakes as mistakes:
        print(  # noqa: T201 - to the person who started it, before there is a log
            "This process cannot start; its environment needs changes:",
            *(f"  - {sentence}" for sentence in mistakes.sentences),
            sep="\n",
            file=sys.stderr,
        )
        exit_cleanly(EXIT_MISCONFIGURED)


def _start_telemetry(service: str, settings: Settings) -> None:
    configure_tracing(service, settings.otlp_endpoint)
    use_temporal_runtime(settings.metrics_host, settings.temporal_metrics_port)
    if settings.metrics_port:
        serve_metrics(settings.metrics_host, settings.metrics_port)
    _log.info("process_started", pid=os.getpid(), port=settings.metrics_port or None)


def _spare_the_collector() -> None:
    """Have the garbage collector look less often, and never again at what lives for ever.

    What is imported by now is most of what a process holds, and each full collection would walk
    all of it. With Python's own thresholds collecting takes a tenth of a busy worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_BETWEEN_COLLECTIONS, 20, 20)


async def _until_done(main: Main) -> int:
    loop = asyncio.get_running_loop()
    log_loop_exceptions(loop)
    stop = asyncio.Event()
    work = asyncio.ensure_future(main(stop))

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            _log.warning("process_interrupted", signal=number.name)
            work.cancel()
        else:
            _log.info("process_stopping", signal=number.name)
            stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    return await work or 0
