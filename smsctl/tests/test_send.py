import io
import json
import re

import pytest
from rich.console import Console
from sdks.python.tests.fakes.gateway import DELIVERED, FATES, InjectedFault, Step
from smsgateway import Client

from smsctl import waiting
from smsctl.screen import OutputFormat, Screen
from smsctl.waiting import show_waiting

TO = "+447700900123"
SLOW = "+447700900195"
"""The fake delivers to it after three seconds."""


def words(*more, to=TO, body="Your table is ready."):
    return ("send", "--to", to, "--from", "Acme", "--body", body, *more)


def only_message(gateway):
    (message,) = gateway.messages.values()
    return message


def test_a_message_is_accepted_and_its_id_is_printed(smsctl, configured):
    run = smsctl(*words("--priority", "high"))
    message = only_message(configured)
    assert run.code == 0
    assert run.out == f"Accepted as {message.id}: queued, 1 segment, gsm7.\n"
    assert "Warning: The number is one for tests." in run.err
    assert message.asked.priority == "high"


def test_json_is_the_answer_of_the_api(smsctl, configured):
    run = smsctl(*words("--output", "json"))
    response = json.loads(run.out)
    assert response["message_id"] == only_message(configured).id
    assert response["segments"] == 1
    assert run.err == ""


def test_every_option_reaches_the_gateway(smsctl, configured):
    run = smsctl(
        *words(
            "--priority",
            "critical",
            "--mode",
            "alert",
            "--callback-url",
            "https://shop.example.com/sms",
            "--validity",
            "600",
            "--receipt-deadline",
            "45",
            "--missing-receipt",
            "expire",
            "--at",
            "2100-01-01T09:00:00+01:00",
            "--metadata",
            "order=17",
            "--metadata",
            "note=a=b",
            "--parameter",
            "template_id=1107",
            "--no-smart-encoding",
            "--idempotency-key",
            "order-17",
        )
    )
    assert run.code == 2
    assert "--at: at most 35 days ahead" in run.err
    sent = configured.exchanges[-1]
    assert json.loads(sent.body) == {
        "to": TO,
        "from": "Acme",
        "body": "Your table is ready.",
        "priority": "critical",
        "mode": "alert",
        "callback_url": "https://shop.example.com/sms",
        "validity_period": 600,
        "receipt_deadline": 45,
        "missing_receipt": "expire",
        "scheduled_at": "2100-01-01T09:00:00+01:00",
        "metadata": {"order": "17", "note": "a=b"},
        "parameters": {"template_id": "1107"},
        "smart_encoding": False,
    }
    assert sent.headers["idempotency-key"] == "order-17"
    assert re.match(r"smsctl/\d.* smsgateway-python/\d", sent.headers["user-agent"])


def test_the_body_may_come_from_standard_input_less_its_last_newline(smsctl, configured):
    assert smsctl(*words(body="-"), stdin="Grüße\n\n".encode()).code == 0
    assert only_message(configured).asked.body == "Grüße\n"


def test_standard_input_that_is_not_text_is_refused(smsctl, configured):
    run = smsctl(*words(body="-"), stdin=b"\xff\xfe")
    assert (run.code, run.out) == (2, "")
    assert "not text in UTF-8" in run.err
    assert not configured.messages


def test_replacements_are_printed(smsctl, configured):
    run = smsctl(*words(body="It\u2019s ready"))
    assert "Replaced \u2019 by ', 1 time." in run.out


def test_the_same_idempotency_key_is_the_same_message(smsctl, configured):
    first, second = (smsctl(*words("--idempotency-key", "k", "-o", "json")) for _ in range(2))
    assert json.loads(second.out)["replayed"]
    assert json.loads(first.out)["message_id"] == json.loads(second.out)["message_id"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--parameter", "template_id"), '--parameter template_id: it has no "="'),
        (("--metadata", "order"), '--metadata order: it has no "="'),
        (("--metadata", "a=1", "--metadata", "a=2"), "a is given twice"),
        (("--at", "2026-12-01T09:00:00"), "written with its offset"),
        (("--at", "tomorrow"), "written with its offset"),
        (("--priority", "urgent"), "'--priority'"),
        (("--mode", "spam"), "'--mode': 'spam' is not one of"),
        (("--validity", "soon"), "'--validity'"),
        (("--receipt-deadline", "soon"), "'--receipt-deadline'"),
        (("--idempotency-key", "two words"), "visible ASCII"),
    ],
)
def test_a_mistake_on_the_command_line_is_reported_and_nothing_is_sent(
    smsctl, configured, more, sentence
):
    run = smsctl(*words(*more))
    assert run.code == 2
    assert run.out == ""
    assert sentence in run.err
    assert not configured.exchanges


def test_a_refused_number_names_the_field_and_is_not_repeated(smsctl, configured):
    run = smsctl(*words(to="0123456789"))
    assert run.code == 2
    assert run.err.startswith("smsctl: The request is not acceptable. --to: ")
    assert "0123456789" not in run.err


def test_a_send_that_may_have_been_lost_prints_the_key_to_repeat_it_safely(smsctl, configured):
    configured.faults += [InjectedFault(503)] * 3
    run = smsctl(*words())
    assert run.code == 5
    key = re.search(r"add --idempotency-key (\w+)\.", run.err)[1]
    assert smsctl(*words("--idempotency-key", key)).code == 0


