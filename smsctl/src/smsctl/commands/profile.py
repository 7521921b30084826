"""`smsctl profile …`: gateways by name."""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from smsctl import profiles
from smsctl.columns import PROFILE_COLUMNS, Grid, masked, named_profiles
from smsctl.command import ProfileName, Session, command
from smsctl.failures import Mistake
from smsctl.profiles import Profile

app = typer.Typer(no_args_is_help=True, help="Keep gateways and keys by name.")


@command(app, "list", columns=PROFILE_COLUMNS)
def list_(session: Session) -> None:
    """List the profiles; * is the current one."""
    known = named_profiles(profiles.load(_place()))
    table = Grid(PROFILE_COLUMNS, known, chosen=session.columns)
    session.screen.show(
        {"items": [asdict(one) for one in known]},
        table if known else Text("There are no profiles."),
        table=table,
    )


@command(app, "add")
def add(
    session: Session,
    name: ProfileName,
    use: Annotated[bool, typer.Option("--use", help="Make it the current one.")] = False,
) -> None:
    """Keep --api and --key under a name; without --key, the key is asked for.

    The first one becomes the current one.
    """
    api = session.given.api
    if not api:
        raise Mistake("Say which gateway it is: --api https://…")
    key = _kept(session.given.key or _asked())
    known = profiles.load(_place())
    after = known.adding(name, Profile(api=api, key=key))
    if use:
        after = after.using(name)
    profiles.save(_place(), after)
    verb = "Changed" if name in known.by_name else "Added"
    session.screen.show(
        {"profile": name, "api": api, "key": masked(key), "is_current": after.current == name},
        Text(f"{verb} the profile {name}, in {_place()}."),
    )


@command(app, "use")
def use(session: Session, name: ProfileName) -> None:
    """Make a profile the current one."""
    profiles.save(_place(), profiles.load(_place()).using(name))
    session.screen.show({"current": name}, Text(f"{name} is the current profile now."))


@command(app, "remove")
def remove(session: Session, name: ProfileName) -> None:
    """Forget a profile and its key. The gateway still knows the key: see `smsctl key revoke`."""
    profiles.save(_place(), profiles.load(_place()).removing(name))
    session.screen.show({"removed": name}, Text(f"The profile {name} is removed."))


def _place() -> Path:
    return profiles.place(os.environ)


def _asked() -> str:
    if not sys.stdin.isatty():
        raise Mistake("Say which key to use: --key env:NAME, --key file:PATH, or the key itself.")
    response: str = typer.prompt("Key", hide_input=True, err=True)
    return response.strip()


def _kept(key: str) -> str:
    """A file's place as it is seen from everywhere."""
    kind, _, where = key.partition(":")
    return f"file:{Path(where).expanduser().absolute()}" if kind == "file" else key
