"""What people write on the command line, and what is meant."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel
from rich.text import Text
from smsgateway import Page

from smsctl.failures import Mistake
from smsctl.screen import Screen
from smsctl.tables import Column, Grid

M = TypeVar("M", bound=BaseModel)

LONGEST_PAGE = 200


def moment(text: str) -> datetime:
    """A time with its offset (RFC 3339)."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.utcoffset() is None:
        raise typer.BadParameter(
            "a time is written with its offset, such as 2026-12-01T09:00:00+01:00 or …Z."
        )
    return at


def not_empty(text: str) -> str:
    """An id or a name."""
    if not text or text in {".", ".."}:
        raise typer.BadParameter("it must not be empty.")
    return text


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """`name=value`, any number of times; raises Mistake if one is not of that form or twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Mistake("Metadata is written name=value: --metadata order=17.")
        if name in found:
            raise Mistake(f"Metadata has one value for each name, but {name} is given twice.")
        found[name] = value
    return found


def stdin_text() -> str:
    """All of standard input, as UTF-8."""
    try:
        return typer.get_binary_stream("stdin").read().decode()
    except UnicodeDecodeError:
        raise Mistake("Standard input is not text in UTF-8.") from None


def file_text(path: Path) -> str:
    """A file's text; `-` is standard input."""
    if str(path) == "-":
        return stdin_text()
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Mistake(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise Mistake(f"{path} is not text in UTF-8.") from None


def gathered(
    fetch: Callable[[int, str | None], Page[M]], limit: int, cursor: str | None
) -> Page[M]:
    """Up to `limit` things, from as many pages as that takes; with the cursor for the rest."""
    page = fetch(min(limit, LONGEST_PAGE), cursor)
    items = list(page.items)
    while page.next_cursor is not None and len(items) < limit:
        page = fetch(min(limit - len(items), LONGEST_PAGE), page.next_cursor)
        items += page.items
    return page.model_copy(update={"items": tuple(items)})


def show_page(screen: Screen, page: Page[M], columns: Sequence[Column[M]]) -> None:
    """A page of a listing, and how to see what follows it."""
    screen.show(page, Grid(columns, page.items) if page.items else Text("There are none."))
    if page.next_cursor is not None:
        screen.remark(
            f"There are more: the same command with --cursor {page.next_cursor} shows them."
        )


LimitOption = Annotated[int, typer.Option(min=1, help="How many at most.")]
CursorOption = Annotated[
    str | None, typer.Option(help="Where the listing before said that it goes on.")
]
MessageId = Annotated[str, typer.Argument(parser=not_empty, metavar="MESSAGE_ID", help="msg_…")]
