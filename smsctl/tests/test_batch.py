import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from sdks.python.tests.fakes.gateway import InjectedFault
from sdks.python.tests.fakes.openapi import breaches, document_of_a_gateway
from smsgateway import Batch, Client

from smsctl import recipients
from smsctl.commands import batch as batch_commands
from smsctl.failures import Mistake
from smsctl.recipients import RecipientFile, Wanted
from smsctl.screen import OutputFormat, Screen
from smsctl.watching import Bars, show_watching

HELLO = "Hello {name}, your table is ready."
NOBODY = "4477009000"
GONE = "+447700900198"


def number(place):
    """One of the numbers that are kept for tests, and of those one that is reached."""
    return f"+4477009000{place:02d}"


def words(*more, body=HELLO, file="guests.csv"):
    text = () if body is None else ("--body", body)
    return ("batch", "send", file, "--from", "Acme", *text, *more)


@pytest.fixture
def guests(nothing_configured):
    """Writes the file that is sent."""

    def write(content, name="guests.csv"):
        path = nothing_configured / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def listed(count, start=0):
    lines = [f"{number(place)},Guest {place}" for place in range(start, start + count)]
    return "\n".join(["to,name", *lines]) + "\n"


def requests(gateway):
    """What was asked for in batches, one request after the other."""
    return [json.loads(e.body) for e in gateway.exchanges if sends(e)]


def sends(exchange):
    return (exchange.method, exchange.path) == ("POST", "/api/v1/sms/batches")


def keys(gateway):
    return [e.headers["idempotency-key"] for e in gateway.exchanges if sends(e)]


def bodies(gateway):
    return {message.asked.to: message.asked.body for message in gateway.messages.values()}


def only_batch(gateway):
    (batch,) = gateway.batches.values()
    return batch


# Sending


def test_a_file_is_sent_with_each_ones_own_words(smsctl, configured, guests):
    guests("to,table,name\n+447700900001,7,Ann\n+447700900002,8,Ben\n")
    run = smsctl(*words())
    assert run.code == 0
    assert run.out == (
        f"{only_batch(configured).id}: lines 2 to 3, 2 accepted.\nAccepted 2 of 2 recipients.\n"
    )
    assert run.err == ""
    assert bodies(configured) == {
        "+447700900001": "Hello Ann, your table is ready.",
        "+447700900002": "Hello Ben, your table is ready.",
    }


def test_only_columns_that_the_text_has_places_for_are_sent(smsctl, configured, guests):
    guests("to,table,name\n+447700900001,7,Ann\n")
    smsctl(*words(body="{{table}} for {name}"))
    assert requests(configured)[0]["recipients"] == [
        {"to": "+447700900001", "variables": {"name": "Ann"}}
    ]
    assert bodies(configured) == {"+447700900001": "{table} for Ann"}


def test_a_file_may_have_a_text_for_each_which_is_taken_as_it_is(smsctl, configured, guests):
    guests('phone,body\n+447700900001,"{Ann}, come in"\n+447700900002,"Two\nlines"\n')
    assert smsctl(*words("--to-column", "phone", body=None)).code == 0
    assert bodies(configured) == {
        "+447700900001": "{Ann}, come in",
        "+447700900002": "Two\nlines",
    }


def test_a_given_text_makes_the_column_body_a_variable(smsctl, configured, guests):
    guests("to,body\n+447700900001,Ann\n")
    smsctl(*words(body="Hello {body}"))
    assert bodies(configured) == {"+447700900001": "Hello Ann"}


def test_every_option_of_a_batch_reaches_the_gateway(smsctl, configured, guests):
    guests(listed(1))
    run = smsctl(
        *words("--priority", "low", "--mode", "promotional", "--validity", "600"),
        *("--receipt-deadline", "45"),
        *("--missing-receipt", "expire"),
        *("--callback-url", "https://shop.example.com/sms", "--at", "2100-01-01T09:00:00+01:00"),
        *("--metadata", "campaign=spring", "--no-smart-encoding", "--idempotency-key", "spring"),
        *("--parameter", "template_id=1107"),
    )
    assert run.code == 2
    assert "--at: at most 35 days ahead" in run.err
    assert requests(configured) == [
        {
            "from": "Acme",
            "body": HELLO,
            "priority": "low",
            "mode": "promotional",
            "callback_url": "https://shop.example.com/sms",
            "validity_period": 600,
            "receipt_deadline": 45,
            "missing_receipt": "expire",
            "scheduled_at": "2100-01-01T09:00:00+01:00",
            "parameters": {"template_id": "1107"},
            "smart_encoding": False,
            "recipients": [
                {
                    "to": number(0),
                    "variables": {"name": "Guest 0"},
                    "metadata": {"campaign": "spring"},
                }
            ],
        }
    ]
    assert keys(configured) == ["spring-1"]


