"""Loops that must never end: an exception is logged and counted, and the loop starts again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn

import structlog

from telemetry import metrics

_log = structlog.get_logger(logger_name=__name__)  # providers use it, and know no Temporal

RESTART_AFTER: Final = 2.0
"""Seconds before a loop that ended starts again."""


async def supervised(
    loop: Callable[[], Awaitable[None]],
    name: str,
    *,
    restart_after: float = RESTART_AFTER,
    **about: Any,
) -> NoReturn:
    """Run an endless loop until this task is cancelled, and start it again whenever it ends.

    A failure is logged as `loop_failed` and counted in `smsgateway_loop_failures_total`.

    Args:
        loop: starts the loop; called again after each failure, so it must begin by catching up.
        name: of the loop in the log and in the metric.
        restart_after: seconds between a failure and the next start.
        **about: more for the log, such as the provider.
    """
    while True:
        try:
            await loop()
            _log.error("loop_ended", operation=name, **about)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Nobody cancelled this task: something that the loop awaited was cancelled.
            _log.error("loop_failed", operation=name, exc_info=error, **about)
        except Exception as error:  # noqa: BLE001 - whatever it was, the loop has to run
            _log.error("loop_failed", operation=name, exc_info=error, **about)
        metrics.loop_failed(name)
        await asyncio.sleep(restart_after)
