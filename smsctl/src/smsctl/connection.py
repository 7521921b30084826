"""Which gateway is meant, and with which key: found in the most explicit place that says so."""

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from smsctl import profiles
from smsctl.failures import Mistake

RUN_FILE = Path("build", "run.json")


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says about the gateway."""

    profile: str | None = None
    api: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """One place that may name a gateway, keys, or both; `name` is for sentences.

    `operator_key` is for the operations of operators, which take `key` where there is none.
    """

    name: str
    api: str | None
    key: str | None
    operator_key: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The gateway to talk to; `origin` says where its address was found."""

    api: str
    key: str
    origin: str


def find_target(
    given: Given, environment: Mapping[str, str], folder: Path, *, operator: bool = False
) -> Target:
    """Go through the places, the most explicit first, up to the one that names a gateway.

    The key is the first one met on the way: a key is never taken from a less explicit place than
    the address, so that an address given by hand is not sent the key of another gateway. For an
    `operator` it is the operator's key of a place that has one.

    Raises:
        Mistake: nothing names a gateway, or there is no key for it, or a reference leads nowhere.
    """
    key = None
    for place in _places(given, environment, folder):
        key = key or (place.operator_key if operator else None) or place.key
        if place.api is None:
            continue
        if not key:
            raise Mistake(
                f"There is an address ({place.name}) but no key to go with it: "
                "give --key or SMSCTL_KEY, or name a profile instead."
            )
        return Target(place.api, resolved(key, environment), place.name)
    raise Mistake(
        "It is not known which gateway to talk to: give --api and --key, set SMSCTL_API and "
        "SMSCTL_KEY, or make a profile with `smsctl profile add`."
    )


def _places(given: Given, environment: Mapping[str, str], folder: Path) -> Iterator[Place]:
    yield Place("from the command line", given.api, given.key)
    path = profiles.place(environment)
    if given.profile is not None:
        yield _profile_place(given.profile, path)
        return
    yield Place(
        "from SMSCTL_API",
        environment.get("SMSCTL_API") or None,
        environment.get("SMSCTL_KEY"),
        environment.get("SMSCTL_OPERATOR_KEY"),
    )
    known = profiles.load(path)
    name = environment.get("SMSCTL_PROFILE") or known.current
    if name is not None:
        yield _profile_place(name, path)
        return
    yield from _run_places(folder)


def _profile_place(name: str, path: Path) -> Place:
    profile = profiles.load(path).named(name)
    return Place(f"from the profile {name}", profile.api, profile.key)


def _run_places(folder: Path) -> Iterator[Place]:
    """The gateway that runs in the checkout around `folder`."""
    for above in (folder, *folder.parents):
        path = above / RUN_FILE
        try:
            with path.open(encoding="utf-8") as file:
                # In a folder that others write to, anybody could have put it there.
                mine = os.fstat(file.fileno())
                if mine.st_uid != os.geteuid() or mine.st_mode & stat.S_IWOTH:
                    continue
                content = json.load(file)
            api, key = str(content["api"]), str(content["api_key"])
            yield Place(f"from {path}", api, key, content.get("operator_key"))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        except (ValueError, KeyError, TypeError):
            raise Mistake(f"{path} does not hold the addresses of a running gateway.") from None
        else:
            return


def resolved(key: str, environment: Mapping[str, str]) -> str:
    """The key itself where a reference is given: `env:NAME` or `file:PATH`."""
    kind, _, where = key.partition(":")
    if kind == "env":
        found = environment.get(where)
        if not found:
            raise Mistake(f"The key is to be taken from the variable {where}, which is not set.")
        return found.strip()
    if kind == "file":
        try:
            return Path(where).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise Mistake(
                f"The key is to be taken from the file {where}, which cannot be read."
            ) from None
    return key