def test_a_long_file_is_cut_into_batches(smsctl, configured, guests):
    guests(listed(5))
    run = smsctl(*words("--size", "2"))
    first, second, third = configured.batches
    assert run.out == (
        f"{first}: lines 2 to 3, 2 accepted.\n"
        f"{second}: lines 4 to 5, 2 accepted.\n"
        f"{third}: line 6, 1 accepted.\n"
        "Accepted 5 of 5 recipients.\n"
    )
    assert len(set(keys(configured))) == 3


def test_ten_thousand_go_in_one_request(smsctl, configured, guests):
    lines = (f"+447700900001,Guest {place}" for place in range(10_001))
    guests("to,name\n" + "\n".join(lines))
    run = smsctl(*words("-o", "json"))
    response = json.loads(run.out)
    assert [batch["recipients"] for batch in response["batches"]] == [10_000, 1]
    assert (response["accepted"], response["batches"][1]["first_line"]) == (10_001, 10_002)


def test_long_lines_make_smaller_requests_than_the_gateway_can_read(
    smsctl, configured, guests, monkeypatch
):
    monkeypatch.setattr(recipients, "MOST_BYTES", 200)
    guests(listed(9))
    assert smsctl(*words()).code == 0
    assert [len(asked["recipients"]) for asked in requests(configured)] == [3, 3, 3]


def test_json_has_batches_lines_and_counts(smsctl, configured, guests):
    guests(listed(2) + f"{NOBODY},Cy\n")
    run = smsctl(*words("--output", "json"))
    assert run.code == 1
    assert run.err == ""
    assert json.loads(run.out) == {
        "batches": [
            {
                "batch_id": only_batch(configured).id,
                "first_line": 2,
                "last_line": 4,
                "recipients": 3,
                "accepted": 2,
                "refused": 1,
                "replayed": False,
            }
        ],
        "recipients": 3,
        "accepted": 2,
        "refused": 1,
        "first_refused": [
            {
                "line": 4,
                "field": "to",
                "reason": "invalid_number",
                "detail": "This is no number: write it as +447700900123.",
            }
        ],
    }


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfto,name\r\n+447700900001,J\xc3\xb6rg\r\n",
        b"to,name\r+447700900001,J\xc3\xb6rg\r",
        b'\n\n"to", name\n\n +447700900001,J\xc3\xb6rg\n\n',
    ],
    ids=["BOM", "only CR", "blank lines"],
)
def test_files_of_every_make_are_read(smsctl, configured, guests, content):
    guests(content)
    assert smsctl(*words(body="{name}")).code == 0
    assert bodies(configured) == {"+447700900001": "Jörg"}


def test_the_file_or_the_text_may_come_from_standard_input(smsctl, configured, guests):
    assert smsctl(*words(file="-"), stdin=listed(1)).code == 0
    guests(listed(1))
    assert smsctl(*words(body="-"), stdin="Bye {name}\n").code == 0
    assert [m.asked.body for m in configured.messages.values()] == [
        "Hello Guest 0, your table is ready.",
        "Bye Guest 0",
    ]
    both = smsctl(*words(body="-", file="-"), stdin="")
    assert (both.code, "either the file or the text" in both.err) == (2, True)


def test_all_that_is_asked_of_the_gateway_is_in_its_document(smsctl, configured, guests):
    document = document_of_a_gateway()
    if document is None:
        pytest.skip("there is no gateway beside the program")
    guests(listed(3) + f"{NOBODY},Cy\n")
    smsctl(*words("--size", "2", "--watch"))
    batch_id = next(iter(configured.batches))
    for command in ("list", "show", "watch", "pause", "resume", "cancel"):
        smsctl("batch", command, *([] if command == "list" else [batch_id]))
    smsctl("batch", "show", batch_id, "--results")
    assert breaches(document, configured.exchanges) == []


# The same command again


