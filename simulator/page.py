"""The control page: one HTML document without assets from anywhere, with each carrier of the process."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from simulator.behaviour import TEST_NUMBERS
from simulator.twilio_behaviour import TWILIO_NUMBERS

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #1c1e21; background: #fff }
body.two { max-width: 110rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
main { display: grid; gap: 0 3rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)) }
section { min-width: 0 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #dcdfe3;
  vertical-align: top }
td.text { white-space: pre-wrap; overflow-wrap: anywhere }
pre { background: #f3f4f6; padding: .75rem; overflow: auto }
button, input { font: inherit; padding: .2rem .6rem; margin: 0 .4rem .4rem 0 }
textarea { font: 13px ui-monospace, monospace; width: 100%; height: 6rem; box-sizing: border-box }
.down { color: #a40000; font-weight: 600 }
@media (prefers-color-scheme: dark) {
  body { color: #e4e6eb; background: #18191a } pre { background: #26282b }
  th, td { border-color: #3a3d41 } .down { color: #ff8080 } a { color: #8ab4ff } }
"""

_SCRIPT = """
const said = document.getElementById("said");
async function ask(method, path, body) {
  const response = await fetch(path, {method, headers: {"Content-Type": "application/json"},
    body: body === undefined ? undefined : JSON.stringify(body)});
  if (response.ok) { location.reload(); return; }
  said.textContent = (await response.json()).detail;
}
for (const button of document.querySelectorAll("button[data-path]")) {
  button.addEventListener("click", () => ask(button.dataset.method, button.dataset.path,
    button.dataset.body ? JSON.parse(button.dataset.body) : undefined));
}
for (const form of document.querySelectorAll("form.mo")) {
  form.addEventListener("submit", event => {
    event.preventDefault();
    const filled = [...new FormData(form)].filter(([, value]) => value !== "");
    ask("POST", form.dataset.path, Object.fromEntries(filled));
  });
}
for (const form of document.querySelectorAll("form.behaviour")) {
  form.addEventListener("submit", event => {
    event.preventDefault();
    try { ask("PUT", form.dataset.path, JSON.parse(form.elements.json.value)); }
    catch (error) { said.textContent = "The behaviour is not JSON: " + error.message; }
  });
}
"""

_SLOW = 5
"""Seconds before each response, after a click on the button that makes a carrier slow."""

_Action = tuple[str, str, str, Mapping[str, Any]]
"""What a button says, and its request: method, path and body."""


@dataclass(frozen=True, slots=True)
class CarrierView:
    """One carrier as the JSON endpoints show it, its messages newest first."""

    state: Mapping[str, Any]
    counts: Mapping[str, Any]
    messages: Sequence[Mapping[str, Any]]