def test_waiting_shows_each_event_once_and_ends_with_delivery(smsctl, configured):
    run = smsctl(*words("--wait"))
    assert run.code == 0
    lines = run.out.splitlines()
    assert lines[0].startswith("Accepted as msg_")
    assert [line.split(maxsplit=1)[1] for line in lines[1:-1]] == [
        "Accepted.",
        "Submitted to primary.",
        "Accepted by primary.",
        "Receipt from primary: delivered.",
    ]
    assert lines[-1] == "Ended as delivered by primary."


@pytest.mark.parametrize(
    ("to", "code", "last"),
    [
        (
            "+447700900197",
            1,
            "Ended as failed: the recipient's number is invalid; the last provider was primary.",
        ),
        ("+447700900199", 1, "Ended as a dead letter: no provider was up."),
        ("+447700900196", 1, "Ended as sent by primary: the provider gives no receipts."),
        ("+447700900198", 8, "Not ended in time: it is still sent by primary."),
    ],
)
def test_the_exit_code_of_waiting_depends_on_the_final_status(smsctl, configured, to, code, last):
    run = smsctl(*words("--wait", "--timeout", "0.3", to=to))
    assert run.out.splitlines()[-1] == last
    assert run.code == code


def test_what_has_not_ended_in_time_can_be_looked_at_later(smsctl, configured):
    run = smsctl(*words("--wait", "--timeout", "0", to="+447700900198"))
    assert f"`smsctl message show {only_message(configured).id}`" in run.err


def test_waiting_with_json_is_one_document(smsctl, configured):
    run = smsctl("--output", "json", *words("--wait"))
    response = json.loads(run.out)
    assert response["message_id"] == response["message"]["message_id"]
    assert response["status"] == response["message"]["status"] == "delivered"
    assert response["message"]["from"] == "Acme"
    assert [event["status"] for event in response["events"]][-1] == "delivered"
    assert response["events"][0]["at"].endswith("Z")


def test_an_outage_while_waiting_is_outwaited(configured, monkeypatch):
    monkeypatch.setattr(waiting, "_FIRST_PAUSE", 0.01)
    with Client(configured.url, configured.key) as client:
        message_id = client.send(to=TO, sender="Acme", body="Hello").message_id
        configured.faults += [InjectedFault(429, {"retry-after": "60"})] * 3
        seen = waiting.wait(client, message_id, 10, lambda _: None)
    assert seen.message.status == "delivered"
    assert not configured.faults


def test_an_outage_that_outlasts_the_waiting_is_reported(smsctl, configured):
    configured.faults += [InjectedFault(202, {"content-type": "application/json"}, ACCEPTED)]
    configured.faults += [InjectedFault(503)] * 3
    run = smsctl(*words("--wait", "--timeout", "0"))
    assert run.code == 5
    assert "Accepted as msg_1" in run.out
    assert "503" in run.err


ACCEPTED = json.dumps(
    {"message_id": "msg_1", "status": "queued", "encoding": "gsm7", "segments": 1}
).encode()


def test_on_a_terminal_the_lines_grow(configured):
    screen = Screen(OutputFormat.TABLE)
    screen.out = Console(file=io.StringIO(), force_terminal=True, width=160)
    with Client(configured.url, configured.key) as client:
        message_id = client.send(to=SLOW, sender="Acme", body="Hello").message_id
        seen = show_waiting(screen, client, message_id, 60)
    shown = screen.out.file.getvalue()
    assert seen.message.status == "delivered"
    assert "Receipt from primary: delivered." in shown
    assert "waiting" in shown


def test_the_fates_of_the_fake_differ():
    assert {fate[-1].status for fate in FATES.values()} == {
        "dead_letter",
        "sent",
        "failed",
        "delivered",
    }
    assert DELIVERED[-1] == Step(0.08, "receipt", "delivered", "delivered", "primary")


def test_a_dry_run_shows_encoding_segments_and_route_and_sends_nothing(smsctl, configured):
    run = smsctl(*words("--dry-run", "--mode", "alert", body="It\u2019s ready"))
    assert run.code == 0
    rows = dict(line.split(maxsplit=1) for line in run.out.splitlines()[:8] if "  " in line)
    assert rows["encoding"].strip() == "gsm7"
    assert rows["segments"].strip() == "1"
    assert rows["route"].strip() == "routes[0]"
    assert rows["providers"].strip() == "primary (up), backup (down)"
    assert run.out.endswith("Replaced \u2019 by ', 1 time.\nNothing was sent.\n")
    assert not configured.messages
    document = json.loads(smsctl(*words("--dry-run", "-o", "json")).out)
    assert (document["segments"], document["route"]) == (1, 0)


def test_a_dry_run_says_by_its_exit_code_that_no_route_takes_the_message(smsctl, configured):
    configured.has_route = False
    run = smsctl(*words("--dry-run"))
    assert run.code == 1
    assert "No route takes it" in run.err


def test_a_dry_run_refuses_what_sending_refuses(smsctl, configured):
    run = smsctl(*words("--dry-run", to="0123456789"))
    assert run.code == 2
    assert "--to: " in run.err


def test_a_dry_run_has_nothing_to_wait_for(smsctl, configured):
    run = smsctl(*words("--dry-run", "--wait"))
    assert run.code == 2
    assert "--dry-run" in run.err
    assert not configured.exchanges
