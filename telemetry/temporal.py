"""Output of the Temporal SDK: its core's logs, its metrics, and the failures in histories."""

import logging

import temporalio.api.failure.v1
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverter,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
    PayloadConverter,
)
from temporalio.exceptions import FailureError
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)

from telemetry.logs import error_code
from telemetry.redaction import masked


class DiscreetFailureConverter(DefaultFailureConverter):
    """Writes failures into histories without texts that could hold personal data.

    An exception's text is where a database quotes a row and an HTTP client an address; so of an
    exception that is not Temporal's own only its type and code go into the history, unless its
    class says `loggable = True`. Causes come here one by one, and are treated alike.
    """

    def to_failure(
        self,
        exception: BaseException,
        payload_converter: PayloadConverter,
        failure: temporalio.api.failure.v1.Failure,
    ) -> None:
        """As the SDK does, and then the text is replaced."""
        super().to_failure(exception, payload_converter, failure)
        if isinstance(exception, FailureError) or getattr(type(exception), "loggable", False):
            failure.message = masked(failure.message)
        else:
            failure.message = f"{type(exception).__qualname__} {error_code(exception)}".rstrip()


_JSON = PydanticJSONPlainPayloadConverter()


class SharedPayloadConverter(CompositePayloadConverter):
    """The SDK's payload converter for pydantic, with one cache of type adapters for all workflows.

    The SDK makes a converter for every run of a workflow; with a cache of its own each would build
    the adapters anew, which costs 2 ms of CPU a message.
    """

    def __init__(self) -> None:
        super().__init__(
            *(
                _JSON if isinstance(converter, JSONPlainPayloadConverter) else converter
                for converter in DefaultPayloadConverter.default_encoding_payload_converters
            )
        )


DATA_CONVERTER = DataConverter(
    payload_converter_class=SharedPayloadConverter,
    failure_converter_class=DiscreetFailureConverter,
)
"""For every Temporal client of ours: pydantic models in and out, failures without texts."""


def use_temporal_runtime(metrics_host: str, metrics_port: int) -> None:
    """Makes the runtime that every Temporal client of this process shares, if there is none yet.

    To be called before the first client connects, since the SDK would make one of its own, whose
    core writes to standard error past our redaction.

    Args:
        metrics_host: address on which the SDK serves its metrics.
        metrics_port: 0 for no metrics.

    Raises:
        OSError: the metrics' address cannot be listened on.
    """
    metrics = (
        PrometheusConfig(
            bind_address=f"{metrics_host}:{metrics_port}",
            counters_total_suffix=True,
            unit_suffix=True,
            durations_as_seconds=True,
        )
        if metrics_port
        else None
    )
    telemetry = TelemetryConfig(
        logging=LoggingConfig(
            filter=TelemetryFilter(core_level="WARN", other_level="ERROR"),
            forwarding=LogForwardingConfig(
                logger=logging.getLogger("temporalio.core"),
                prepend_target_on_message=False,
                append_log_fields_to_message=False,
            ),
        ),
        metrics=metrics,
    )
    try:
        runtime = Runtime(telemetry=telemetry)
    except (RuntimeError, ValueError) as error:
        raise OSError(
            f"the Temporal SDK's metrics cannot be served at {metrics_host}:{metrics_port}"
        ) from error
    Runtime.set_default(runtime, error_if_already_set=False)