def test_the_same_command_again_sends_nobody_twice(smsctl, configured, guests):
    guests(listed(3))
    smsctl(*words("--size", "2"))
    again = smsctl(*words("--size", "2"))
    assert again.code == 0
    assert "Accepted 3 of 3 recipients, 3 of them before, by the same command." in again.out
    assert "With --again, it is sent once more." in again.err
    assert len(configured.messages) == 3


def test_a_command_that_failed_goes_on_where_it_stopped(smsctl, configured, guests):
    guests(listed(5))
    configured.faults += [None, *[InjectedFault(503)] * 3]
    failed = smsctl(*words("--size", "2"))
    assert failed.code == 5
    assert failed.out.endswith("Accepted 2 of 2 recipients.\n")
    assert "The lines up to 3 are done. The same command again goes on" in failed.err
    assert smsctl(*words("--size", "2")).code == 0
    assert sorted(bodies(configured)) == [number(place) for place in range(5)]
    assert len(configured.messages) == 5


def test_an_answer_that_is_lost_for_good_leads_to_no_second_message(smsctl, configured, guests):
    guests(listed(1))
    configured.faults += [InjectedFault(503, carried_out=True)] * 3
    failed = smsctl(*words("-o", "json"))
    assert (failed.code, failed.out) == (5, "")
    assert json.loads(smsctl(*words("-o", "json")).out)["batches"][0]["replayed"]
    assert len(configured.messages) == 1


def test_json_has_what_was_accepted_before_a_failure(smsctl, configured, guests):
    guests(listed(3))
    configured.faults += [None, *[InjectedFault(503)] * 3]
    failed = smsctl(*words("--size", "2", "-o", "json"))
    assert json.loads(failed.out)["batches"][0]["batch_id"] == only_batch(configured).id
    assert json.loads(failed.err)["error"]["exit_code"] == failed.code == 5


def test_another_file_with_the_same_lines_is_the_same_command(smsctl, configured, guests):
    guests("to,name\n+447700900001,Ann\n")
    guests(b'\xef\xbb\xbf"to","name","table"\r\n"+447700900001","Ann","7"\r\n', "export.csv")
    smsctl(*words())
    smsctl(*words(file="export.csv"))
    assert len(set(keys(configured))) == 1


@pytest.mark.parametrize(
    "more",
    [
        ("--priority", "high"),
        ("--mode", "alert"),
        ("--validity", "60"),
        ("--at", "2100-01-01T09:00:00Z"),
        ("--metadata", "a=b"),
        ("--parameter", "a=b"),
        ("--callback-url", "https://shop.example.com/sms"),
        ("--no-smart-encoding",),
        ("--body", "Bye {name}"),
        ("--from", "Other"),
    ],
)
def test_what_changes_the_messages_changes_the_keys(smsctl, configured, guests, more):
    guests(listed(1))
    smsctl(*words())
    smsctl(*words(), *more)
    assert len(set(keys(configured))) == 2


def test_a_line_that_was_changed_changes_the_key_of_its_batch_alone(smsctl, configured, guests):
    guests(listed(4))
    smsctl(*words("--size", "2"))
    guests(listed(4).replace("Guest 3", "Ann"))
    smsctl(*words("--size", "2"))
    first, second, third, fourth = keys(configured)
    assert first == third
    assert second != fourth


def test_slices_that_are_alike_have_their_own_keys(smsctl, configured, guests):
    guests("to,name\n" + "+447700900001,Ann\n" * 2)
    smsctl(*words("--size", "1"))
    assert len(set(keys(configured))) == 2


def test_again_sends_once_more_and_a_failure_prints_the_key_to_go_on_with(
    smsctl, configured, guests
):
    guests(listed(2))
    smsctl(*words("--size", "1"))
    configured.faults += [None, *[InjectedFault(503)] * 3]
    failed = smsctl(*words("--size", "1", "--again"))
    key = re.search(r"with --idempotency-key (\w+) in place of --again, goes on", failed.err)[1]
    assert smsctl(*words("--size", "1", "--idempotency-key", key)).code == 0
    assert len(configured.messages) == 4
    both = smsctl(*words("--again", "--idempotency-key", key))
    assert (both.code, "give --again or --idempotency-key" in both.err) == (2, True)


