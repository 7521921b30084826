"""docker-compose.yml as Docker reads it: merged, and with the variables' defaults put in."""

import re
import shlex
from pathlib import Path
from typing import Any, Final

import yaml

CHECKOUT: Final = Path(__file__).parents[2]
TEXT: Final = (CHECKOUT / "docker-compose.yml").read_text()

VARIABLE: Final = re.compile(r"(?<!\$)\$\{([A-Z_]+)(?::-([^}]*))?\}")
DEFAULTS: Final = dict(VARIABLE.findall(TEXT))

OUR_IMAGE: Final = DEFAULTS["GATEWAY_IMAGE"]
SECONDS: Final = {"s": 1, "m": 60}


def _put_in(value: Any) -> Any:
    match value:
        case str():
            return VARIABLE.sub(lambda found: found[2] or "", value).replace("$$", "$")
        case list():
            return [_put_in(item) for item in value]
        case dict():
            return {key: _put_in(item) for key, item in value.items()}
        case _:
            return value


WRITTEN: Final[dict[str, Any]] = yaml.safe_load(TEXT)
"""The file with its variables instead of their defaults."""
COMPOSE: Final[dict[str, Any]] = _put_in(WRITTEN)
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
OURS: Final = {name: it for name, it in SERVICES.items() if it["image"] == OUR_IMAGE}
JOBS: Final = {name: it for name, it in SERVICES.items() if it["restart"].startswith("on-failure")}
LONG_RUNNING: Final = {name: it for name, it in SERVICES.items() if name not in JOBS}


def without_digest(image: str) -> str:
    """Name and tag of an image, which deploy/pin-images.sh may have pinned."""
    return image.partition("@")[0]


def dockerfile() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (CHECKOUT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    split = (line.strip().split(None, 1) for line in lines if line.strip())
    return [(instruction, argument) for instruction, argument in split]


def image_environment() -> dict[str, str]:
    """What the image sets, which every container of ours has."""
    pairs = [
        pair for instruction, argument in dockerfile()[-12:] if instruction == "ENV"
        for pair in shlex.split(argument)
    ]  # fmt: skip
    return dict(pair.split("=", 1) for pair in pairs)


def seconds(duration: str) -> int:
    """Of a duration as Compose and we write it."""
    return int(duration[:-1]) * SECONDS[duration[-1]]


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Where a service mounts what, by the place in the container."""
    found = {}
    for volume in service.get("volumes", []):
        if isinstance(volume, str):
            source, target, *_ = volume.split(":")
            found[target] = source
        else:
            found[volume["target"]] = volume["source"]
    return found


def published(service: dict[str, Any]) -> dict[int, str]:
    """The addresses of this machine at which a service's ports can be reached."""
    split = (port.rpartition(":") for port in service.get("ports", []))
    return {int(target): address for address, _, target in split}
