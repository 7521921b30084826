"""Secret references: how they are written, and which ones a server allows.

A configuration names its secrets as "env:NAME" or "file:/path". Whoever may apply a configuration
must not be able to read every variable and file of the process. So the server's own settings say
which names a reference may use, and no configuration can widen that.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

SECRET_SCHEMES: Mapping[str, bool] = {"env": True, "file": True, "vault": False, "aws-sm": False}
"""Schemes of secret references, and whether this version can resolve them."""

VARIABLES_SETTING: Final = "SMSGATEWAY_ALLOWED_SECRET_VARIABLES"
FOLDERS_SETTING: Final = "SMSGATEWAY_ALLOWED_SECRET_FOLDERS"


@dataclass(frozen=True, slots=True)
class AllowedSecrets:
    """Which variables and files secret references may name; without arguments, none.

    Attributes:
        variables: prefixes of the names of environment variables.
        folders: absolute paths of folders; files anywhere below them are allowed.
        reserved_variables: names that are refused whatever their prefix: the process's settings.
        reserved_files: paths that are refused wherever they are: those that the settings name.
    """

    variables: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    reserved_variables: frozenset[str] = frozenset()
    reserved_files: frozenset[str] = frozenset()

    def refusal(self, reference: str) -> str | None:
        """Why a well-formed reference is not allowed, by its text alone; None if it is allowed.

        Where symbolic links lead is checked when the file is read.
        """
        scheme, _, name = reference.partition(":")
        if scheme == "file":
            return self.file_refusal(name)
        if name in self.reserved_variables:
            return f'"env:" cannot name a setting of the gateway itself; {self._variables_allowed}'
        if not name.startswith(self.variables):
            return self._variables_allowed
        return None

    def file_refusal(self, path: str) -> str | None:
        """Why a file may not be named, by its path alone; None if it may."""
        place = PurePosixPath(path)
        if ".." in place.parts or not any(map(place.is_relative_to, self.folders)):
            return self.files_allowed
        return None

    @property
    def _variables_allowed(self) -> str:
        known = ", ".join(self.variables) or "(none)"
        return (
            f"the server allows only environment variables whose names begin with: {known}. Rename "
            f"the variable, or allow another prefix in the server's {VARIABLES_SETTING}"
        )

    @property
    def files_allowed(self) -> str:
        """Which files are allowed, and what to do about another one."""
        known = ", ".join(self.folders) or "(none)"
        return (
            f'the server allows only secret files below: {known}; ".." and symbolic links out of '
            "there are refused, and so are files of the gateway's own settings. Move the file, or "
            f"allow another folder in the server's {FOLDERS_SETTING}"
        )


NO_SECRETS: Final = AllowedSecrets()
"""No reference at all."""


def checked_secret_reference(reference: str) -> str:
    """The reference itself.

    Raises:
        ValueError: with a sentence that never repeats the value, which may be a secret.
    """
    scheme, colon, name = reference.partition(":")
    if not colon or scheme not in SECRET_SCHEMES:
        raise ValueError(
            "secrets are not written into the configuration: put the value into an environment "
            'variable and write "env:NAME", or into a file and write "file:/path"'
        )
    if not SECRET_SCHEMES[scheme]:
        raise ValueError(f'"{scheme}:" is not supported yet: use "env:NAME" or "file:/path"')
    if scheme == "env" and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
        raise ValueError('"env:" is followed by the name of an environment variable')
    if scheme == "file" and not (name.startswith("/") and "\0" not in name):
        raise ValueError('"file:" is followed by an absolute path, such as "file:/run/secrets/x"')
    return reference