def test_an_idempotency_key_that_no_header_can_hold_is_refused(smsctl, configured, guests):
    guests(listed(1))
    run = smsctl(*words("--idempotency-key", "two words"))
    assert (run.code, configured.exchanges) == (2, [])
    assert "visible ASCII" in run.err


def test_an_interrupted_command_prints_what_is_done(smsctl, configured, guests, monkeypatch):
    guests(listed(2))
    send_slice = batch_commands.send_slice

    def interrupted(client, terms, part, key):
        if part.number == 2:
            raise KeyboardInterrupt
        return send_slice(client, terms, part, key)

    monkeypatch.setattr(batch_commands, "send_slice", interrupted)
    run = smsctl(*words("--size", "1"))
    assert run.code == 130
    assert "Accepted 1 of 1 recipient." in run.out
    assert "The lines up to 2 are done." in run.err


@pytest.mark.parametrize(
    ("earlier", "sentence"),
    [
        (0, "Give a smaller --size."),
        (1, "The lines up to 3 are done. Put the others into a file of their own"),
    ],
)
def test_a_request_that_is_too_large_for_the_gateway_can_be_made_smaller(
    smsctl, configured, guests, earlier, sentence
):
    guests(listed(earlier * 2) + f"{number(50)},{'x' * 500}\n")
    configured.most_batch_bytes = 500
    run = smsctl(*words("--size", "2"))
    assert run.code == 2
    assert sentence in run.err
    assert len(configured.batches) == earlier


# Who is refused


def test_refused_lines_are_listed_without_their_numbers(smsctl, configured, guests):
    guests(f'to,name\n+447700900001,"Ann\nand Ben"\n{NOBODY},Cy\n+447700900001,"Ann\nand Ben"\n')
    run = smsctl(*words())
    assert run.code == 1
    head, heading, *rows, last = run.out.splitlines()
    assert head == f"{only_batch(configured).id}: lines 2 to 5, 1 accepted, 2 refused."
    assert heading.split() == ["line", "refused", "why"]
    assert [row.split()[:2] for row in rows] == [
        ["4", "invalid_number"],
        ["5", "duplicate_recipient"],
    ]
    assert last == "Accepted 1 of 3 recipients."
    assert "the others would get the message twice" in run.err
    assert NOBODY not in run.out + run.err
    assert "Cy" not in run.out + run.err


def test_of_many_refused_lines_the_first_are_listed_and_all_are_counted(smsctl, configured, guests):
    guests(listed(1) + f"{NOBODY},Cy\n" * 25)
    run = smsctl(*words())
    assert "… and 5 lines more." in run.out
    assert "Accepted 1 of 26 recipients." in run.out
    assert len(json.loads(smsctl(*words("-o", "json")).out)["first_refused"]) == 20


def test_nobody_left_to_send_to_is_a_refusal(smsctl, configured, guests):
    guests("to,name\n" + f"{NOBODY},Cy\n" * 30)
    run = smsctl(*words("--refused", "refused.csv", "--watch"))
    assert run.code == 2
    assert "Accepted 0 of 30 recipients." in run.out
    assert not configured.batches


def test_a_batch_of_which_nothing_is_left_keeps_no_other_from_being_sent(
    smsctl, configured, guests
):
    guests("to,name\n" + f"{NOBODY},Cy\n" * 2 + "+447700900001,Ann\n")
    run = smsctl(*words("--size", "2"))
    assert run.code == 1
    assert run.out.startswith(f"{only_batch(configured).id}: line 4, 1 accepted.\n")
    assert run.out.endswith("Accepted 1 of 3 recipients.\n")


def test_what_holds_for_all_is_refused_as_a_whole(smsctl, configured, guests):
    guests(listed(1))
    run = smsctl(*words("--refused", "refused.csv", body="Hello {name"))
    assert (run.code, run.out) == (2, "")
    assert "--body: The brace at character 7" in run.err


def test_a_refusal_of_lines_and_of_the_whole_names_the_lines_of_the_file(
    smsctl, configured, guests
):
    guests(listed(3))
    errors = [
        {"field": "recipients.1.to", "reason": "invalid_number", "detail": "It is too short."},
        {"field": "validity_period", "reason": "out_of_range", "detail": "It is at least 5."},
    ]
    problem = {"title": "Not acceptable", "status": 422, "errors": errors}
    headers = {"content-type": "application/problem+json"}
    for _ in range(2):
        configured.faults.append(InjectedFault(422, headers, json.dumps(problem).encode()))
    run = smsctl(*words())
    assert run.code == 2
    assert "line 3, to: It is too short. --validity: It is at least 5." in run.err
    document = json.loads(smsctl(*words("-o", "json")).err)["error"]["problem"]
    assert document["errors"][0]["line"] == 3


