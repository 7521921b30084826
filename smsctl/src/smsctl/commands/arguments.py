"""What people write on the command line, and what is meant."""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, BinaryIO, TextIO, TypeVar

import typer
from pydantic import BaseModel
from rich.text import Text
from smsgateway import MissingReceipt, Mode, Page, Priority

from smsctl.columns import Column, Grid
from smsctl.command import Session
from smsctl.failures import Mistake

M = TypeVar("M", bound=BaseModel)

LONGEST_PAGE = 200
_AGE = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


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


def moment_or_age(text: str) -> datetime:
    """A time with its offset, or how long ago it was: `30s`, `15m`, `1h`, `7d`, `2w`."""
    age = _AGE.fullmatch(text)
    if age is None:
        try:
            return moment(text)
        except typer.BadParameter as mistake:
            raise typer.BadParameter(
                f"{mistake.message[:-1]}, or as an age, such as 1h or 7d."
            ) from None
    try:
        return datetime.now(UTC) - int(age[1]) * _UNITS[age[2]]
    except OverflowError:
        raise typer.BadParameter("that is longer ago than times are counted.") from None


def not_empty(text: str) -> str:
    """An id or a name."""
    if not text or text in {".", ".."}:
        raise typer.BadParameter("it must not be empty.")
    return text


def pairs(texts: Sequence[str], option: str = "--metadata") -> dict[str, str]:
    """`name=value`, any number of times; raises Mistake if one is not of that form or twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            lacks = 'no name before its "="' if equals else 'no "="'
            raise Mistake(
                f"{option} {text}: it has {lacks}. Write NAME=VALUE, such as {option} order=17."
            )
        if name in found:
            raise Mistake(f"{option} has one value for each name, but {name} is given twice.")
        found[name] = value
    return found


def stdin_text() -> str:
    """All of standard input, as UTF-8."""
    try:
        return typer.get_binary_stream("stdin").read().decode()
    except UnicodeDecodeError:
        raise Mistake("Standard input is not text in UTF-8.") from None


def body_text(given: str) -> str:
    """The text of a message; `-` is standard input, less one last newline."""
    if given != "-":
        return given
    return stdin_text().removesuffix("\n").removesuffix("\r")


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


@contextmanager
def rereadable(path: Path) -> Iterator[TextIO]:
    """A file's text, which can be read again from the beginning; `-` is standard input.

    Bytes that are not UTF-8 become lone surrogates, so that the reader can report their line.
    """
    with ExitStack() as opened:
        try:
            content = _opened(path, opened)
        except OSError as error:
            raise Mistake(f"{path} cannot be read: {error.strerror}.") from error
        text = TextIOWrapper(content, encoding="utf-8-sig", errors="surrogateescape", newline="")
        try:
            yield text
        finally:
            # The text would close what it does not own.
            text.detach()


def _opened(path: Path, opened: ExitStack) -> BinaryIO:
    if str(path) == "-":
        content = typer.get_binary_stream("stdin")
    else:
        content = opened.enter_context(path.open("rb"))
    if content.seekable():
        return content
    copy = opened.enter_context(TemporaryFile())  # noqa: SIM115  # as all that is opened here
    shutil.copyfileobj(content, copy)
    return copy


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


def show_page(session: Session, page: Page[M], columns: Sequence[Column[M]], things: str) -> None:
    """A page of a listing of these `things`, and how to see what follows it."""
    table = Grid(columns, page.items, chosen=session.columns)
    session.screen.show(page, table if page.items else Text(f"There are no {things}."), table=table)
    if page.next_cursor is not None:
        session.screen.remark(
            f"There are more: the same command with --cursor {page.next_cursor} shows them."
        )


LimitOption = Annotated[int, typer.Option(min=1, help="How many at most.")]
CursorOption = Annotated[
    str | None, typer.Option(help="Where the listing before said that it goes on.")
]
SenderOption = Annotated[str, typer.Option("--from", help="The sender ID.")]
PriorityOption = Annotated[
    Priority | None, typer.Option(help="By default the priority of the mode.")
]
ModeOption = Annotated[Mode | None, typer.Option(help="The purpose; transactional if not said.")]
CallbackUrlOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="URL that receives status callbacks for each message."),
]
ValidityOption = Annotated[
    int | None,
    typer.Option(metavar="SECONDS", help="After which a message is not to be delivered any more."),
]
ReceiptDeadlineOption = Annotated[
    int | None,
    typer.Option(
        metavar="SECONDS",
        help="After which a provider without a receipt is given up; by default the mode's.",
    ),
]
MissingReceiptOption = Annotated[
    MissingReceipt | None,
    typer.Option(help="What happens then: the next provider, or the end; by default the mode's."),
]
AtOption = Annotated[
    datetime | None,
    typer.Option(parser=moment, metavar="TIME", help="When to send: RFC 3339, with offset."),
]
MetadataOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Your own, given back with the message; repeatable."),
]
ParameterOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="What the provider is given beside the text, such as a template's id; repeatable.",
    ),
]
SmartEncodingOption = Annotated[
    bool, typer.Option(help="Replace characters that would make a message longer by like ones.")
]
BatchId = Annotated[str, typer.Argument(parser=not_empty, metavar="BATCH_ID", help="bat_…")]
BatchIds = Annotated[
    list[str], typer.Argument(parser=not_empty, metavar="BATCH_ID…", help="bat_…, one or more.")
]
MessageId = Annotated[str, typer.Argument(parser=not_empty, metavar="MESSAGE_ID", help="msg_…")]
