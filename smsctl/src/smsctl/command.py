"""What all commands have in common: the options that say where to and how, and how they end."""

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer
from smsgateway import Client, GatewayError, Retries

from smsctl import __version__, profiles
from smsctl.columns import Column
from smsctl.connection import Given, Target, find_target
from smsctl.failures import ExitCode, Mistake, failure_of
from smsctl.screen import OutputFormat, Screen

P = ParamSpec("P")

SECONDS_PER_TRY = 15.0
_RETRIES = Retries(tries=3)
_GENERAL = "General"


def _names(incomplete: str) -> list[str]:
    try:
        known = profiles.load(profiles.place(os.environ)).by_name
    except Mistake:
        return []
    return [name for name in known if name.startswith(incomplete)]


OutputOption = Annotated[
    OutputFormat | None,
    typer.Option(
        "--output", "-o", help="How to write results and errors.", rich_help_panel=_GENERAL
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        help="The profile to use, instead of SMSCTL_PROFILE or the current one.",
        autocompletion=_names,
        rich_help_panel=_GENERAL,
    ),
]
ApiOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The address of the API, such as https://sms.example.com; instead of SMSCTL_API or a "
        "profile.",
        rich_help_panel=_GENERAL,
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="The key, or env:NAME or file:PATH to take it from; instead of SMSCTL_KEY or, for "
        "operators' commands, SMSCTL_OPERATOR_KEY.",
        rich_help_panel=_GENERAL,
    ),
]
ProfileName = Annotated[
    str, typer.Argument(metavar="NAME", help="The profile's name.", autocompletion=_names)
]


@dataclass(frozen=True, slots=True)
class General:
    """The options that stand before or after the name of any command."""

    output: OutputFormat | None = None
    profile: str | None = None
    api: str | None = None
    key: str | None = None

    def over(self, other: "General") -> "General":
        """These options, and those of `other` where these say nothing."""
        return General(
            self.output or other.output,
            self.profile or other.profile,
            self.api or other.api,
            self.key or other.key,
        )


_OPTIONS = {
    "output": OutputOption,
    "profile": ProfileOption,
    "api": ApiOption,
    "key": KeyOption,
}


class Session:
    """One run of a command: its general options, the screen, and the gateway.

    `columns` are the names of the columns chosen for its table. `operator` is true for a command
    that uses the operator's key.
    """

    def __init__(
        self, general: General, columns: Sequence[str] = (), *, operator: bool = False
    ) -> None:
        self.columns = columns
        self._operator = operator
        self.given = Given(general.profile, general.api, general.key)
        self.screen = Screen(general.output or OutputFormat.TABLE)
        self.target: Target | None = None
        self._client: Client | None = None

    @property
    def gateway(self) -> Client:
        """The gateway, found and connected to on first use."""
        if self._client is None:
            self._warn_of_open_profiles()
            self.target = find_target(self.given, os.environ, Path.cwd(), operator=self._operator)
            try:
                self._client = Client(
                    self.target.api,
                    self.target.key,
                    timeout=SECONDS_PER_TRY,
                    retries=_RETRIES,
                    user_agent=f"smsctl/{__version__}",
                )
            except ValueError as error:
                raise Mistake(f"{error} (What was given came {self.target.origin}.)") from None
        return self._client

    @property
    def origin(self) -> str:
        """Where the address of the gateway was found, as a phrase."""
        return self.target.origin if self.target else "not known yet"

    def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            self._client.close()

    def _warn_of_open_profiles(self) -> None:
        path = profiles.place(os.environ)
        if profiles.is_open_to_others(path):
            self.screen.remark(f"Others can read {path}, which may hold keys: chmod 600 it.")


def _columns_option(columns: Sequence[Column[Any]]) -> Any:
    """The option that chooses among the columns of a table."""
    names = [column.name for column in columns]

    def chosen(text: str) -> tuple[str, ...]:
        wanted = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise typer.BadParameter(
                f"there is no column {unknown[0]!r}; there are: {', '.join(names)}."
            )
        return wanted

    def offered(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names if name.startswith(last)]

    return Annotated[
        Any,
        typer.Option(
            "--columns",
            parser=chosen,
            metavar="NAME,…",
            help=f"The columns, in this order, of: {', '.join(names)}.",
            autocompletion=offered,
            rich_help_panel=_GENERAL,
        ),
    ]


def command(
    app: typer.Typer,
    name: str,
    *,
    columns: Sequence[Column[Any]] = (),
    operator: bool = False,
) -> Callable[[Callable[Concatenate[Session, P], None]], Callable[..., None]]:
    """Makes a function the command `name`: passes it its session, and reports its failure.

    The general options are added to those that the function's own parameters declare, and --columns
    where its table has `columns`. A command for an `operator` takes the operator's key, if there is
    one beside the other.
    """

    def register(function: Callable[Concatenate[Session, P], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(ctx: typer.Context, **values: Any) -> None:
            own = General(**{option: values.pop(option) for option in _OPTIONS})
            before = ctx.obj if isinstance(ctx.obj, General) else General()
            columns_chosen = values.pop("columns", None) or ()
            session = Session(own.over(before), columns_chosen, operator=operator)
            try:
                # Typer has made the values after the signature that `function` declares.
                function(session, **values)  # type: ignore[call-arg]
            except (GatewayError, Mistake) as error:
                failure = failure_of(error, origin=session.origin, options=_options_of(ctx))
                session.screen.fail(failure)
                raise typer.Exit(failure.exit_code) from None
            finally:
                session.close()

        declared = list(inspect.signature(function).parameters.values())[1:]
        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        options = {**({"columns": _columns_option(columns)} if columns else {}), **_OPTIONS}
        general = [
            inspect.Parameter(
                option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
            )
            for option, annotation in options.items()
        ]
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in declared
        ]
        vars(run)["__signature__"] = inspect.Signature([context, *parameters, *general])
        run.__annotations__ = {p.name: p.annotation for p in (context, *parameters, *general)}
        app.command(name)(run)
        return run

    return register


def _options_of(ctx: typer.Context) -> dict[str, object]:
    return {
        name: ctx.params.get(parameter.name or "")
        for parameter in ctx.command.params
        for name in parameter.opts
        if name[:2] == "--"
    }


def ended(code: ExitCode) -> typer.Exit:
    """The exception that ends a command without further output."""
    return typer.Exit(code)