def test_a_line_that_repeats_another_one_names_its_line(smsctl, configured, guests):
    guests(f"to,name\n{number(7)},Ann\n\n{number(1)},Ben\n{number(1)},Ben\n")
    run = smsctl(*words("-o", "json"))
    (refused,) = json.loads(run.out)["first_refused"]
    assert refused["line"] == 5
    assert refused["detail"].startswith("Line 4 has the same number and the same text")


def test_the_results_of_a_batch_can_be_limited(smsctl, configured, guests):
    guests(listed(3))
    smsctl(*words())
    batch_id = only_batch(configured).id
    run = smsctl("batch", "show", batch_id, "--results", "--limit", "2")
    assert run.code == 0
    assert [line.split()[0] for line in run.out.splitlines()[-2:]] == ["1", "2"]
    assert run.err == "1 more result not shown: give a larger --limit.\n"
    run = smsctl("batch", "show", batch_id, "--results", "--limit", "2", "-o", "json")
    assert len(json.loads(run.out)["results"]) == 2
    run = smsctl("batch", "show", batch_id, "--limit", "2")
    assert run.code == 2
    assert "add --results" in run.err


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_refused_lines_are_written_to_a_file_that_can_be_mended_and_sent(
    smsctl, configured, guests, nothing_configured
):
    guests(listed(1) + f'{NOBODY},"Cy, and ""Di"""\n')
    smsctl(*words("--refused", "refused.csv"))
    path = nothing_configured / "refused.csv"
    (refused,) = rows_of(path)
    assert refused == {
        "refused_line": "3",
        "refused_field": "to",
        "refused_reason": "invalid_number",
        "refused_detail": "This is no number: write it as +447700900123.",
        "to": NOBODY,
        "name": 'Cy, and "Di"',
    }
    again = smsctl(*words("--refused", "refused-again.csv", file="refused.csv"))
    assert again.code == 2
    heading = (nothing_configured / "refused-again.csv").read_text().splitlines()[0]
    assert heading == "refused_line,refused_field,refused_reason,refused_detail,to,name"
    path.write_text(path.read_text().replace(NOBODY, "+447700900002"))
    assert smsctl(*words(file="refused.csv")).code == 0
    assert bodies(configured)["+447700900002"] == 'Hello Cy, and "Di", your table is ready.'


def test_where_the_gateway_names_only_the_first_refused_all_are_written(
    smsctl, configured, guests, nothing_configured
):
    guests("to,name\n" + f"{NOBODY},Cy\n" * 21)
    smsctl(*words("--refused", "refused.csv"))
    rows = rows_of(nothing_configured / "refused.csv")
    assert [row["refused_line"] for row in rows] == [str(line) for line in range(2, 23)]
    assert rows[-1]["refused_reason"] == "request_refused"


def test_the_file_that_is_sent_is_not_written_over(smsctl, configured, guests):
    path = guests(listed(1))
    run = smsctl(*words("--refused", "./guests.csv"))
    assert (run.code, configured.exchanges) == (2, [])
    assert "would write over guests.csv" in run.err
    assert path.read_text() == listed(1)


def test_an_unwritable_file_for_refused_lines_is_reported_before_anything_is_sent(
    smsctl, configured, guests
):
    guests(listed(1))
    run = smsctl(*words("--refused", "nowhere/refused.csv"))
    assert (run.code, configured.exchanges) == (2, [])
    assert "nowhere/refused.csv cannot be written: No such file" in run.err


# Files that are wrong


