"""Tables and lists in the documentation and in smsctl have what the code has, and nothing else."""

import ast
import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Final

import pytest
import smsgateway
from smsctl.commands.key import SCOPES
from smsctl.sentences import CODES, REASONS
from smsgateway import models

from api.problems import KINDS
from api.webhooks import ReceiptStatus
from domain.callbacks.events import CALLBACK_STATUSES, CallbackState
from domain.configuration.names import Environment
from domain.delivery import Reason
from domain.error_classes import ErrorClass
from domain.modes import Mode, Priority
from domain.provider_codes.smpp import SMPP_STATUSES
from domain.states import MessageStatus, Verdict, fold_message
from services.keys import Scope
from telemetry import metrics

CHECKOUT: Final = Path(__file__).parents[1]
NOT_OF_MESSAGES: Final = {Reason.SUPERSEDED}


def first_cells(page: str, heading: str) -> list[str]:
    """What stands in backticks in the first cells of the table with this heading."""
    text = (CHECKOUT / "docs" / page).read_text()
    found = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert found, f"docs/{page} has no table whose first column is {heading!r}"
    rows = [line.split(" | ")[0] for line in found[1].splitlines()]
    return [each for row in rows for each in re.findall(r"`([^`]+)`", row)]


def refusals() -> set[str]:
    """The reasons of errors in the fields of a request, as literals of the code name them."""
    literals: set[str] = set()
    for package in ("api", "services"):
        for path in (CHECKOUT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    literals.add(node.value)
    return literals


def of_kinds() -> list[str]:
    return [kind.slug for kind in KINDS]


@pytest.mark.parametrize(
    ("page", "heading", "values"),
    [
        ("delivery.md", "status", MessageStatus),
        ("delivery.md", "reason", set(Reason) - NOT_OF_MESSAGES),
        ("delivery.md", "class", ErrorClass),
        ("delivery.md", "mode", Mode),
        ("callbacks.md", "status", {status.value.upper() for status in CALLBACK_STATUSES}),
        ("api.md", "scope", Scope),
        ("problems.md", "type", of_kinds()),
    ],
)
def test_a_table_has_every_value_once_and_no_other(
    page: str, heading: str, values: Iterable[str]
) -> None:
    assert sorted(first_cells(page, heading)) == sorted(map(str, values))


def test_the_page_of_metrics_has_no_metric_that_nothing_counts() -> None:
    counted = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in metrics.REGISTRY.collect()
        if family.name.startswith("smsgateway_")
    }
    assert set(first_cells("metrics.md", "Metric")) == counted


def test_the_page_of_problems_has_no_reason_that_no_request_gets() -> None:
    assert set(first_cells("problems.md", "reason")) <= refusals()


def test_the_page_of_the_api_lists_every_status_of_a_receipt() -> None:
    text = (CHECKOUT / "docs/api.md").read_text()
    [line] = re.findall(r"^- `status` is (.*)$", text, re.MULTILINE)
    assert set(re.findall(r"`([A-Z_]+)`", line)) == {
        status.value.upper() for status in ReceiptStatus
    }


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (smsgateway.MessageStatus, MessageStatus),
        (smsgateway.Mode, Mode),
        (smsgateway.Priority, Priority),
        (smsgateway.Environment, Environment),
        (models.CallbackState, CallbackState),
    ],
)
def test_the_client_knows_every_value_of_the_gateway_and_no_other(
    theirs: type[StrEnum], ours: type[StrEnum]
) -> None:
    assert {each.value for each in theirs} == {each.value for each in ours}


def test_smsctl_offers_every_scope() -> None:
    assert set(SCOPES) == {scope.value for scope in Scope}


def test_every_verdict_is_a_status() -> None:
    assert {fold_message(verdict, 1, []).value for verdict in Verdict} == {*Verdict}


def test_smsctl_has_the_codes_and_reasons_of_the_gateway():
    assert {number: each.name for number, each in SMPP_STATUSES.items() if each.name} == CODES
    without_words = {Reason.SUPERSEDED, Reason.DELIVERED, Reason.CANCELED}
    assert set(REASONS) == {*Reason, *ErrorClass} - without_words
