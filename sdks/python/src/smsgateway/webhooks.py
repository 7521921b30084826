"""Callbacks of the gateway, verified (Standard Webhooks 1.0.0).

Give `verify_callback` the body exactly as it came: parsing and writing it again changes the bytes
that were signed.
"""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter, ValidationError

from smsgateway.models import CallbackNotice

TOLERANCE_SECONDS = 300.0
_PREFIX = "whsec_"
_SECONDS = re.compile(r"[0-9]{1,15}")
_BODY = TypeAdapter(dict[str, object])
_EVENTS = TypeAdapter(list[dict[str, object]])


class CallbackRefused(ValueError):
    """The request is not a fresh callback signed with this secret: answer 401 and do nothing."""


def verify_callback(
    secret: str | Sequence[str],
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    tolerance: float = TOLERANCE_SECONDS,
    now: float | None = None,
) -> CallbackNotice:
    """The callback in a request, if its signature holds and it is fresh.

    A callback can come more than once: remember `callback_id` where that matters.

    Args:
        secret: `whsec_…`; several while a secret is being replaced.
        headers: of the request, in any case: `webhook-id`, `webhook-timestamp`,
            `webhook-signature`.
        body: the bytes of the request's body.
        tolerance: how many seconds the timestamp may lie before or after `now`.
        now: seconds since 1970; the clock, unless given.

    Raises:
        CallbackRefused: with the reason in a sentence.
        ValueError: a secret is not one.
    """
    callback_id, content = _verified(secret, headers, body, tolerance, now)
    return _notice({**content, "callback_id": callback_id})


def verify_callbacks(
    secret: str | Sequence[str],
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    tolerance: float = TOLERANCE_SECONDS,
    now: float | None = None,
) -> tuple[CallbackNotice, ...]:
    """The callbacks in a request, whether it carries one or, as an account may prefer, a list.

    Those of a message are in the order of its transitions. Arguments and errors are those of
    `verify_callback`.
    """
    callback_id, content = _verified(secret, headers, body, tolerance, now)
    if "events" not in content:
        return (_notice({**content, "callback_id": callback_id}),)
    try:
        events = _EVENTS.validate_python(content["events"])
    except ValidationError:
        raise _not_a_callback() from None
    return tuple(_notice({**event, "callback_id": event.get("id")}) for event in events)


def _verified(
    secret: str | Sequence[str],
    headers: Mapping[str, str],
    body: bytes | str,
    tolerance: float,
    now: float | None,
) -> tuple[str, dict[str, object]]:
    """The id and the content of a request that is signed and fresh."""
    keys = [_key(text) for text in ([secret] if isinstance(secret, str) else secret)]
    raw = body.encode() if isinstance(body, str) else body
    found = {name.lower(): value for name, value in headers.items()}
    callback_id, timestamp, signature = (
        _header(found, name) for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    )
    _check_age(timestamp, time.time() if now is None else now, tolerance)
    signed = b".".join([callback_id.encode(), timestamp.encode(), raw])
    expected = [hmac.digest(key, signed, hashlib.sha256) for key in keys]
    given = _signatures(signature)
    # Every pair is compared, so that the time taken reveals nothing.
    matches = [hmac.compare_digest(ours, theirs) for ours in expected for theirs in given]
    if not any(matches):
        raise CallbackRefused(
            "The signature does not match: the secret is another one, or the body was changed."
        )
    try:
        return callback_id, _BODY.validate_json(raw)
    except ValidationError:
        raise _not_a_callback() from None


def _notice(content: dict[str, object]) -> CallbackNotice:
    try:
        return CallbackNotice.model_validate(content)
    except ValidationError:
        raise _not_a_callback() from None


def _not_a_callback() -> CallbackRefused:
    """To be raised without a cause, which would quote the body, and with it the number."""
    return CallbackRefused("The signature holds, but the body is not a callback of the gateway.")


def _key(secret: str) -> bytes:
    encoded = secret.removeprefix(_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ValueError("A callback secret is whsec_ followed by base64.")
    return key


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise CallbackRefused(f"The header {name} is missing.")
    return value


def _check_age(timestamp: str, now: float, tolerance: float) -> None:
    if not _SECONDS.fullmatch(timestamp):
        raise CallbackRefused("The header webhook-timestamp is not a number of seconds.")
    age = now - int(timestamp)
    if age > tolerance:
        raise CallbackRefused("The callback is too old: it may be a repetition of an earlier one.")
    if age < -tolerance:
        raise CallbackRefused("The callback is from the future: one of the two clocks is wrong.")


def _signatures(header: str) -> list[bytes]:
    found = []
    for versioned in header.split():
        version, _, encoded = versioned.partition(",")
        if version != "v1":
            continue
        try:
            found.append(base64.b64decode(encoded, validate=True))
        except ValueError:
            continue
    return found