MISTAKES = {
    "another encoding": (
        b"to,name\n+447700900001,Ann\n+447700900002,J\xf6rg\n",
        "Line 3 of guests.csv is not text in UTF-8: save the file as UTF-8",
    ),
    "UTF-16": ("to,name\n".encode("utf-16"), "Line 1 of guests.csv is not text in UTF-8"),
    "NUL": ("to,name\n+447700900001,a\0\n", "Line 2 of guests.csv holds a NUL character"),
    "nothing": ("", "guests.csv is empty: its first line names the columns"),
    "blank lines alone": ("\n\n", "guests.csv is empty"),
    "header alone": ("to,name\n", "guests.csv has a header line and no recipients"),
    "no header": (
        "+447700900001,Ann\n",
        "Line 1 of guests.csv holds a number where the names of the columns belong",
    ),
    "no column of numbers": (
        "phone,name\n+447700900001,Ann\n",
        "or say which with --to-column. Separated by commas, there are: `phone`, `name`.",
    ),
    "semicolons": ("to;name\n1;2\n", "Separated by commas, there are: `to;name`."),
    "no column for a place": ("to,nmae\n1,2\n", "names no column `name` for which the text has"),
    "a column twice": ("\nto,name,to\n1,2,3\n", "Line 2 of guests.csv names the column `to` twice"),
    "too few": (
        "to,name\n+447700900001,Ann\n\n+447700900002\n",
        "Line 4 of guests.csv has 1 column, but the header line names 2",
    ),
    "too many": (
        'to,name\n+447700900001,"Ann\nand Ben"\n+447700900002,Cy,Di\n',
        "Line 4 of guests.csv has 3 columns, but the header line names 2: put a text that",
    ),
    "open quotes": (
        'to,name\n+447700900001,Ann\n+447700900002,"Ben\n+447700900003,Cy\n',
        "Line 3 of guests.csv is not CSV: a text in double quotes is not closed",
    ),
    "text behind quotes": ('to,name\n1,"Ann" Smith\n', "Line 2 of guests.csv is not CSV"),
    "long number": (f"to,name\n{'1' * 65},A\n", "Line 2 of guests.csv has 65 characters in the co"),
    "long variable": (
        f"to,name\n+447700900001,{'x' * 1001}\n",
        "Line 2 of guests.csv has 1001 characters in the column `name`, of which the gateway",
    ),
}


