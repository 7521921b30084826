"""Secrets by reference: "env:NAME" and "file:/path" are read where they are used, and not kept.

What is stored and shown is the reference; the value goes straight to whoever needs it, wrapped so
that printing it shows stars.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import SecretStr

from domain.configuration import SECRET_SCHEMES

_LARGEST = 64 * 1024


class SecretMissing(Exception):
    """A secret's reference leads nowhere; the text names the reference, never a value."""

    loggable = True


def _from_environment(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise SecretMissing(
            f'the secret "env:{name}" is missing: set the environment variable {name}'
        ) from None


def _from_file(path: str) -> str:
    return read_secret_file(Path(path), f'the secret "file:{path}"')


def read_secret_file(path: Path, what: str) -> str:
    """The text of a file without the line end that editors and `echo` leave behind.

    Raises:
        SecretMissing: `what` cannot be read, is too large, or is not text.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SecretMissing(f"{what} cannot be read: {reason}") from None
    except UnicodeDecodeError:
        raise SecretMissing(f"{what} is not text in UTF-8") from None
    if len(content) > _LARGEST:
        raise SecretMissing(f"{what} is larger than 64 KiB, and so hardly a secret")
    return text


_READERS: Mapping[str, Callable[[str], str]] = {"env": _from_environment, "file": _from_file}


def resolve_secret(reference: str, *, literal_allowed: bool = False) -> SecretStr:
    """The secret behind a reference, read anew each time, so that a rotated one is found.

    Args:
        reference: such as "env:PRIMARY_PASSWORD" or "file:/run/secrets/primary".
        literal_allowed: take a text without a known scheme for the secret itself, as a
            simulator's password may be.

    Raises:
        SecretMissing: nothing is there, or it is empty, or its scheme is not supported.
    """
    scheme, colon, name = reference.partition(":")
    if not colon or scheme not in SECRET_SCHEMES:
        if literal_allowed:
            return SecretStr(reference)
        raise SecretMissing(
            'a secret is given by reference, as "env:NAME" or "file:/path"; this one is neither'
        )
    reader = _READERS.get(scheme)
    if reader is None:
        raise SecretMissing(
            f'secrets by "{scheme}:" are not supported yet: use "env:NAME" or "file:/path"'
        )
    secret = reader(name)
    if not secret:
        raise SecretMissing(f'the secret "{reference}" is empty')
    return SecretStr(secret)
