"""Profiles: gateways by name, in `$XDG_CONFIG_HOME/smsctl/config.toml`, readable by nobody else."""

import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from smsctl.failures import Mistake

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PRIVATE = 0o600
_OTHERS = 0o077


class Profile(BaseModel):
    """A gateway and a key to it; the key may be a reference, `env:NAME` or `file:PATH`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api: str
    key: str


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    current: str | None = None
    profiles: dict[str, Profile] = {}


@dataclass(frozen=True, slots=True)
class Profiles:
    """All profiles; `current` is the one that is used when none is named."""

    current: str | None = None
    by_name: Mapping[str, Profile] = field(default_factory=dict)

    def named(self, name: str) -> Profile:
        """Raises Mistake, naming those there are, if there is no such profile."""
        if name not in self.by_name:
            there = ", ".join(sorted(self.by_name)) or "none"
            raise Mistake(
                f"There is no profile {name!r} (there are: {there}). "
                "`smsctl profile add` makes one."
            )
        return self.by_name[name]

    def adding(self, name: str, profile: Profile) -> "Profiles":
        """With one more; the first becomes the current one."""
        if not _NAME.fullmatch(name):
            raise Mistake("A profile's name is 1 to 64 letters, digits, hyphens and underscores.")
        return Profiles(self.current or name, {**self.by_name, name: profile})

    def using(self, name: str) -> "Profiles":
        """With another current one."""
        self.named(name)
        return replace(self, current=name)

    def removing(self, name: str) -> "Profiles":
        """With one less."""
        self.named(name)
        left = {other: profile for other, profile in self.by_name.items() if other != name}
        return Profiles(None if self.current == name else self.current, left)


def place(environment: Mapping[str, str]) -> Path:
    """Where the profiles are kept (XDG Base Directory Specification: absolute paths only)."""
    home = environment.get("XDG_CONFIG_HOME", "")
    folder = Path(home) if home.startswith("/") else Path.home() / ".config"
    return folder / "smsctl" / "config.toml"


def load(path: Path) -> Profiles:
    """The profiles in a file; none if it is not there. Raises Mistake if it cannot be read."""
    try:
        content = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Profiles()
    except OSError as error:
        raise Mistake(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Mistake(f"{path} is not TOML: {error}.") from None
    except ValidationError as error:
        where = ", ".join(".".join(map(str, mistake["loc"])) for mistake in error.errors())
        # The cause would quote the keys.
        raise Mistake(
            f"{path} is not a file of profiles, in: {where}. "
            'A profile is [profiles.NAME] with api = "…" and key = "…".'
        ) from None
    return Profiles(content.current, content.profiles)


def is_open_to_others(path: Path) -> bool:
    """Whether other users may read the file."""
    try:
        return bool(path.stat().st_mode & _OTHERS)
    except OSError:
        return False


def save(path: Path, profiles: Profiles) -> None:
    """Write the file whole or not at all, for its owner only."""
    content = _toml(profiles)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".config-") as folder:
            written = Path(folder, path.name)
            written.touch(mode=_PRIVATE)
            written.write_text(content, encoding="utf-8")
            written.replace(path)
    except OSError as error:
        raise Mistake(f"{path} cannot be written: {error.strerror}.") from error


def _toml(profiles: Profiles) -> str:
    lines = ["# Written by `smsctl profile`. A key may be env:NAME or file:PATH."]
    if profiles.current is not None:
        lines.append(f"current = {_quoted(profiles.current)}")
    for name, profile in sorted(profiles.by_name.items()):
        lines += [
            "",
            f"[profiles.{name}]",
            f"api = {_quoted(profile.api)}",
            f"key = {_quoted(profile.key)}",
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A basic string (TOML 1.0)."""
    if not text.isprintable():
        raise Mistake("An address or key must not hold control characters.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
