"""Requests as a configuration declares them: targets, headers and bodies, filled in and encoded."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from domain.configuration.providers.declared.credentials import AuthenticationType, written_hmac
from domain.configuration.providers.declared.request import filled_fields
from domain.configuration.providers.declared.templates import SECRET, Placeholder, parse_template
from domain.parameters import UnusableParameter
from domain.values import value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from domain.configuration.providers.declared.credentials import Authentication
    from domain.configuration.providers.declared.templates import Values

FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"


@value
class WrittenRequest:
    """A request as it is sent; `target` is percent-encoded, and begins with a slash."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None


class RequestWriter:
    """Writes requests in the account's name. `secrets` are by their names in the configuration."""

    def __init__(self, authentication: Authentication, secrets: Mapping[str, str]) -> None:
        self._authentication = authentication
        self._secrets = secrets

    def write(
        self,
        method: str,
        path: str,
        values: Values,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        form: Mapping[str, str] | None = None,
        json_body: Any = None,
    ) -> WrittenRequest:
        """A request whose templates are filled in; `json_body` is filled in already.

        Raises:
            UnusableParameter: a value cannot stand in the path or in a header.
        """
        kind = self._authentication.type
        fields = filled_fields(self._authentication.fields or {}, self._secret)
        query_fields = filled_fields(query, values)
        if kind is AuthenticationType.QUERY:
            query_fields = fields + query_fields
        body, content_type = None, None
        if form is not None:
            own = fields if kind is AuthenticationType.FORM else []
            body, content_type = urlencode([*own, *filled_fields(form, values)]).encode(), FORM
        elif json_body is not None:
            written = json.dumps(json_body, ensure_ascii=False, separators=(",", ":"))
            body, content_type = written.encode(), JSON
        written_headers = {} if content_type is None else {"content-type": content_type}
        written_headers |= {name.lower(): each for name, each in filled_fields(headers, values)}
        written_headers |= self._credentials(body or b"")
        for name, each in written_headers.items():
            if not each.isascii() or not each.isprintable():
                raise UnusableParameter(name)
        target = _path(path, values)
        if query_fields:
            target += "?" + urlencode(query_fields, quote_via=quote, safe="")
        return WrittenRequest(method, target, written_headers, body)

    def _secret(self, placeholder: Placeholder) -> str | None:
        return self._secrets[placeholder.argument] if placeholder.name == SECRET else None

    def _filled(self, template: str | None) -> str:
        return parse_template(template or "").fill(self._secret) or ""

    def _credentials(self, body: bytes) -> Mapping[str, str]:
        """The headers that authenticate a request with this body."""
        declared = self._authentication
        match declared.type:
            case AuthenticationType.BASIC:
                pair = f"{self._filled(declared.user)}:{self._filled(declared.password)}"
                return {"authorization": f"Basic {b64encode(pair.encode()).decode()}"}
            case AuthenticationType.BEARER:
                return {"authorization": f"Bearer {self._filled(declared.token)}"}
            case AuthenticationType.HEADER:
                return {(declared.header or "").lower(): self._filled(declared.value)}
            case AuthenticationType.HMAC:
                key = self._filled(declared.secret)
                digest = written_hmac(key, body, declared.hash, declared.encoding)
                return {(declared.header or "").lower(): f"{declared.prefix}{digest}"}
            case AuthenticationType.NONE | AuthenticationType.QUERY | AuthenticationType.FORM:
                return {}


def _path(template: str, values: Values) -> str:
    """The path with its values, of which each is a part of one segment.

    Raises:
        UnusableParameter: a value is missing, or makes a segment that is . or ..
    """
    path = parse_template(template).fill(values, lambda text: quote(text, safe=""))
    if path is None or any(segment in {".", ".."} for segment in path.split("/")):
        raise UnusableParameter("path")
    return path
