"""The control page: one HTML document without assets from anywhere."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from simulator.behaviour import NumberMeaning

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #1c1e21; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #dcdfe3;
  vertical-align: top }
td.text { white-space: pre-wrap; overflow-wrap: anywhere }
pre { background: #f3f4f6; padding: .75rem; overflow: auto }
button, input { font: inherit; padding: .2rem .6rem; margin: 0 .4rem .4rem 0 }
textarea { font: 13px ui-monospace, monospace; width: 100%; height: 6rem }
.down { color: #a40000; font-weight: 600 }
@media (prefers-color-scheme: dark) {
  body { color: #e4e6eb; background: #18191a } pre { background: #26282b }
  th, td { border-color: #3a3d41 } .down { color: #ff8080 } }
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
document.getElementById("mo").addEventListener("submit", event => {
  event.preventDefault();
  const filled = [...new FormData(event.target)].filter(([, value]) => value !== "");
  ask("POST", "/mo", Object.fromEntries(filled));
});
document.getElementById("behaviour").addEventListener("submit", event => {
  event.preventDefault();
  try { ask("PUT", "/behaviour", JSON.parse(event.target.elements.json.value)); }
  catch (error) { said.textContent = "The behaviour is not JSON: " + error.message; }
});
"""


def render(
    *,
    state: Mapping[str, Any],
    counts: Mapping[str, Any],
    messages: Sequence[Mapping[str, Any]],
    numbers: Mapping[str, NumberMeaning],
    nonce: str,
) -> str:
    """The page; `state`, `counts` and `messages` as the JSON endpoints have them, newest first."""
    name = escape(str(state["name"]))
    outage = state["outage"]
    up = f'<span class="down">down ({escape(str(outage))})</span>' if outage else "up"
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SMSC {name}</title>
<style nonce="{nonce}">{_STYLE}</style>
<h1>SMSC {name}</h1>
<p>SMPP 3.4 on port {escape(str(state["port"]))}, {up}.
{len(state["binds"])} bound, {state["waiting_for_an_esme"]} deliveries wait for an ESME,
{state["receipts_held"]} receipts held.</p>
<p>{_buttons(bool(outage))}</p>
<p id="said" class="down" role="status"></p>
<h2>Binds</h2>
{_table(("System id", "Bind", "Peer"),
        ((b["system_id"], b["bind_type"], b["peer"]) for b in state["binds"]))}
<h2>Counts</h2>
{_table(("What", "How often"), _count_rows(counts))}
<h2>Behaviour of other numbers than those below</h2>
<form id="behaviour">
<textarea name="json" spellcheck="false" aria-label="Behaviour as JSON">{
    escape(json.dumps(state["behaviour"], indent=1))}</textarea>
<button>Set</button></form>
<h2>Test numbers</h2>
<p>The last two digits decide; the same ones at the end of +12015550<b>1xx</b> and
+336399800<b>xx</b> mean the same.</p>
{_table(("Number", "What happens"),
        ((f"+4477009000{digits}", n.meaning) for digits, n in sorted(numbers.items())))}
<h2>Send a message from a phone</h2>
<form id="mo">
<input name="source" placeholder="+447700900123" aria-label="From" required>
<input name="destination" placeholder="to" aria-label="To" required>
<input name="text" placeholder="text" aria-label="Text" size="40" required>
<input name="system_id" placeholder="system_id, if several" aria-label="System id">
<button>Send</button></form>
<h2>Last messages</h2>
{_table(("From", "To", "Text", "Parts", "States"), map(_message_row, messages))}
<script nonce="{nonce}">{_SCRIPT}</script>
</html>
"""  # fmt: skip


def _buttons(down: bool) -> str:
    outage = (
        [("Come back", "POST", "/outage", {"on": False})]
        if down
        else [
            ("Stop listening", "POST", "/outage", {"on": True}),
            ("Refuse binds", "POST", "/outage", {"on": True, "kind": "refuses_binds"}),
        ]
    )
    actions: list[tuple[str, str, str, Mapping[str, Any]]] = [
        *outage,
        ("Reset connections", "POST", "/reset", {}),
        ("Throttle the next 10", "POST", "/throttle", {"next": 10}),
        ("Release held receipts", "POST", "/receipts/release", {}),
        ("Forget messages", "DELETE", "/messages", {}),
    ]
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


def _message_row(message: Mapping[str, Any]) -> tuple[Any, ...]:
    parts = message["parts"]
    return (
        message["source"],
        message["destination"],
        message["text"],
        f"{len(parts)} of {message['total_parts']}",
        ", ".join(part["state"] for part in parts),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    cells = "".join(
        "<tr>" + "".join(f'<td class="text">{escape(str(cell))}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    titles = "".join(f"<th>{title}</th>" for title in head)
    return f"<table><tr>{titles}</tr>{cells}</table>" if cells else "<p>None.</p>"