@pytest.mark.parametrize(("content", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_an_invalid_file_is_reported_by_its_line_and_nothing_is_sent(
    smsctl, configured, guests, content, sentence
):
    guests(content)
    run = smsctl(*words("--size", "1", "--refused", "refused.csv"))
    assert (run.code, run.out) == (2, "")
    assert sentence in run.err
    assert run.err.count("\n") == 1
    assert "4477" not in run.err
    assert not configured.exchanges


def test_a_missing_file_is_reported(smsctl, configured):
    run = smsctl(*words())
    assert (run.code, configured.exchanges) == (2, [])
    assert run.err == "smsctl: guests.csv cannot be read: No such file or directory.\n"


def test_a_folder_is_no_file(smsctl, configured):
    run = smsctl(*words(file="."))
    assert (run.code, run.err) == (2, "smsctl: . cannot be read: Is a directory.\n")


def test_a_text_is_needed_from_somewhere(smsctl, configured, guests):
    guests(listed(1))
    run = smsctl(*words(body=None))
    assert (run.code, configured.exchanges) == (2, [])
    assert "give --body, or the file a column `body`" in run.err


@pytest.mark.parametrize("change", ["Guest 2,Ann", "nobody", "Guest 2\n+447700900009,Ann"])
def test_a_file_that_changes_while_it_is_sent_is_not_sent_any_further(change):
    before = io.StringIO(listed(4))
    file = RecipientFile(before, "guests.csv", Wanted("to", HELLO))
    digests = [part.digest for part in file.slices(2)]
    before.seek(0)
    before.write(listed(4).replace("Guest 2", change))
    sent = []
    with pytest.raises(Mistake):
        sent += (part.number for part in file.unchanged(2, digests))
    assert 2 not in sent


def test_a_file_that_grows_or_shrinks_while_it_is_sent_is_noticed():
    for after in (listed(6), listed(2)):
        file = RecipientFile(io.StringIO(listed(4)), "guests.csv", Wanted("to", HELLO))
        digests = [part.digest for part in file.slices(2)]
        other = RecipientFile(io.StringIO(after), "guests.csv", Wanted("to", HELLO))
        with pytest.raises(Mistake, match="was changed while it was being sent"):
            list(other.unchanged(2, digests))


# Watching


def test_watching_after_sending_shows_how_it_ends(smsctl, configured, guests):
    guests(listed(2))
    run = smsctl(*words("--watch"))
    batch_id = only_batch(configured).id
    lines = run.out.splitlines()
    assert run.code == 0
    assert lines[2].startswith(f"{batch_id}  running  ")
    assert lines[-2:] == [f"{batch_id}  finished  2 delivered", "2 of 2 messages delivered."]


@pytest.mark.parametrize(
    ("to", "code", "last"),
    [
        ("+447700900197", 1, "1 of 2 messages delivered, 1 ended otherwise."),
        (GONE, 8, "Not ended in time: 1 of 2 messages delivered, 1 still on the way."),
        (NOBODY, 1, "1 of 1 message delivered."),
    ],
)
def test_the_exit_code_of_watching_depends_on_the_final_statuses(
    smsctl, configured, guests, to, code, last
):
    guests(listed(1) + f"{to},Cy\n")
    run = smsctl(*words("--watch", "--timeout", "0.5"))
    assert run.out.splitlines()[-1] == last
    assert run.code == code


def test_watching_with_json_is_one_document(smsctl, configured, guests):
    guests(listed(3))
    run = smsctl(*words("--size", "2", "--watch", "-o", "json"))
    response = json.loads(run.out)
    assert [batch["status"] for batch in response["watched"]] == ["finished", "finished"]
    assert response["watched"][0]["from"] == "Acme"
    assert [batch["batch_id"] for batch in response["batches"]] == list(configured.batches)
    assert run.err == ""


@pytest.mark.parametrize(("more", "shown"), [((), "Accepted 1 of 1"), (("-o", "json"), "bat_")])
def test_batches_that_cannot_be_watched_are_listed_all_the_same(
    smsctl, configured, guests, more, shown
):
    guests(listed(1))
    configured.faults += [None, *[InjectedFault(403)] * 3]
    run = smsctl(*words("--watch", *more))
    assert run.code == 3
    assert shown in run.out


@pytest.fixture
def sent(smsctl, configured, guests):
    """Sends a batch to some recipients; its id."""

    def send(*to, more=()):
        guests("to,name\n" + "".join(f"{one},Ann\n" for one in to))
        return json.loads(smsctl(*words("--again", "-o", "json", *more)).out)["batches"][0][
            "batch_id"
        ]

    return send


def test_several_batches_are_watched_until_all_have_ended(smsctl, sent):
    first, second = sent(number(1)), sent(number(2), number(3))
    run = smsctl("batch", "watch", first, second)
    assert run.code == 0
    assert {f"{first}  finished  1 delivered", f"{second}  finished  2 delivered"} < set(
        run.out.splitlines()
    )
    assert run.out.endswith("\n3 of 3 messages delivered.\n")
    items = json.loads(smsctl("batch", "watch", first, second, "-o", "json").out)["items"]
    assert [item["batch_id"] for item in items] == [first, second]


def test_a_batch_that_has_not_ended_in_time_can_be_watched_on(smsctl, sent):
    batch_id = sent(GONE)
    run = smsctl("batch", "watch", batch_id, "--timeout", "0")
    assert run.code == 8
    assert f"`smsctl batch watch {batch_id}` goes on watching." in run.err


def test_a_canceled_batch_is_watched_no_longer(smsctl, sent):
    batch_id = sent(GONE)
    smsctl("batch", "watch", batch_id, "--timeout", "0.1")
    canceled = smsctl("batch", "cancel", batch_id)
    assert "1 message had left before and cannot be taken back." in canceled.err
    run = smsctl("batch", "watch", batch_id)
    assert (run.code, run.out.splitlines()[-1]) == (
        1,
        "0 of 1 message delivered, 1 still on the way.",
    )


def test_a_batch_that_nobody_knows_is_not_watched(smsctl, sent):
    run = smsctl("batch", "watch", sent(number(1)), "bat_none")
    assert run.code == 4
    assert "no such batch" in run.err


def test_an_outage_while_watching_is_outwaited(smsctl, sent, configured):
    batch_id = sent(number(1))
    configured.faults += [InjectedFault(429, {"retry-after": "60"})] * 2
    assert smsctl("batch", "watch", batch_id).code == 0
    assert not configured.faults


def test_on_a_terminal_bars_grow(configured, sent):
    screen = Screen(OutputFormat.TABLE)
    screen.out = Console(file=io.StringIO(), force_terminal=True, width=100, height=30)
    with Client(configured.url, configured.key) as client:
        watched = show_watching(screen, client, [sent(number(1), GONE)], 0.5)
    shown = screen.out.file.getvalue()
    assert not watched.have_ended
    assert "━" in shown
    assert "50 %" in shown


def batch(name, status="running", **counts):
    total = sum(counts.values())
    return Batch.model_validate(
        {
            "batch_id": name,
            "status": status,
            "recipients": total,
            "accepted": total,
            "refused": 0,
            "open": 0,
            "counts": [{"status": key, "messages": count} for key, count in counts.items()],
            "from": "Acme",
            "mode": "alert",
            "environment": "live",
            "created_at": datetime.now(UTC),
        }
    )


def drawn(batches, height):
    console = Console(
        file=io.StringIO(), width=60, height=height, force_terminal=True, color_system=None
    )
    console.print(Bars(batches))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_each_status_has_a_bar_with_its_count_the_delivered_first():
    heading, *bars = drawn([batch("bat_1", queued=30, teleporting=1, failed=9, delivered=60)], 20)
    assert heading == "bat_1  running  100 messages"
    cells = [bar.split() for bar in bars]
    assert [(cell[0], cell[-3], cell[-2]) for cell in cells] == [
        ("delivered", "60", "60"),
        ("queued", "30", "30"),
        ("failed", "9", "9"),
        ("teleporting", "1", "1"),
    ]
    assert bars[0].count("━") > bars[1].count("━") > bars[2].count("━")


def test_where_there_is_no_room_for_all_batches_their_sum_is_drawn():
    batches = [batch(f"bat_{place}", queued=1, delivered=3) for place in range(9)]
    assert drawn(batches, 100)[0] == "bat_0  running  4 messages"
    heading, first, second = drawn([*batches, batch("bat_9", "finished", delivered=4)], 20)
    assert heading == "10 batches  9 running, 1 finished  40 messages"
    assert first.split()[-3:] == ["31", "77", "%"]
    assert second.split()[0] == "queued"


# Looking and steering


def test_batches_are_listed_and_shown(smsctl, sent):
    first, second = sent(number(1)), sent(number(2), NOBODY)
    listing = smsctl("batch", "list")
    assert [line.split()[0] for line in listing.out.splitlines()] == ["batch", second, first]
    rest = smsctl("batch", "list", "--limit", "1")
    assert "--cursor" in rest.err
    smsctl("batch", "watch", second)
    shown = smsctl("batch", "show", second)
    assert re.search(r"recipients +2 *\naccepted +1 *\nrefused +1 *\n", shown.out)
    assert re.search(r"\n +1 +delivered +delivered *\n", shown.out)
    assert json.loads(smsctl("batch", "show", first, "-o", "json").out)["batch_id"] == first


def test_what_became_of_each_recipient_is_shown_where_that_is_asked(smsctl, sent, configured):
    batch_id = sent(number(2), NOBODY)
    shown = smsctl("batch", "show", batch_id, "--results")
    assert next(iter(configured.messages)) in shown.out
    assert "invalid_number" in shown.out
    document = json.loads(smsctl("batch", "show", batch_id, "--results", "-o", "json").out)
    assert [result["index"] for result in document["results"]] == [0, 1]


def test_batches_are_paused_resumed_and_canceled(smsctl, sent):
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    ids = [sent(number(place), more=("--at", later)) for place in (1, 2)]
    for command, status in (("pause", "paused"), ("resume", "running"), ("cancel", "canceled")):
        run = smsctl("batch", command, *ids, "-o", "json")
        assert run.code == 0
        found = [(item["batch_id"], item["status"]) for item in json.loads(run.out)["items"]]
        assert found == [(batch_id, status) for batch_id in ids]
    again = smsctl("batch", "resume", ids[0])
    assert (again.code, again.out) == (6, "")


def test_batches_before_one_that_cannot_be_paused_are_paused_and_shown(smsctl, sent):
    batch_id = sent(GONE)
    run = smsctl("batch", "pause", batch_id, "bat_none")
    assert run.code == 4
    assert batch_id in run.out
    assert "paused" in run.out


@pytest.mark.parametrize("command", ["watch", "show", "pause", "resume", "cancel"])
def test_an_empty_batch_id_is_refused(smsctl, configured, command):
    run = smsctl("batch", command, "")
    assert (run.code, configured.exchanges) == (2, [])
    assert "must not be empty" in run.err
