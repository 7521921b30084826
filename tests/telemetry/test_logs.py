"""Nothing personal is in a log, whoever logs, and what is needed to find a fault is."""

import asyncio
import io
import json
import logging
import logging.handlers
import sys
import threading
import warnings

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from temporalio.exceptions import ApplicationError

from settings.settings import LogFormat, LogLevel
from telemetry.logs import (
    configure_logging,
    error_code,
    get_logger,
    log_context,
    log_loop_exceptions,
    log_what_nobody_caught,
)
from telemetry.tracing import recorded_spans, span

NUMBER = "+447700900123"
BODY = "Your code is 493021"
MESSAGE_ID = "msg_" + "0123456789abcdef" * 2

log = get_logger("tests.telemetry")
foreign = logging.getLogger("some.library")


def assert_clean(text: str) -> None:
    for secret in (NUMBER, NUMBER[1:], "900123", BODY, "493021", "Your code"):
        assert secret not in text


# --- our own records ---


def test_a_record_says_when_who_what_and_the_ids(logged):
    log.info("bind_up", provider="primary", message_id=MESSAGE_ID, count=2)
    record = logged.record
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "level": "info",
        "service": "test",
        "logger": "tests.telemetry",
        "event": "bind_up",
        "provider": "primary",
        "message_id": MESSAGE_ID,
        "count": 2,
    }


def test_a_number_and_a_body_under_whatever_key_are_held_back(logged):
    log.info("sent", to=NUMBER, body=BODY, provider=NUMBER, reason=BODY, count=int(NUMBER))
    assert_clean(logged.text)
    assert logged.record["dropped"] == 2


def test_an_event_that_was_put_together_is_replaced_by_its_place(logged):
    log.info(f"sent to {NUMBER}: {BODY}")  # noqa: G004 - the fault that is tested
    assert_clean(logged.text)
    assert logged.record["event"] == "event_is_no_constant"
    assert "test_logs.py:" in logged.record["place"]


@pytest.mark.parametrize("event", ["Sent", "sent to", "sent_447700900123", "493021", "", "a" * 65])
def test_an_event_is_in_snake_case(logged, event):
    log.info(event)
    assert logged.record["event"] == "event_is_no_constant"


def test_positional_arguments_do_not_slip_into_the_event(logged):
    log.info("sent to %s", NUMBER)
    assert_clean(logged.text)


def test_context_stands_on_every_record_and_obeys_the_same_rules(logged):
    with log_context(message_id=MESSAGE_ID, to=NUMBER):
        log.info("first")
        foreign.warning("second")
    log.info("third")
    first, second, third = logged.records
    assert first["message_id"] == second["message_id"] == MESSAGE_ID
    assert "message_id" not in third
    assert_clean(logged.text)


def test_records_carry_the_trace_that_is_open(logged):
    with recorded_spans() as spans, span("submit part"):
        log.info("within")
    (ended,) = spans.get_finished_spans()
    assert ended.context is not None
    assert logged.record["trace_id"] == f"{ended.context.trace_id:032x}"


def test_records_below_the_level_are_not_written():
    out = io.StringIO()
    configure_logging("test", level=LogLevel.WARNING, out=out)
    log.info("quiet")
    foreign.info("quiet")
    assert out.getvalue() == ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.text(),
    st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.binary(), st.none())),
)
def test_whatever_is_logged_the_line_is_json_and_the_number_is_not_in_it(logged, event, values):
    values = {key: value for key, value in values.items() if key not in {"event", "self"}}
    log.info(event + NUMBER, **values, to=NUMBER, reason=f"{event}{NUMBER}")  # noqa: G003 - the same
    for line in logged.text.splitlines():
        json.loads(line)
    assert_clean(logged.text)


# --- exceptions ---


def raise_with_data():
    recipient = NUMBER
    raise ValueError(f"cannot send {BODY!r} to {recipient}")


def test_an_exception_keeps_its_type_and_places_and_loses_its_text(logged):
    try:
        raise_with_data()
    except ValueError:
        log.exception("submit_failed")
    assert_clean(logged.text)
    (exception,) = logged.record["exception"]
    assert exception["type"] == "builtins.ValueError"
    assert exception["places"][-1].endswith("raise_with_data")
    assert "text" not in exception