def render(
    *,
    smsc: CarrierView | None,
    twilio: CarrierView | None,
    others: Mapping[str, str],
    nonce: str,
) -> str:
    """The page of one carrier or of two side by side; `others` are the pages of further ones, by name."""
    sections = [
        *([_smsc(smsc)] if smsc else ()),
        *([_twilio(twilio)] if twilio else ()),
    ]
    names = " and ".join(
        [
            *([f"SMSC {escape(str(smsc.state['name']))}"] if smsc else ()),
            *([f"Twilio {escape(str(twilio.state['name']))}"] if twilio else ()),
        ]
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{names}</title>
<style nonce="{nonce}">{_STYLE}</style>
<body{' class="two"' if len(sections) > 1 else ""}>
{_links(others)}
<p id="said" class="down" role="status"></p>
<main>{"".join(f"<section>{section}</section>" for section in sections)}</main>
<h2>Test numbers</h2>
<p>The last two digits decide; the same ones at the end of +12015550<b>1xx</b> and
+336399800<b>xx</b> mean the same.</p>
{_numbers(smsc is not None, twilio is not None)}
<script nonce="{nonce}">{_SCRIPT}</script>
</body>
</html>
"""  # fmt: skip


def _smsc(view: CarrierView) -> str:
    state = view.state
    up = _up(state["outage"])
    return f"""
<h1>SMSC {escape(str(state["name"]))}</h1>
<p>SMPP 3.4 on port {escape(str(state["port"]))}, {up}.
{len(state["binds"])} bound, {state["waiting_for_an_esme"]} deliveries wait for an ESME,
{state["receipts_held"]} receipts held.</p>
<p>{_buttons(_smsc_actions(state))}</p>
<h2>Binds</h2>
{_table(("System id", "Bind", "Peer"),
        ((b["system_id"], b["bind_type"], b["peer"]) for b in state["binds"]))}
<h2>Counts</h2>
{_table(("What", "How often"), _count_rows(view.counts))}
<h2>Behaviour of other numbers than those below</h2>
{_behaviour(state, "")}
<h2>Send a message from a phone</h2>
<form class="mo" data-path="/mo">
<input name="source" placeholder="+447700900123" aria-label="From" required>
<input name="destination" placeholder="to" aria-label="To" required>
<input name="text" placeholder="text" aria-label="Text" size="40" required>
<input name="system_id" placeholder="system_id, if several" aria-label="System id">
<button>Send</button></form>
<h2>Last messages</h2>
{_table(("From", "To", "Text", "Parts", "States"), map(_smsc_message, view.messages))}
"""  # fmt: skip


def _twilio(view: CarrierView) -> str:
    state = view.state
    return f"""
<h1>Twilio {escape(str(state["name"]))}</h1>
<p>Messages API (HTTP) at {escape(str(state["url"]).removeprefix("http://"))}, account
{escape(str(state["account_sid"]))}, {_up(state["outage"])}.
{state["connections"]} connected, {state["callbacks_held"]} callbacks held.</p>
<p>{_buttons(_twilio_actions(state))}</p>
<h2>Counts</h2>
{_table(("What", "How often"), _count_rows(view.counts))}
<h2>Behaviour of other numbers than those below</h2>
{_behaviour(state, "/twilio")}
<h2>Last messages</h2>
{_table(("From", "To", "Text", "Segments", "Status", "Signed callbacks"),
        map(_twilio_message, view.messages))}
"""  # fmt: skip


def _up(outage: str | None) -> str:
    return f'<span class="down">down ({escape(outage)})</span>' if outage else "up"


def _links(others: Mapping[str, str]) -> str:
    if not others:
        return ""
    links = " · ".join(
        f'<a href="{escape(url)}">{escape(name)}</a>' for name, url in others.items()
    )
    return f"<nav>Other carriers: {links}</nav>"


def _behaviour(state: Mapping[str, Any], prefix: str) -> str:
    written = escape(json.dumps(state["behaviour"], indent=1))
    return f"""<form class="behaviour" data-path="{prefix}/behaviour">
<textarea name="json" spellcheck="false" aria-label="Behaviour as JSON">{written}</textarea>
<button>Set</button></form>"""


def _numbers(smsc: bool, twilio: bool) -> str:
    heads = [*(["What an SMSC does"] if smsc else ()), *(["What Twilio does"] if twilio else ())]
    rows = (
        (
            f"+4477009000{digits}",
            *([TEST_NUMBERS[digits].meaning] if smsc else ()),
            *([TWILIO_NUMBERS[digits].meaning] if twilio else ()),
        )
        for digits in sorted(TEST_NUMBERS)
    )
    return _table(("Number", *heads), rows)


def _smsc_actions(state: Mapping[str, Any]) -> Iterable[_Action]:
    if state["outage"]:
        yield ("Come back", "POST", "/outage", {"on": False})
    else:
        yield ("Stop listening", "POST", "/outage", {"on": True})
        yield ("Refuse binds", "POST", "/outage", {"on": True, "kind": "refuses_binds"})
    yield from _usual_actions(state, "")


def _twilio_actions(state: Mapping[str, Any]) -> Iterable[_Action]:
    down = bool(state["outage"])
    label = "Come back" if down else "Stop listening"
    yield (label, "POST", "/twilio/outage", {"on": not down})
    yield from _usual_actions(state, "/twilio")


def _usual_actions(state: Mapping[str, Any], prefix: str) -> Iterable[_Action]:
    slow = bool(state["behaviour"]["latency"])
    latency = 0 if slow else _SLOW
    label = "Respond at once" if slow else f"Respond after {_SLOW} s"
    yield (label, "PUT", f"{prefix}/behaviour", {**state["behaviour"], "latency": latency})
    yield ("Reset connections", "POST", f"{prefix}/reset", {})
    yield ("Throttle the next 10", "POST", f"{prefix}/throttle", {"next": 10})
    yield ("Release held receipts", "POST", f"{prefix}/receipts/release", {})
    yield ("Forget messages", "DELETE", f"{prefix}/messages", {})


def _buttons(actions: Iterable[_Action]) -> str:
    return "".join(
        f'<button data-method="{method}" data-path="{path}"'
        f' data-body="{escape(json.dumps(body))}">{label}</button>'
        for label, method, path, body in actions
    )


def _count_rows(counts: Mapping[str, Any]) -> Iterable[tuple[Any, ...]]:
    for what, count in counts.items():
        if isinstance(count, Mapping):
            yield from ((f"{what}: {name}", number) for name, number in sorted(count.items()))
        else:
            yield what.replace("_", " "), count


def _smsc_message(message: Mapping[str, Any]) -> tuple[Any, ...]:
    parts = message["parts"]
    return (
        message["source"],
        message["destination"],
        message["text"],
        f"{len(parts)} of {message['total_parts']}",
        ", ".join(part["state"] for part in parts),
    )


def _twilio_message(message: Mapping[str, Any]) -> tuple[Any, ...]:
    error = message["error_code"]
    return (
        message["from"],
        message["to"],
        message["text"],
        message["segments"],
        message["status"] if error is None else f"{message['status']} ({error})",
        ", ".join(
            f"{callback['status']}: {callback['response'] or 'no response'}"
            for callback in message["callbacks"]
        ),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    cells = "".join(
        "<tr>" + "".join(f'<td class="text">{escape(str(cell))}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    titles = "".join(f"<th>{title}</th>" for title in head)
    return f"<table><tr>{titles}</tr>{cells}</table>" if cells else "<p>None.</p>"
