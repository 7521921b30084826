"""Secrets by reference: "env:NAME" and "file:/path" are read where they are used, and not kept.

What is stored and shown is the reference; the value goes straight to whoever needs it, wrapped so
that printing it shows stars. Only what the server's settings allow is read (`AllowedSecrets`).
"""

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from pydantic import SecretStr

from domain.secrets import SECRET_SCHEMES, AllowedSecrets

_LARGEST = 64 * 1024


class SecretMissing(Exception):
    """A secret's reference leads nowhere; the text names the reference, never a value."""

    loggable = True


class SecretAbsent(SecretMissing):
    """Nothing is there for this process; it may be there for another one."""


class SecretNotAllowed(SecretMissing):
    """A reference names something that the server's settings do not allow; it was not read."""


def _from_environment(name: str, _: AllowedSecrets) -> str:
    value = os.environ.get(name)
    if value is None:
        raise SecretAbsent(
            f'the secret "env:{name}" is missing: the environment variable is not set'
        )
    if not value:  # as for settings, that counts as not set
        raise SecretAbsent(f'the secret "env:{name}" is empty')
    return value


def _from_file(path: str, allowed: AllowedSecrets) -> str:
    what = f'the secret "file:{path}"'
    real = _allowed_path(path, allowed, what)
    # Neither a link that was exchanged meanwhile nor a pipe that nobody writes to.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(real, flags), "rb") as file:  # noqa: PTH123 - of a descriptor
            opened = os.fstat(file.fileno())
            if not stat.S_ISREG(opened.st_mode):
                raise SecretMissing(f"{what} cannot be read: it is not a regular file")
            if any(_is_at(path, opened) for path in allowed.reserved_files):
                raise _not_allowed(what, allowed)
            return _text_of(file, what)
    except OSError as error:
        raise _unreadable(what, error) from None


def _allowed_path(path: str, allowed: AllowedSecrets, what: str) -> str:
    """The path without symbolic links, which is below an allowed folder (itself without links)."""
    real = os.path.realpath(path)
    folders = (os.path.realpath(folder) for folder in allowed.folders)
    if not any(Path(real).is_relative_to(folder) for folder in folders):
        raise _not_allowed(what, allowed)
    return real


def _is_at(path: str, opened: os.stat_result) -> bool:
    try:
        return os.path.samestat(opened, Path(path).stat())
    except OSError:
        return False


def _not_allowed(what: str, allowed: AllowedSecrets) -> SecretNotAllowed:
    return SecretNotAllowed(f"{what} cannot be used: {allowed.files_allowed}")


def _unreadable(what: str, error: OSError) -> SecretMissing:
    absent = isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError)
    kind = SecretAbsent if absent else SecretMissing
    return kind(f"{what} cannot be read: {error.strerror or type(error).__name__}")


def read_secret_file(path: Path, what: str) -> str:
    """The text of a file without the line end that editors and `echo` leave behind.

    Raises:
        SecretMissing: `what` cannot be read, is too large, or is not text.
    """
    try:
        with path.open("rb") as file:
            return _text_of(file, what)
    except OSError as error:
        raise _unreadable(what, error) from None


def _text_of(file: BinaryIO, what: str) -> str:
    content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise SecretMissing(f"{what} is larger than 64 KiB, and so hardly a secret")
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SecretMissing(f"{what} is not text in UTF-8") from None


_READERS: Mapping[str, Callable[[str, AllowedSecrets], str]] = {
    "env": _from_environment,
    "file": _from_file,
}


def resolve_secret(
    reference: str, allowed: AllowedSecrets, *, literal_allowed: bool = False
) -> SecretStr:
    """The secret behind a reference, read anew each time, so that a rotated one is found.

    The result is for signing, verifying and logging in. It is never part of a response.

    Args:
        reference: such as "env:SMSGATEWAY_SECRET_PRIMARY" or "file:/run/secrets/primary".
        allowed: what the server's settings allow (`Settings.allowed_secrets`).
        literal_allowed: take a text without a known scheme for the secret itself, as a
            simulator's password may be.

    Raises:
        SecretNotAllowed: the server's settings do not allow this reference.
        SecretAbsent: nothing is there for this process.
        SecretMissing: it is empty, or cannot be a secret, or its scheme is not supported.
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
    if refusal := allowed.refusal(reference):
        raise SecretNotAllowed(f'the secret "{reference}" cannot be used: {refusal}')
    secret = reader(name, allowed)
    if not secret:
        raise SecretMissing(f'the secret "{reference}" is empty')
    return SecretStr(secret)


def check_key_file(path: str | None, allowed: AllowedSecrets) -> None:
    """Refuse a private key, named by its path, that the server's settings do not allow.

    Raises:
        SecretNotAllowed: it is not below an allowed folder, or a symbolic link leads out of there.
    """
    if path is None:
        return
    what = f'the private key "{path}"'
    if refusal := allowed.file_refusal(path):
        raise SecretNotAllowed(f"{what} cannot be used: {refusal}")
    _allowed_path(path, allowed, what)
