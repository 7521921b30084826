"""`make demo`: the main job, done through the REST API on the embedded stack, in eight situations.

The configuration is that of `make run`, with the gateway's own deadlines: what takes a minute takes a
minute here, while the other situations go on. Each message's timeline is printed; the demo succeeds
only if every message ended where it should.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from smsgateway import Accepted, Client, Explanation, GatewayError

from local.folders import temporary_folder
from local.postgres import PostgresUnavailable
from local.processes import ChildEnded
from local.stack import Stack, StackFailed
from local.temporal import TemporalUnavailable

# Documented test numbers: they belong to nobody.
PLAIN: Final = "+447700900123"
LONG: Final = "+447700900124"
REFUSED: Final = "+447700900125"
SILENT: Final = "+447700900126"
FAILING: Final = "+447700900127"
STOPPED: Final = "+447700900128"
OUTAGE: Final = "+447700900129"
AMERICAN: Final = "+12015550190"
AMERICAN_SENDER: Final = "+12015550191"

_PATIENCE: Final = 120.0
_ACKNOWLEDGED: Final = 204
_WIDTH: Final = 110


@dataclass(frozen=True, slots=True)
class Ending:
    """How a situation ended, and whether as it should."""

    title: str
    explanation: Explanation
    mistakes: tuple[str, ...]
    note: str = ""
    """A sentence that is shown below the timeline."""


class DemoFailed(Exception):
    """A situation did not come about; the text says which and how."""


class Demo:
    """The eight situations."""

    def __init__(self, stack: Stack, client: Client, console: Console) -> None:
        self._stack = stack
        self._client = client
        self._console = console

    def run(self) -> list[Ending]:
        """All of them, each with its timeline as soon as it has ended."""
        silent = self._send_to_silence()
        situations: list[Callable[[], Ending]] = [
            self.plain,
            self.long,
            self.refused,
            self.failing,
            self.outage,
            self.over_http,
            self.temporal_stopped,
            lambda: self.silent(silent),
        ]
        endings = []
        for situation in situations:
            ending = situation()
            self._show(ending)
            endings.append(ending)
        return endings

    def plain(self) -> Ending:
        message = self._send(PLAIN, "Your table is booked for 19:30.")
        return self._ended("(a) a plain message", message, provider="primary")

    def long(self) -> Ending:
        body = "🔥 The kitchen is on fire, please leave the building by the nearest exit. " * 3
        message = self._send(LONG, body)
        ending = self._ended("(b) a long message with emoji", message, provider="primary")
        parts = ending.explanation.attempts[-1].parts
        delivered = [part.number for part in parts if part.receipt_state == "delivered"]
        if len(parts) < 2 or len(delivered) != len(parts):  # noqa: PLR2004 - several parts
            return _with(ending, f"{len(delivered)} of {len(parts)} parts were delivered")
        return ending

    def refused(self) -> Ending:
        self._steer("primary", "PUT", f"/behaviour/{REFUSED}", {"response": "refuse"})
        message = self._send(REFUSED, "Your parcel is here.")
        title = "(c) one that the primary SMSC refuses"
        return self._ended(title, message, provider="backup", before=("primary", "refused"))

    def failing(self) -> Ending:
        failing = {"response": "refuse", "status": "ESME_RSYSERR"}
        for name in ("primary", "backup"):
            self._steer(name, "PUT", f"/behaviour/{FAILING}", failing)
        message = self._send(FAILING, "Our sale begins today.", mode="promotional")
        self._until(message, "dead_letter")
        for name in ("primary", "backup"):
            self._steer(name, "DELETE", f"/behaviour/{FAILING}")
        self._smsctl("dlq", "replay", message.message_id)
        title = "(d) one that no provider takes for ten seconds: a dead letter, replayed"
        ending = self._ended(title, message)
        if "replayed" not in {event.kind for event in ending.explanation.events}:
            return _with(ending, "it was never replayed")
        return ending

    def outage(self) -> Ending:
        self._outage(on=True)
        message = self._send(OUTAGE, "Your parcel is at the door.")
        before = self._client.message(message.message_id).status
        self._outage(on=False)
        title = "(e) one with every provider of its route down: it waits for them"
        ending = self._ended(title, message)
        return ending if before == "queued" else _with(ending, f"it was {before} in the outage")

    def over_http(self) -> Ending:
        self._steer("primary", "POST", "/outage", {"on": True})
        self._providers_are("down", {"primary"})
        message = self._send(
            AMERICAN, "Your flight leaves from gate 12.", sender=AMERICAN_SENDER, mode="alert"
        )
        title = "(f) one to the United States while its SMSC is stopped: over HTTP, by Twilio's API"
        ending = self._ended(title, message, provider="twilio_simulator")
        self._steer("primary", "POST", "/outage", {"on": False})
        receipt = self._signed_receipt()
        if receipt is None:
            return _with(ending, "the carrier sent no signed receipt")
        note = (
            f"Its receipt: MessageStatus={receipt['status']}, X-Twilio-Signature:"
            f" {receipt['signature']}; the gateway has answered it with {receipt['response']}."
        )
        return replace(ending, note=note)

    def _signed_receipt(self) -> dict[str, Any] | None:
        """The acknowledged callback that delivered the last message of the HTTP carrier."""
        [message] = self._read("twilio_simulator", "/twilio/messages?limit=1")
        for callback in message["callbacks"]:
            if callback["status"] == "delivered" and callback["response"] == _ACKNOWLEDGED:
                return dict(callback)
        return None

    def temporal_stopped(self) -> Ending:
        self._stack.stop_temporal()
        message = self._send(STOPPED, "Your code is on its way.")
        title = "(g) one accepted while Temporal is stopped"
        before = self._client.message(message.message_id).status
        self._stack.start_temporal()
        ending = self._ended(title, message)
        return ending if before == "queued" else _with(ending, f"it was {before} without Temporal")

    def _send_to_silence(self) -> Accepted:
        """The message of `silent`, a minute before that is over."""
        self._steer("primary", "PUT", f"/behaviour/{SILENT}", {"receipts": []})
        return self._send(SILENT, "Disk full on db-1.", mode="alert")

    def silent(self, message: Accepted) -> Ending:
        self._console.print("[dim]· the alert's receipt is waited for, a minute in all")
        title = "(h) an alert whose receipt never comes from the primary"
        return self._ended(title, message, provider="backup", before=("primary", "expired"))

    def _send(self, to: str, body: str, *, sender: str = "Acme", **what: Any) -> Accepted:
        return self._client.send(to=to, sender=sender, body=body, **what)

    def _ended(
        self,
        title: str,
        message: Accepted,
        *,
        provider: str | None = None,
        before: tuple[str, str] | None = None,
    ) -> Ending:
        """Wait for the end; it should be delivered, by `provider`, after the attempt `before`."""
        self._until(message, "delivered")
        explanation = self._client.explain(message.message_id)
        tried = [(attempt.provider, attempt.status) for attempt in explanation.attempts]
        mistakes = []
        if provider is not None and tried[-1:] != [(provider, "delivered")]:
            mistakes.append(f"it was not delivered by {provider}")
        if before is not None and tried[:1] != [before]:
            mistakes.append(f"{before[0]} had not {before[1]} it first")
        return Ending(title, explanation, tuple(mistakes))

    def _until(self, message: Accepted, status: str) -> None:
        end = time.monotonic() + _PATIENCE
        while (found := self._client.message(message.message_id).status) != status:
            self._stack.check()
            if time.monotonic() > end:
                story = "\n".join(self._client.explain(message.message_id).summary)
                raise DemoFailed(f"{message.message_id} is {found}, not {status}:\n{story}")
            time.sleep(0.1)

    def _outage(self, *, on: bool) -> None:
        for name in ("primary", "backup"):
            self._steer(name, "POST", "/outage", {"on": on})
        if on:
            self._providers_are("down", {"primary", "backup"})

    def _providers_are(self, state: str, names: Collection[str]) -> None:
        end = time.monotonic() + _PATIENCE
        while not all(
            provider.state == state
            for provider in self._client.providers()
            if provider.name in names
        ):
            if time.monotonic() > end:
                raise DemoFailed(f"{' and '.join(sorted(names))} did not become {state}")
            time.sleep(0.1)

    def _steer(
        self, simulator: str, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> None:
        request = urllib.request.Request(  # noqa: S310 - a simulator of ours
            self._stack.control_urls[simulator] + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=5).close()  # noqa: S310 - see above

    def _read(self, simulator: str, path: str) -> Any:
        url = self._stack.control_urls[simulator] + path
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - see above
            return json.load(response)

    def _smsctl(self, *arguments: str) -> None:
        command = [str(Path(sys.executable).with_name("smsctl")), *arguments]
        self._console.print(f"[dim]$ smsctl {' '.join(arguments)}")
        access = {"SMSCTL_API": self._stack.api_url, "SMSCTL_KEY": self._stack.api_key.secret}
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=os.environ | access
        )
        if done.returncode != 0:
            raise DemoFailed(f"smsctl ended with {done.returncode}: {done.stderr.strip()}")
        self._console.print(done.stdout.rstrip(), highlight=False)

    def _show(self, ending: Ending) -> None:
        message = ending.explanation.message
        table = Table(title=f"{ending.title}: {message.status}", title_justify="left", expand=True)
        for heading in ("after", "what", "from", "to", "provider", "code", "why"):
            table.add_column(heading)
        for event in ending.explanation.events:
            after = (event.at - message.accepted_at).total_seconds()
            table.add_row(
                f"{after:7.3f} s",
                event.kind,
                event.previous,
                event.status,
                event.provider,
                event.code,
                event.reason,
            )
        self._console.print(table)
        for sentence in ending.explanation.summary:
            self._console.print(f"  {sentence}", highlight=False)
        if ending.note:
            self._console.print(f"  {ending.note}", highlight=False)
        for mistake in ending.mistakes:
            self._console.print(f"  [red]Not as it should be: {mistake}.")
        self._console.print()


def _with(ending: Ending, mistake: str) -> Ending:
    return replace(ending, mistakes=(*ending.mistakes, mistake))


def demo() -> int:
    """Do the main job in eight situations; 0 only if every message ended where it should."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    began = time.monotonic()
    with temporary_folder() as folder:
        stack = Stack(
            folder,
            own_servers=True,
            progress=lambda sentence: console.print(f"· {sentence}", highlight=False),
        )
        try:
            with stack, Client(stack.api_url, stack.api_key.secret) as client:
                console.print(f"· ready after {time.monotonic() - began:.1f} s\n")
                endings = Demo(stack, client, console).run()
        except (
            *(DemoFailed, GatewayError, StackFailed, ChildEnded, TimeoutError),
            *(PostgresUnavailable, TemporalUnavailable),
        ) as failure:
            console.print(f"The demo has failed. {failure}", highlight=False, markup=False)
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            stack.remove()
    bad = sum(bool(ending.mistakes) for ending in endings)
    took = time.monotonic() - began
    console.print(
        f"{len(endings) - bad} of {len(endings)} messages ended where they should, in {took:.0f} s."
    )
    return 1 if bad else 0
