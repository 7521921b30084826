"""Every log call and span of the project, read from its source: constants and listed keys only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.logs import is_event
from telemetry.redaction import ALLOWED

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "activities", "api", "connectors", "domain", "local", "providers", "services", "settings",
    "simulator", "smpp", "store", "telemetry", "workers", "workflows",
)  # fmt: skip
METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
OWN_ARGUMENTS = {
    "span": {"parent", "kind"},
    "log_context": set(),
    "annotate": set(),
    "bind": set(),
    "log": {"exc_info"},
}
# These define what the others call.
DEFINERS = {"telemetry/http.py", "telemetry/tracing.py", "telemetry/logs.py"}
FILES = sorted(
    path.relative_to(ROOT)
    for package in (*PACKAGES, "worker.py")
    for path in ([ROOT / package] if package.endswith(".py") else (ROOT / package).rglob("*.py"))
    if path.exists()
)


def loggers_of(tree: ast.Module) -> set[str]:
    """Names that a module gives to loggers of ours, such as `_log`."""
    return {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func).endswith("get_logger")
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def complaints(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    loggers = loggers_of(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        name, _, method = called.rpartition(".")
        where = f"line {node.lineno}, {called}"
        if name.split(".")[-1] in loggers and method in METHODS:
            yield from _about_event(node, where)
            yield from _about_keys(node, where, OWN_ARGUMENTS["log"])
        elif called in {"span", "log_context", "annotate"}:
            yield from _about_keys(node, where, OWN_ARGUMENTS[called])
        if called == "span" and not isinstance(node.args[0], ast.Constant):
            yield f"{where}: a span's name is a constant"


def _about_event(node: ast.Call, where: str) -> Iterator[str]:
    event = node.args[0] if node.args else None
    literal = isinstance(event, ast.Constant) and isinstance(event.value, str)
    if not literal or not is_event(event.value) or len(node.args) > 1:
        yield f"{where}: the event is one constant in snake case"


def _about_keys(node: ast.Call, where: str, own: set[str]) -> Iterator[str]:
    for keyword in node.keywords:
        # What comes by ** is not seen here; it is held back when it is logged.
        if keyword.arg is not None and keyword.arg not in own and keyword.arg not in ALLOWED:
            yield f"{where}: the key {keyword.arg} is not listed in telemetry/redaction.py"


@pytest.mark.parametrize("path", [file for file in FILES if str(file) not in DEFINERS], ids=str)
def test_logs_and_spans_are_made_of_constants_and_listed_keys(path):
    assert list(complaints((ROOT / path).read_text())) == []


@pytest.mark.parametrize("path", [f for f in FILES if f.parts[0] != "telemetry"], ids=str)
def test_only_telemetry_knows_the_standard_loggers(path):
    assert "logging.getLogger" not in (ROOT / path).read_text(), "use telemetry.logs.get_logger"


@pytest.mark.parametrize(
    "line",
    [
        'log.info(f"sent {x}")',
        "log.info(event)",
        'log.info("Sent it")',
        'log.info("sent", body=x)',
        'log.info("sent %s", x)',
        'self.log.error("x y")',
        'span(f"a {x}")',
        'span("a", to=x)',
        "log_context(number=x)",
    ],
)
def test_the_reader_finds_what_is_wrong(line):
    assert list(complaints(f"log = get_logger(__name__)\n{line}\n"))