def test_causes_and_groups_are_followed_and_none_of_them_speaks(logged):
    try:
        try:
            raise_with_data()
        except ValueError as error:
            raise ExceptionGroup(BODY, [KeyError(NUMBER), OSError(111, BODY)]) from error
    except ExceptionGroup:
        log.exception("submit_failed")
    assert_clean(logged.text)
    types = [e["type"].split(".")[-1] for e in logged.record["exception"]]
    assert types == ["ExceptionGroup", "KeyError", "ConnectionRefusedError", "ValueError"]


def test_causes_that_go_round_in_a_circle_end(logged):
    first, second = ValueError(BODY), ValueError(BODY)
    first.__cause__, second.__cause__ = second, first
    log.error("circle", exc_info=first)
    assert len(logged.record["exception"]) == 2


class SaysWhatToDo(Exception):
    loggable = True


def test_an_exception_that_promises_to_be_discreet_keeps_its_text_masked(logged):
    log.error("refused", exc_info=SaysWhatToDo(f"set DATABASE_URL, not {NUMBER}"))
    assert logged.record["exception"][0]["text"] == "set DATABASE_URL, not [...]"


def test_a_promise_of_one_object_does_not_count(logged):
    error = ValueError(BODY)
    error.loggable = True  # type: ignore[attr-defined]
    log.error("refused", exc_info=error)
    assert_clean(logged.text)


@pytest.mark.parametrize(
    ("exception", "code"),
    [
        (psycopg.errors.UniqueViolation("Key (number)=(+447700900123) exists"), "23505"),
        (ConnectionRefusedError(111, "127.0.0.1"), "ECONNREFUSED"),
        (ApplicationError(BODY, type="Throttled"), "Throttled"),
        (ValueError(BODY), ""),
    ],
)
def test_errors_of_other_systems_are_known_by_their_codes(exception, code):
    assert error_code(exception) == code


def test_a_code_that_is_data_is_none():
    error = ValueError()
    error.code = NUMBER  # type: ignore[attr-defined]
    assert error_code(error) == ""


# --- records of libraries ---


def test_a_librarys_constant_text_passes(logged):
    foreign.warning("Connection lost")
    assert logged.record["text"] == "Connection lost"
    assert logged.record["logger"] == "some.library"


def test_arguments_of_libraries_do_not_pass_but_for_small_figures(logged):
    foreign.warning("Failed for %s with %r after %d of %5.2f tries at 100%%", NUMBER, BODY, 3, 4.0)
    assert_clean(logged.text)
    assert logged.record["text"] == "Failed for ... with ... after 3 of ... tries at 100%"


def test_arguments_by_name_do_not_pass_either(logged):
    foreign.warning("Failed for %(number)s on port %(port)d", {"number": NUMBER, "port": 2775})
    assert logged.record["text"] == "Failed for ... on port 2775"


def test_a_one_time_code_is_no_small_figure(logged):
    foreign.warning("code %d", 493021)
    assert_clean(logged.text)


def through_a_wrapper(text: str) -> None:
    foreign.warning(text)


@pytest.mark.parametrize(
    "log_it",
    [
        lambda: foreign.warning(f"cannot send to {NUMBER}"),
        lambda: foreign.warning("cannot send to " + NUMBER),
        lambda: foreign.warning("cannot send to {}".format(NUMBER)),  # noqa: UP032 - a library's way
        lambda: foreign.warning("cannot send to %s" % NUMBER),  # noqa: UP031 - a library's way
        lambda: foreign.warning(BODY),
        lambda: through_a_wrapper(BODY),
        lambda: foreign.warning(ValueError(BODY)),
        lambda: foreign.warning("%s", BODY, extra={"to": NUMBER}),
        lambda: foreign.warning("stack", stack_info=True),
    ],
)
def test_texts_that_were_put_together_by_libraries_do_not_pass(logged, log_it):
    log_it()
    assert_clean(logged.text)
    assert logged.record["place"].split(":")[0] == "telemetry/test_logs.py"


