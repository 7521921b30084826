"""The gateway as processes, for tests that kill some: what was accepted, what became of it, and
what the carriers say that they got.
"""

import itertools
import json
import os
import signal
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row
from smsgateway import Client
from smsgateway.exchange import Retries

from domain.ids import IdPrefix, parse_id
from local.stack import Stack
from tests.fakes.mortal import Point

WINDOW: Final = 10
BINDS: Final = 2
MOST_IN_DOUBT: Final = WINDOW * BINDS
"""How many attempts may be unknown for each kill: what one provider's windows hold."""

# Deadlines of seconds where a test waits for one, and of ten minutes where one would only disturb: on
# a busy machine everything takes its time.
CONFIGURATION: Final = f"""\
[providers.primary]
type = "simulator"
port = $primary
binds = {BINDS}
window = {WINDOW}
echoes_reference = true
response_timeout = "3s"
receipt_deadline = "600s"
rebind_backoff = {{ min = "100ms", max = "500ms" }}

[providers.backup]
type = "simulator"
port = $backup
binds = {BINDS}
window = {WINDOW}
echoes_reference = true
response_timeout = "3s"
receipt_deadline = "600s"
rebind_backoff = {{ min = "100ms", max = "500ms" }}

[providers.hasty]
type = "simulator"
port = $primary
system_id = "hasty"
binds = {BINDS}
window = {WINDOW}
echoes_reference = true
response_timeout = "2s"
receipt_deadline = "2s"
rebind_backoff = {{ min = "100ms", max = "500ms" }}

[providers.twilio_simulator]
type = "twilio"
url = "http://127.0.0.1:$twilio_simulator"
private_network = true
account_sid = "$twilio_account"
auth_token = "$twilio_token"
connections = {BINDS}
response_timeout = "3s"
receipt_deadline = "600s"

[[routes]]
match = {{ modes = ["promotional"] }}
providers = ["hasty"]

[[routes]]
match = {{ countries = ["US"] }}
providers = ["primary", "twilio_simulator"]

[[routes]]
providers = ["primary", "backup"]

[modes.alert]
receipt_deadline = "600s"

[modes.promotional]
unknown = "wait"
"""

ALERT: Final = "alert"
PLAIN: Final = "transactional"
MIXED: Final = (ALERT, PLAIN)

_PATIENT: Final = Retries(tries=200, first_pause=0.05, longest_pause=0.5)
_WITHIN: Final = 180.0
_SENDERS: Final = 6
_CARRIERS: Final = ("primary", "backup")
OVER_HTTP: Final = "twilio_simulator"


@dataclass(frozen=True, slots=True)
class Attempt:
    """As it stands in the database; `ids` are those that the carrier gave its parts."""

    provider: str
    status: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """What became of a message."""

    message_id: str
    text: str
    mode: str
    status: str
    reason: str | None
    epoch: int
    attempts: tuple[Attempt, ...]
    unknown: int
    """How many of its attempts are, or once were, unknown."""
    kinds: Counter[str]
    """Its events by kind."""


