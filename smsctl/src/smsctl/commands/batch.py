"""`smsctl batch …`: many messages at once, from a file."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text
from smsgateway import (
    Batch,
    Conflict,
    ConnectionFailed,
    GatewayError,
    Page,
    ProblemError,
    Unavailable,
)

from smsctl.columns import BATCH_COLUMNS, RESULT_COLUMNS, Column, Grid, batch_details, counted
from smsctl.command import Session, command, ended
from smsctl.commands.arguments import (
    AtOption,
    BatchId,
    BatchIds,
    CallbackUrlOption,
    CursorOption,
    LimitOption,
    MetadataOption,
    MissingReceiptOption,
    ModeOption,
    ParameterOption,
    PriorityOption,
    ReceiptDeadlineOption,
    SenderOption,
    SmartEncodingOption,
    ValidityOption,
    body_text,
    gathered,
    pairs,
    rereadable,
    show_page,
)
from smsctl.failures import ExitCode, Mistake
from smsctl.recipients import BODY_COLUMN, RecipientFile, Slice, Wanted
from smsctl.screen import Screen, visible
from smsctl.sending import (
    MOST_RECIPIENTS,
    RefusedFile,
    RefusedLine,
    SentBatch,
    Tally,
    Terms,
    key_of,
    send_slice,
)
from smsctl.watching import Watched, last_words, show_watching

app = typer.Typer(no_args_is_help=True, help="Send to many at once, and see how far that is.")

REFUSED_COLUMNS: Sequence[Column[RefusedLine]] = (
    Column("line", lambda r: r.line),
    Column("refused", lambda r: r.reason),
    Column("why", lambda r: r.detail, is_sentence=True),
)
# After these, the command that is as it was may succeed.
_WHICH_MAY_PASS = (ConnectionFailed, Unavailable, Conflict, KeyboardInterrupt)

TimeoutOption = Annotated[
    float | None,
    typer.Option(min=0, metavar="SECONDS", help="How long to watch; to the end if not said."),
]


@command(app, "send")
def send(
    session: Session,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="CSV, whose first line names the columns; - is standard input."
        ),
    ],
    sender: SenderOption,
    body: Annotated[
        str | None,
        typer.Option(
            help="The text, with {name} where that column goes; - reads it from standard input. "
            f"If not said, each line has its own in the column {BODY_COLUMN}."
        ),
    ] = None,
    to_column: Annotated[
        str, typer.Option(metavar="NAME", help="The column of the numbers.")
    ] = "to",
    priority: PriorityOption = None,
    mode: ModeOption = None,
    callback_url: CallbackUrlOption = None,
    validity: ValidityOption = None,
    receipt_deadline: ReceiptDeadlineOption = None,
    missing_receipt: MissingReceiptOption = None,
    at: AtOption = None,
    metadata: MetadataOption = None,
    parameter: ParameterOption = None,
    smart_encoding: SmartEncodingOption = True,
    size: Annotated[
        int, typer.Option(min=1, max=MOST_RECIPIENTS, help="How many recipients a batch has.")
    ] = MOST_RECIPIENTS,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Instead of the one that is made from the file and the options."
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Send, even if the same command has sent it before.")
    ] = False,
    refused: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write all lines that are refused, and why."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show how far it is, until it ends.")
    ] = False,
    timeout: TimeoutOption = None,
) -> None:
    """Send to everybody in a file of any length.

    All of the file is checked before anything is sent. The same command again, after a failure,
    goes on where it stopped and sends nobody twice. Exits with 1 if some were refused, with 2 if
    all were; with --watch also with 1 if some ended otherwise than delivered, 8 if not yet.
    """
    if body == "-" and str(file) == "-":
        raise Mistake("Standard input is either the file or the text: give one of them otherwise.")
    if again and idempotency_key is not None:
        raise Mistake("A key says which command is the same: give --again or --idempotency-key.")
    text = None if body is None else body_text(body)
    terms = Terms(
        sender,
        text,
        mode,
        priority,
        callback_url,
        validity,
        at,
        smart_encoding,
        receipt_deadline=receipt_deadline,
        parameters=pairs(parameter, "--parameter") if parameter else None,
        missing_receipt=missing_receipt,
    )
    wanted = Wanted(to_column, text, pairs(metadata or ()))
    key = uuid.uuid4().hex if again else idempotency_key
    with ExitStack() as opened:
        name = "standard input" if str(file) == "-" else str(file)
        recipients = RecipientFile(opened.enter_context(rereadable(file)), name, wanted)
        digests = [part.digest for part in recipients.slices(size)]
        refused_file = None
        if refused is not None:
            _check_is_another(refused, file)
            refused_file = opened.enter_context(RefusedFile(refused, recipients.columns()))
        sending = _Sending(session, terms, key, refused_file, is_again=again)
        tally = sending.all(recipients.unchanged(size, digests))
    watched = None
    if watch and tally.batches:
        watched = _watch_sent(session, tally, timeout)
    else:
        _show(session.screen, tally)
    code = _exit_code(tally, watched)
    if code is not ExitCode.OK:
        raise ended(code)


@command(app, "watch")
def watch(session: Session, batch_ids: BatchIds, timeout: TimeoutOption = None) -> None:
    """Show how far batches are, until all are finished or cancelled.

    Exits with 0 if every message was delivered, 1 otherwise, 8 if they have not ended in time.
    """
    watched = show_watching(session.screen, session.gateway, batch_ids, timeout)
    session.screen.show(
        Page[Batch](items=tuple(watched.batches)),
        last_words(watched),
        table=Grid(BATCH_COLUMNS, watched.batches),
    )
    _point_to_watching(session.screen, watched)
    code = _exit_code_of(watched)
    if code is not ExitCode.OK:
        raise ended(code)


@command(app, "list", columns=BATCH_COLUMNS)
def list_(session: Session, limit: LimitOption = 50, cursor: CursorOption = None) -> None:
    """List batches, the newest first."""
    gateway = session.gateway
    page = gathered(
        lambda size, start: gateway.batches(limit=size, cursor=start),
        limit,
        cursor,
    )
    show_page(session, page, BATCH_COLUMNS, "batches")


@command(app, "show")
def show(
    session: Session,
    batch_id: BatchId,
    results: Annotated[
        bool,
        typer.Option("--results", help="Also the message, or the refusal, of each recipient."),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="How many results at most; all if not said.")
    ] = None,
) -> None:
    """Show a batch as it stands, with its messages counted."""
    if limit is not None and not results:
        raise Mistake("--limit is about the results: add --results.")
    gateway = session.gateway
    if not results:
        batch = gateway.batch(batch_id)
        session.screen.show(batch, batch_details(batch))
        return
    answered = gateway.batch_results(batch_id)
    shown = answered.model_copy(update={"results": answered.results[:limit]})
    session.screen.show(shown, batch_details(shown), table=Grid(RESULT_COLUMNS, shown.results))
    more = len(answered.results) - len(shown.results)
    if more:
        session.screen.remark(f"{counted(more, 'more result')} not shown: give a larger --limit.")


@command(app, "pause")
def pause(session: Session, batch_ids: BatchIds) -> None:
    """Let nothing more of batches leave until they are resumed."""
    _steer(session, batch_ids, session.gateway.pause_batch)
    session.screen.remark("Messages that a provider already has cannot be taken back.")


@command(app, "resume")
def resume(session: Session, batch_ids: BatchIds) -> None:
    """Let paused batches go on where they were."""
    _steer(session, batch_ids, session.gateway.resume_batch)


@command(app, "cancel")
def cancel(session: Session, batch_ids: BatchIds) -> None:
    """End every message of batches that no provider has."""
    canceled = _steer(session, batch_ids, session.gateway.cancel_batch)
    left = sum(batch.open for batch in canceled)
    if left:
        session.screen.remark(
            f"{counted(left, 'message')} had left before and cannot be taken back."
        )


def _steer(
    session: Session, batch_ids: Sequence[str], change: Callable[[str], Batch]
) -> Sequence[Batch]:
    """Change one after the other; those that were changed are shown, also if another cannot be."""
    changed: list[Batch] = []
    try:
        for batch_id in batch_ids:
            changed.append(change(batch_id))  # noqa: PERF401  # all up to one that fails
    finally:
        if changed:
            show_page(session, Page[Batch](items=tuple(changed)), BATCH_COLUMNS, "batches")
    return changed


@dataclass(frozen=True, slots=True)
class _Sending:
    """Sends slices, and prints each as soon as it is accepted."""

    session: Session
    terms: Terms
    key: str | None
    refused: RefusedFile | None
    is_again: bool

    def all(self, parts: Iterator[Slice]) -> Tally:
        """Send all slices; if that fails, what is done is shown, and how to go on."""
        screen = self.session.screen
        gateway = self.session.gateway
        tally = Tally()
        try:
            for part in parts:
                sent = send_slice(gateway, self.terms, part, key_of(self.terms, part, self.key))
                tally.add(sent)
                if self.refused is not None:
                    self.refused.add(sent)
                if sent.batch is not None and not screen.for_programs:
                    screen.out.print(_accepted_line(tally.batches[-1]))
        except (GatewayError, Mistake, KeyboardInterrupt) as error:
            if tally.recipients:
                _show(screen, tally)
            advice = self._how_to_go_on(error, tally)
            if advice:
                screen.remark(advice)
            raise
        return tally

    def _how_to_go_on(self, error: GatewayError | Mistake | KeyboardInterrupt, tally: Tally) -> str:
        done = f"The lines up to {tally.last_line} are done. " if tally.recipients else ""
        if isinstance(error, Mistake):
            return done.strip()
        if isinstance(error, ProblemError) and error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            if done:
                # Other slices would have other keys.
                return (
                    f"{done}Put the others into a file of their own, below the header line, and "
                    "send that with a smaller --size."
                )
            return "Give a smaller --size."
        if not done and not isinstance(error, _WHICH_MAY_PASS):
            return ""
        key = f", with --idempotency-key {self.key} in place of --again," if self.is_again else ""
        return (
            f"{done}The same command again{key} goes on where it stopped and sends nobody twice, "
            "for 24 hours."
        )


def _accepted_line(batch: SentBatch) -> Text:
    one = batch.first_line == batch.last_line
    lines = f"line {batch.first_line}" if one else f"lines {batch.first_line} to {batch.last_line}"
    refused = f", {batch.refused} refused" if batch.refused else ""
    before = " before, by the same command" if batch.replayed else ""
    return Text.assemble(
        (visible(batch.batch_id), "bold"), f": {lines}, {batch.accepted} accepted{before}{refused}."
    )


def _show(screen: Screen, tally: Tally) -> None:
    lines: list[RenderableType] = []
    if tally.refused:
        lines.append(Grid(REFUSED_COLUMNS, tally.first_refused))
    more = tally.refused - len(tally.first_refused)
    if more:
        lines.append(Text(f"… and {counted(more, 'line')} more."))
    accepted = f"Accepted {tally.accepted} of {counted(tally.recipients, 'recipient')}"
    if tally.accepted_before:
        accepted += f", {tally.accepted_before} of them before, by the same command"
    lines.append(Text(f"{accepted}."))
    screen.show(tally.as_json(), *lines)
    if tally.refused and tally.accepted:
        screen.remark(
            "--refused FILE writes the refused lines to a file of their own. Correct that file and send "
            "it. Do not send this file again: the others would get the message twice."
        )
    if tally.accepted_before:
        screen.remark("With --again, it is sent once more.")


def _watch_sent(session: Session, tally: Tally, timeout: float | None) -> Watched:
    """Watch the batches that were sent; the result is shown whatever becomes of the watching."""
    screen = session.screen
    if not screen.for_programs:
        _show(screen, tally)
    batch_ids = [batch.batch_id for batch in tally.batches]
    try:
        watched = show_watching(screen, session.gateway, batch_ids, timeout)
    except GatewayError:
        if screen.for_programs:
            _show(screen, tally)
        raise
    ending = [batch.model_dump(mode="json", by_alias=True) for batch in watched.batches]
    screen.show({**tally.as_json(), "watched": ending}, last_words(watched))
    _point_to_watching(screen, watched)
    return watched


def _point_to_watching(screen: Screen, watched: Watched) -> None:
    going = [batch.batch_id for batch in watched.batches if not batch.has_ended]
    if going:
        screen.remark(f"`smsctl batch watch {' '.join(going)}` goes on watching.")


def _exit_code(tally: Tally, watched: Watched | None) -> ExitCode:
    if not tally.accepted:
        return ExitCode.REFUSED
    code = ExitCode.OK if watched is None else _exit_code_of(watched)
    return ExitCode.FAILED if code is ExitCode.OK and tally.refused else code


def _exit_code_of(watched: Watched) -> ExitCode:
    if not watched.have_ended:
        return ExitCode.STILL_GOING
    return ExitCode.OK if watched.delivered == watched.messages else ExitCode.FAILED


def _check_is_another(refused: Path, file: Path) -> None:
    try:
        is_same = refused.exists() and file.exists() and refused.samefile(file)
    except OSError as error:
        raise Mistake(f"{refused} cannot be written: {error.strerror}.") from error
    if is_same:
        raise Mistake(f"--refused would write over {file}, which is to be sent: name another file.")