def test_an_exception_of_a_library_is_logged_like_ours(logged):
    try:
        raise_with_data()
    except ValueError:
        foreign.exception("Exception in ASGI application\n")
    assert_clean(logged.text)
    assert logged.record["exception"][0]["type"] == "builtins.ValueError"


def test_ids_that_temporal_gives_beside_its_text_are_kept(logged):
    foreign.warning(
        "Completing activity as failed",
        extra={"temporal_activity": {"workflow_id": f"send/{MESSAGE_ID}", "attempt": 2, "x": BODY}},
    )
    assert_clean(logged.text)
    assert logged.record["workflow_id"] == f"send/{MESSAGE_ID}"
    assert logged.record["attempt"] == 2


def test_access_logs_of_the_server_are_not_written(logged):
    logging.getLogger("uvicorn.access").critical('%s - "GET /?to=%s"', "192.0.2.1", NUMBER)
    assert logged.text == ""


def test_a_record_that_cannot_be_written_says_so_without_its_contents(logged, capsys):
    record = foreign.makeRecord("x", 30, "f", 1, BODY, (), None)
    record.created = float("nan")
    foreign.handle(record)
    assert logged.record["event"] == "log_record_lost"
    assert_clean(logged.text + "".join(capsys.readouterr()))


def test_loggers_that_brought_their_own_handlers_lose_them():
    own = io.StringIO()
    foreign.addHandler(logging.StreamHandler(own))
    foreign.propagate = False
    out = io.StringIO()
    configure_logging("test", out=out)
    foreign.warning("Connection lost")
    assert own.getvalue() == ""
    assert "Connection lost" in out.getvalue()


def test_a_closed_pipe_stops_no_work():
    out = io.StringIO()
    configure_logging("test", out=out)
    out.close()
    log.info("still_working")
    foreign.warning("still working")


# --- what nobody caught ---


@pytest.fixture
def hooks(monkeypatch):
    """The interpreter's hooks are pytest's again afterwards."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    log_what_nobody_caught()


def test_uncaught_exceptions_of_threads_are_logged_without_their_texts(logged, hooks, capsys):
    thread = threading.Thread(target=raise_with_data)
    thread.start()
    thread.join()
    assert_clean(logged.text + "".join(capsys.readouterr()))
    assert logged.record["event"] == "uncaught_exception_in_thread"


def test_uncaught_exceptions_are_logged_without_their_texts(logged, hooks, capsys):
    try:
        raise_with_data()
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    assert_clean(logged.text + "".join(capsys.readouterr()))
    assert logged.record["event"] == "uncaught_exception"


def test_warnings_are_logged_by_kind_and_place(logged, hooks, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = sys.modules["warnings"].showwarning
        log_what_nobody_caught()
        warnings.warn(f"odd number {NUMBER}", UserWarning, stacklevel=1)
    assert_clean(logged.text + "".join(capsys.readouterr()))
    assert logged.record["error_type"] == "UserWarning"


async def test_tasks_that_nobody_awaited_are_logged_without_their_contents(logged, capsys):
    async def fails(number: str) -> None:
        raise ValueError(f"{number}: {BODY}")

    loop = asyncio.get_running_loop()
    log_loop_exceptions(loop)
    task = loop.create_task(fails(NUMBER), name=NUMBER)
    await asyncio.wait([task])
    del task
    loop.call_soon(raise_with_data)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert_clean(logged.text + "".join(capsys.readouterr()))
    assert [r["event"] for r in logged.records] == ["exception_nobody_awaited"] * 2


# --- for people ---


def test_the_console_shows_one_line_and_the_places_below_it():
    out = io.StringIO()
    configure_logging("api", log_format=LogFormat.CONSOLE, out=out)
    try:
        raise_with_data()
    except ValueError:
        log.exception("submit_failed", provider="primary")
    first, second, *places = out.getvalue().splitlines()
    assert first.endswith("error   api: submit_failed provider=primary")
    assert second.strip() == "builtins.ValueError"
    assert places[-1].strip().endswith("raise_with_data")
    assert_clean(out.getvalue())