@dataclass(frozen=True, slots=True)
class Got:
    """A message as a carrier has it."""

    carrier: str
    text: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that was answered with 202."""

    message_id: str
    text: str
    mode: str
    replayed: bool = False


@dataclass
class Load:
    """Messages that are being accepted while something is killed."""

    messages: list[Sent] = field(default_factory=list)
    """All of them, once they have been accepted."""
    under_way: "list[Future[Sent]]" = field(default_factory=list)

    @property
    def accepted(self) -> int:
        """How many have been answered so far."""
        return sum(each.done() for each in self.under_way)


class MortalStack(Stack):
    """The stack with a worker and an API that die at a point that a test chooses."""

    @property
    def orders(self) -> Path:
        return self.folder / "orders.json"

    def start_worker(self, *, command: Sequence[str] = (), **how: Any) -> None:
        super().start_worker(command=command or self._mortal("worker"), **how)

    def start_api(self, *, command: Sequence[str] = (), **how: Any) -> None:
        super().start_api(command=command or self._mortal("api"), **how)

    def _mortal(self, program: str) -> list[str]:
        return ["-m", "tests.fakes.mortal", program, str(self.orders)]


class Gateway:
    """The stack, and the one who sends by it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        key = stack.api_key.secret
        self.client = Client(stack.api_url, key, retries=Retries(tries=1))
        self.patient_client = Client(stack.api_url, key, retries=_PATIENT)
        self.operator = Client(stack.api_url, stack.operator_key.secret)
        self._texts: set[str] = set()
        self._recipients = itertools.cycle(range(100, 1000))

    def close(self) -> None:
        self.client.close()
        self.patient_client.close()
        self.operator.close()

    # Sending

    def send(
        self, mode: str = PLAIN, *, patiently: bool = False, lines: int = 1, **what: Any
    ) -> Sent:
        """Send one message, each to another number; what is not answered with 202 fails the test.

        Args:
            mode: of the message.
            patiently: try again, with the same idempotency key, as long as it takes.
            lines: of its text, 32 characters each.
            **what: more of the request.
        """
        text = f"Disk full on db-1 ({uuid.uuid4().hex[:12]})" * lines
        self._texts.add(text)
        recipient = {"to": f"+447700900{next(self._recipients)}"}
        client = self.patient_client if patiently else self.client
        accepted = client.send(**(recipient | what), sender="AbilIT", body=text, mode=mode)
        return Sent(accepted.message_id, text, mode, accepted.replayed)

    def send_many(self, count: int, modes: Sequence[str] = MIXED, **what: Any) -> list[Sent]:
        """Send so many, some at once, of these modes in turns."""
        with self.sending(count, modes, **what) as load:
            pass
        return load.messages

    @contextmanager
    def sending(
        self, count: int, modes: Sequence[str] = MIXED, *, a_second: float = 60, **what: Any
    ) -> Iterator[Load]:
        """Send while the block runs; behind it all of them have been accepted."""
        load = Load()

        def one(number: int) -> Sent:
            time.sleep(max(0.0, began + number / a_second - time.monotonic()))
            return self.send(modes[number % len(modes)], **what)

        began = time.monotonic()
        with ThreadPoolExecutor(max_workers=_SENDERS) as threads:
            load.under_way = [threads.submit(one, number) for number in range(count)]
            try:
                yield load
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        load.messages = [each.result() for each in load.under_way]
        assert len({sent.message_id for sent in load.messages}) == count

    # What we know

    @staticmethod
    def ids(messages: Sequence[Sent]) -> list[UUID | None]:
        """As the database has them."""
        return [parse_id(IdPrefix.MESSAGE, sent.message_id) for sent in messages]

    def stories(self, messages: Sequence[Sent]) -> list[Story]:
        """What became of them, from the database itself."""
        by_id = dict(zip(self.ids(messages), messages, strict=True))
        rows = self.fetch(_MESSAGES, ids=list(by_id))
        assert len(rows) == len(messages), "a message that was accepted is not in the database"
        return [
            Story(
                message_id=by_id[row["id"]].message_id,
                text=by_id[row["id"]].text,
                mode=row["mode"],
                status=row["status"],
                reason=row["reason"],
                epoch=row["epoch"],
                attempts=tuple(
                    Attempt(a["provider"], a["status"], tuple(filter(None, a["ids"])))
                    for a in row["attempts"] or ()
                ),
                unknown=len(set(row["unknown"] or ())),
                kinds=Counter(row["kinds"]),
            )
            for row in rows
        ]

    def until(
        self, messages: Sequence[Sent], *statuses: str, within: float = _WITHIN
    ) -> list[Story]:
        """Wait until each of them has one of these statuses."""
        return self.until_so(messages, lambda story: story.status in statuses, within=within)

    def until_over(self, messages: Sequence[Sent], *, within: float = _WITHIN) -> list[Story]:
        """Wait until each is delivered, or unknown where no carrier has it: then nothing will come."""

        def over(story: Story) -> bool:
            if story.status == "unknown":
                return story.text not in {got.text for got in self.got(messages)}
            return story.status == "delivered"

        return self.until_so(messages, over, within=within)

    def until_so(
        self, messages: Sequence[Sent], so: Callable[[Story], bool], *, within: float = _WITHIN
    ) -> list[Story]:
        """Wait until something holds of each of them."""
        end = time.monotonic() + within
        while True:
            stories = self.stories(messages)
            late = next((story for story in stories if not so(story)), None)
            if late is None:
                return stories
            if time.monotonic() > end:
                summary = "\n".join(self.patient_client.explain(late.message_id).summary)
                found = dict(Counter(story.status for story in stories))
                pytest.fail(f"{found} after {within:g} s, of which one is:\n{summary}")
            time.sleep(0.1)

    def eventually(
        self,
        so: Callable[[], bool],
        what: str,
        *,
        within: float = _WITHIN,
        more: Callable[[], str] = str,
    ) -> None:
        """Wait until `so()` is true; the failure's text ends with `more()`."""
        end = time.monotonic() + within
        while not so():
            if time.monotonic() > end:
                pytest.fail(f"not so after {within:g} s: {what}{more()}")
            time.sleep(0.05)

    def fetch(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.stack.database_url, row_factory=dict_row) as connection:
            return connection.execute(statement, parameters).fetchall()

    # What the carriers know

    def got(self, messages: Sequence[Sent] | None = None) -> list[Got]:
        """What the carriers took, of these messages or of all."""
        texts = None if messages is None else {sent.text for sent in messages}
        return [
            Got(carrier, each["text"], tuple(part["message_id"] for part in each["parts"]))
            for carrier in _CARRIERS
            for each in self.ask(carrier, "GET", "/messages?limit=10000")
            if texts is None or each["text"] in texts
        ]

    def everything_was_sent_by_us(self) -> bool:
        """Whether the carriers have no text but those that were sent, in this test or before."""
        return {got.text for got in self.got()} <= self._texts

    def whole_texts(self) -> set[str]:
        """Texts that a carrier has to the last part."""
        return {
            each["text"]
            for carrier in _CARRIERS
            for each in self.ask(carrier, "GET", "/messages?limit=10000")
            if each["complete"]
        }

    def counts(self, carrier: str = "primary") -> Mapping[str, Any]:
        counts: Mapping[str, Any] = self.ask(carrier, "GET", "/counts")
        return counts

    def steer(self, path: str, carrier: str = "primary", /, **what: Any) -> Any:
        """Send a command to a carrier: `steer("/reset", after_pdus=3)`."""
        return self.ask(carrier, "POST", path, what)

    def behave(self, carrier: str = "primary", /, **behaviour: Any) -> None:
        """How a carrier treats messages from now on; without words, as usual."""
        self.ask(carrier, "PUT", "/behaviour", behaviour)

    def release_receipts(self, held: int) -> None:
        """Let the primary send the receipts that it holds, once it holds so many."""
        self.eventually(
            lambda: self.ask("primary", "GET", "/state")["receipts_held"] >= held,
            f"{held} receipts are held",
        )
        self.steer("/receipts/release")

    def ask(self, carrier: str, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - a simulator of ours
            self.stack.control_urls[carrier] + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - see above
            said = response.read()
        return json.loads(said) if said else None

    # Killing

    def dies_at(self, point: Point, *, nth: int = 1, program: str = "worker") -> None:
        """Let the worker, or the API, kill itself when it next comes there for the `nth` time."""
        self.stack.orders.write_text(json.dumps({"point": point, "nth": nth}))
        os.kill(self.stack.child(program).pid, signal.SIGUSR1)

    def until_dead(self, program: str = "worker") -> None:
        """Wait until it has killed itself."""
        child = self.stack.child(program)
        self.eventually(
            lambda: not child.running,
            f"{program} has killed itself",
            more=lambda: f"; its log ends:\n{child.log_tail(60)}",
        )
        {"worker": self.stack.kill_worker, "api": self.stack.kill_api}[program]()  # as expected

    def providers_are_up(self, *names: str) -> None:
        """Wait until a living worker has all its binds to them, by default to all."""
        wanted = frozenset(names or ("primary", "backup", "hasty", OVER_HTTP))

        def up() -> bool:
            found = {p.name for p in self.patient_client.providers() if p.state == "up"}
            return wanted <= found

        self.eventually(up, f"{sorted(wanted)} are up")

    def tidy(self) -> None:
        """Everything runs and behaves as usual; nothing of what the carriers have is of before."""
        self.stack.start_what_is_down()
        for carrier in _CARRIERS:
            self.steer("/outage", carrier, on=False)
            self.steer("/throttle", carrier)
            self.behave(carrier)
            self.steer("/receipts/release", carrier)
        self.steer("/twilio/outage", OVER_HTTP, on=False)
        self.steer("/twilio/throttle", OVER_HTTP)
        self.ask(OVER_HTTP, "PUT", "/twilio/behaviour", {})
        self.providers_are_up()
        for carrier in _CARRIERS:
            self.ask(carrier, "DELETE", "/messages")
        self.ask(OVER_HTTP, "DELETE", "/twilio/messages")


_MESSAGES: Final = """
SELECT m.id, m.mode, m.status, m.reason, m.epoch,
       (SELECT array_agg(e.kind) FROM events e WHERE e.message_id = m.id) AS kinds,
       (SELECT array_agg(e.attempt) FROM events e
        WHERE e.message_id = m.id AND e.kind = 'moved' AND e.status = 'unknown') AS unknown,
       (SELECT json_agg(json_build_object(
                   'provider', a.provider, 'status', a.status,
                   'ids', (SELECT json_agg(p.provider_message_id ORDER BY p.number) FROM all_parts p
                           WHERE p.message_id = a.message_id AND p.attempt = a.number
                             AND p.status IS NOT NULL))
               ORDER BY a.number)
        FROM attempts a WHERE a.message_id = m.id) AS attempts
FROM messages m WHERE m.id = ANY(%(ids)s)
"""


@dataclass(frozen=True, slots=True)
class Tally:
    """The figures of one failure."""

    messages: int
    kills: int
    unknown: int
    duplicates: int
    by_status: Mapping[str, int]

    def __str__(self) -> str:
        return (
            f"{self.messages} messages, {self.kills} kills, {self.unknown} unknown, "
            f"{self.duplicates} duplicates, {dict(self.by_status)}"
        )


def assert_nothing_lost(
    gateway: Gateway, messages: Sequence[Sent], *, kills: int, most_unknown: int = MOST_IN_DOUBT
) -> Tally:
    """Nothing lost, few unknown, no more sent twice than was unknown; the carriers agree.

    Args:
        gateway: whose carriers have not forgotten anything of these messages.
        messages: all that were accepted while things were killed.
        kills: how often something was killed.
        most_unknown: how many attempts may be unknown for each of those.
    """
    stories = gateway.stories(messages)
    got = gateway.got(messages)
    assert gateway.everything_was_sent_by_us(), "a carrier got what nobody sent"
    unknown = sum(story.unknown for story in stories)
    copies = Counter(each.text for each in got)
    duplicates = sum(count - 1 for count in copies.values())
    tally = Tally(
        messages=len(messages),
        kills=kills,
        unknown=unknown,
        duplicates=duplicates,
        by_status=Counter(story.status for story in stories),
    )
    print(tally)  # noqa: T201 - figures for people: pytest -rP
    assert unknown <= kills * most_unknown, tally
    assert duplicates <= unknown, tally
    for story in stories:
        unknown = story.unknown > 0
        assert story.status == "delivered" or unknown, story
        assert copies[story.text] or unknown, story
        assert copies[story.text] <= 1 + story.unknown, story
        assert story.status == "delivered" or story.mode != ALERT, story
    _assert_books_agree(stories, got, unknown)
    return tally


def _assert_books_agree(stories: Sequence[Story], got: Sequence[Got], unknown: int) -> None:
    """What we hold an id for the carrier has, and the other way but for what was unknown."""
    ours = Counter(id_ for story in stories for a in story.attempts for id_ in a.ids)
    theirs = Counter(id_ for each in got for id_ in each.ids)
    assert set(ours) <= set(theirs), "a carrier does not know what it is said to have accepted"
    assert max(ours.values(), default=1) == 1, "two attempts claim the same message of a carrier"
    only_theirs = set(theirs) - set(ours)
    assert len(only_theirs) <= unknown, "a carrier has what we know nothing of"
