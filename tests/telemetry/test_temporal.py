"""What goes into Temporal's histories when something fails."""

import psycopg
import pytest
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError

from telemetry.temporal import DATA_CONVERTER

NUMBER = "+447700900123"


def failure_of(exception: BaseException) -> Failure:
    failure = Failure()
    DATA_CONVERTER.failure_converter.to_failure(
        exception, DATA_CONVERTER.payload_converter, failure
    )
    return failure


def raised(exception: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise exception from cause
    except type(exception) as caught:
        return caught


@pytest.mark.parametrize(
    ("exception", "text"),
    [
        (ValueError(f"cannot send to {NUMBER}"), "ValueError"),
        (psycopg.errors.UniqueViolation(f"Key (number)=({NUMBER})"), "UniqueViolation 23505"),
        (ConnectionResetError(104, NUMBER), "ConnectionResetError ECONNRESET"),
        (ApplicationError(f"refused {NUMBER}", type="Refused"), "refused [...]"),
        (ApplicationError("no route is left", type="NoRoute"), "no route is left"),
    ],
)
def test_a_failure_in_a_history_has_its_type_and_code_and_no_number(exception, text):
    failure = failure_of(raised(exception))
    assert failure.message == text
    assert "900123" not in str(failure)


def test_causes_in_a_history_have_no_number_either():
    failure = failure_of(
        raised(ApplicationError("store is away", type="Store"), ValueError(f"row of {NUMBER}"))
    )
    assert failure.cause.message == "ValueError"
    assert failure.cause.application_failure_info.type == "ValueError"
    assert "raised" in failure.stack_trace
    assert "900123" not in str(failure)


def test_failures_come_back_as_errors_of_the_same_type():
    failure = failure_of(ApplicationError("no route is left", type="NoRoute", non_retryable=True))
    error = DATA_CONVERTER.failure_converter.from_failure(failure, DATA_CONVERTER.payload_converter)
    assert isinstance(error, ApplicationError)
    assert (error.type, error.non_retryable) == ("NoRoute", True)
