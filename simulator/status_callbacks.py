"""Twilio's status callbacks: signed, sent to the address of the request, and tried again.

twilio.com/docs: usage/webhooks/webhooks-security, usage/webhooks/webhooks-connection-overrides.
"""

import asyncio
import hashlib
import hmac
import uuid
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from telemetry.logs import get_logger

_log = get_logger(__name__)

TOTAL_SECONDS: Final = 15.0
"""All tries of one callback end within this time."""
_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 15.0
_MOST_RETRIES: Final = 5
# Twilio documents no pauses between tries.
_PAUSES: Final = (0.1, 0.5, 1.0, 2.0, 4.0)
_MILLISECONDS: Final = 1000


@dataclass(frozen=True, slots=True)
class ConnectionOverrides:
    """What the fragment of a callback's address changes: `#rc=5&rp=all`."""

    retries: int = 1
    policies: frozenset[str] = frozenset({"ct"})
    connect: float = _CONNECT_SECONDS
    read: float = _READ_SECONDS
    total: float = TOTAL_SECONDS

    @classmethod
    def of(cls, fragment: str) -> "ConnectionOverrides":
        """Those of a fragment; what it does not say, or says wrongly, is as usual."""
        given = {name: values[-1] for name, values in parse_qs(fragment).items()}
        usual = cls()
        return cls(
            retries=min(_number(given.get("rc"), usual.retries), _MOST_RETRIES),
            policies=frozenset(given["rp"].split(",")) if "rp" in given else usual.policies,
            connect=_seconds(given.get("ct"), usual.connect),
            read=_seconds(given.get("rt"), usual.read),
            total=min(_seconds(given.get("tt"), usual.total), TOTAL_SECONDS),
        )

    def retries_after(self, result: "int | str") -> bool:
        """Whether a try with this result, a status or `ct` or `rt`, is followed by another one."""
        if isinstance(result, int):
            if result < 400:  # noqa: PLR2004 - the first status of an error
                return False
            result = f"{result // 100}xx"
        return result in self.policies or "all" in self.policies


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isdecimal() and text.isascii() else otherwise


def _seconds(text: str | None, otherwise: float) -> float:
    milliseconds = _number(text, 0)
    return milliseconds / _MILLISECONDS if milliseconds else otherwise


def signature_of(token: str, url: str, fields: Mapping[str, str]) -> str:
    """X-Twilio-Signature: the address without its fragment, and each field by its name."""
    signed = url + "".join(name + fields[name] for name in sorted(fields))
    return b64encode(hmac.digest(token.encode(), signed.encode(), hashlib.sha1)).decode()


@dataclass(slots=True)
class Callback:
    """One status callback, and what has become of it."""

    status: str
    signature: str = ""
    tries: int = 0
    response: int | None = None
    """The status that the last try was answered with; None if it was not."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it was answered well, or given up."""

    @property
    def acknowledged(self) -> bool:
        return self.response is not None and self.response < 300  # noqa: PLR2004 - 2xx


class CallbackSender:
    """Sends callbacks between `start` and `stop`, signed with `token`."""

    def __init__(self, name: str, token: str) -> None:
        self._name = name
        self._token = token
        self._client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        # Without the proxies of the environment: the address is called as it stands.
        self._client = httpx.AsyncClient(trust_env=False, follow_redirects=False)

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def send(self, callback: Callback, address: str, fields: Mapping[str, str]) -> None:
        """Send a callback until it is answered well, or its tries are over."""
        url, _, fragment = address.partition("#")
        overrides = ConnectionOverrides.of(fragment)
        callback.signature = signature_of(self._token, url, fields)
        headers = {
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
            "User-Agent": "TwilioProxy/1.1",
            "X-Twilio-Signature": callback.signature,
            "I-Twilio-Idempotency-Token": str(uuid.uuid4()),
        }
        body = urlencode(fields).encode()
        try:
            async with asyncio.timeout(overrides.total):
                await self._tries(callback, url, headers, body, overrides)
        except TimeoutError:
            callback.response = None
        finally:
            callback.done.set()
        if not callback.acknowledged:
            _log.warning(
                "status_callback_failed", provider=self._name, status=callback.response or ""
            )

    async def _tries(
        self,
        callback: Callback,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        overrides: ConnectionOverrides,
    ) -> None:
        for number in range(overrides.retries + 1):
            callback.tries += 1
            result = await self._try(url, headers, body, overrides)
            callback.response = result if isinstance(result, int) else None
            if number == overrides.retries or not overrides.retries_after(result):
                return
            await asyncio.sleep(_PAUSES[number])

    async def _try(
        self, url: str, headers: Mapping[str, str], body: bytes, overrides: ConnectionOverrides
    ) -> int | str:
        assert self._client is not None  # noqa: S101 - started
        timeout = httpx.Timeout(overrides.read, connect=overrides.connect)
        try:
            response = await self._client.post(url, content=body, headers=headers, timeout=timeout)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            return "ct"
        except httpx.HTTPError:
            return "rt"
        return response.status_code


def is_callable(address: str) -> bool:
    """Whether Twilio would take an address as StatusCallback: an http or https URL with a host."""
    try:
        url = httpx.URL(address.partition("#")[0])
        return url.scheme in {"http", "https"} and bool(urlsplit(address).hostname)
    except (httpx.InvalidURL, ValueError):
        return False
