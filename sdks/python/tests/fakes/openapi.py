"""Whether what clients and fakes say to each other is what an OpenAPI 3.1 document allows.

`SMSGATEWAY_OPENAPI` names one, by path or address; else it is that of the gateway of this checkout.
"""

import json
import os
import re
import urllib.request
from collections.abc import Iterable, Mapping
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from sdks.python.tests.fakes.gateway import Exchange

WHERE = "SMSGATEWAY_OPENAPI"
_DOCUMENT = "urn:openapi"
_FOR_CLIENTS = "/api/"
_METHODS = frozenset({"get", "put", "post", "delete", "patch"})


def document_of_a_gateway() -> dict[str, Any] | None:
    """The document that the environment names, or of this checkout; None if there is neither."""
    place = os.environ.get(WHERE)
    if not place:
        return _document_of_this_checkout() if find_spec("api") else None
    if place.startswith(("http://", "https://")):
        with urllib.request.urlopen(place, timeout=10) as response:  # noqa: S310  # http(s) only
            document: dict[str, Any] = json.load(response)
    else:
        document = json.loads(Path(place).read_text())
    return document


def _document_of_this_checkout() -> dict[str, Any]:
    settings = SimpleNamespace(
        max_body_bytes=1 << 20,
        max_batch_bytes=1 << 23,
        max_webhook_bytes=1 << 20,
        request_timeout=timedelta(minutes=1),
    )
    application = import_module("api.app").create_app(SimpleNamespace(settings=settings))
    document: dict[str, Any] = application.openapi()
    return document


def breaches(document: Mapping[str, Any], exchanges: Iterable[Exchange]) -> list[str]:
    """Where requests, or the answers to them, are not as the document says; empty is good."""
    return [sentence for exchange in exchanges for sentence in _Check(document, exchange).all()]


def operations(document: Mapping[str, Any]) -> set[str]:
    """All that the API offers to clients, as `METHOD path`."""
    return {
        f"{method.upper()} {path}"
        for path, item in document["paths"].items()
        for method in item
        if path.startswith(_FOR_CLIENTS) and method in _METHODS
    }


def used(document: Mapping[str, Any], exchanges: Iterable[Exchange]) -> set[str]:
    """Those of the operations that the exchanges are of."""
    found = (_place(document, exchange) for exchange in exchanges)
    return {f"{method.upper()} {path}" for path, method in filter(None, found)}


def _place(document: Mapping[str, Any], exchange: Exchange) -> tuple[str, str] | None:
    """The path and the method under which an exchange's operation stands in the document."""
    # A path without parameters stands before one with them (OpenAPI 3.1, 4.8.8.1).
    for template in sorted(document["paths"], key=lambda path: path.count("{")):
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
        method = exchange.method.lower()
        if re.fullmatch(pattern, exchange.path) and method in document["paths"][template]:
            return template, method
    return None


class _Check:
    def __init__(self, document: Mapping[str, Any], exchange: Exchange) -> None:
        self.document = document
        self.exchange = exchange
        resource = Resource.from_contents(document, default_specification=DRAFT202012)
        self.registry: Registry[Any] = Registry().with_resource(_DOCUMENT, resource)

    def all(self) -> list[str]:
        exchange = self.exchange
        found = self._operation()
        if found is None:
            return [f"{exchange.method} {exchange.path}: there is no such operation."]
        operation, parameters = found
        sentences = [
            *self._parameters(parameters),
            *self._request_body(operation),
            *self._response(operation),
        ]
        return [f"{exchange.method} {exchange.path}: {sentence}" for sentence in sentences]

    def _operation(self) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]] | None:
        place = _place(self.document, self.exchange)
        if place is None:
            return None
        path, method = place
        item = self.document["paths"][path]
        both = [*item.get("parameters", []), *item[method].get("parameters", [])]
        return item[method], [self._resolved(parameter) for parameter in both]

    def _parameters(self, parameters: list[Mapping[str, Any]]) -> list[str]:
        sentences = []
        queries = {p["name"]: p for p in parameters if p["in"] == "query"}
        for name, text in self.exchange.query:
            if name not in queries:
                sentences.append(f"the query parameter {name} is not known.")
            else:
                sentences += self._mismatches(queries[name]["schema"], text, f"query {name}")
        given = {name for name, _ in self.exchange.query}
        for parameter in parameters:
            name = parameter["name"]
            if parameter["in"] == "query" and parameter.get("required") and name not in given:
                sentences.append(f"the query parameter {name} is required.")
            if parameter["in"] == "header":
                text = self.exchange.headers.get(name.lower())
                if text is not None:
                    sentences += self._mismatches(parameter["schema"], text, f"header {name}")
                elif parameter.get("required"):
                    sentences.append(f"the header {name} is required.")
        return sentences

    def _request_body(self, operation: Mapping[str, Any]) -> list[str]:
        declared = self._resolved(operation.get("requestBody", {}))
        if not self.exchange.body:
            return ["a body is required."] if declared.get("required") else []
        if not declared:
            return ["no body is expected."]
        return self._content(
            declared["content"], self.exchange.headers, self.exchange.body, "request"
        )

    def _response(self, operation: Mapping[str, Any]) -> list[str]:
        status = self.exchange.status
        responses = operation["responses"]
        declared = next(
            (
                responses[s]
                for s in (str(status), f"{status // 100}XX", "default")
                if s in responses
            ),
            None,
        )
        if declared is None:
            return [f"the response {status} is not documented."]
        content = self._resolved(declared).get("content")
        if not content or not self.exchange.response:
            return []
        return self._content(
            content, self.exchange.response_headers, self.exchange.response, "response"
        )

    def _content(
        self,
        content: Mapping[str, Any],
        headers: Mapping[str, str],
        body: bytes,
        what: str,
    ) -> list[str]:
        media = headers.get("content-type", "").partition(";")[0]
        if media not in content:
            return [f"the {what} is {media or 'of no type'}, not one of {sorted(content)}."]
        if not media.endswith("json") or "schema" not in content[media]:
            return []
        return self._errors(content[media]["schema"], json.loads(body), what)

    def _mismatches(self, schema: Mapping[str, Any], text: str, what: str) -> list[str]:
        """A parameter is text on the wire; it fits if any reading of it fits."""
        readings: list[Any] = [text]
        if re.fullmatch(r"-?\d+", text):
            readings.append(int(text))
        if text in {"true", "false"}:
            readings.append(text == "true")
        found = [self._errors(schema, reading, what) for reading in readings]
        return min(reversed(found), key=len)

    def _errors(self, schema: Mapping[str, Any], value: Any, what: str) -> list[str]:
        anchored = _anchored(schema)
        validator = Draft202012Validator(
            anchored, registry=self.registry, format_checker=FormatChecker()
        )
        return [
            f"{what} at {error.json_path}: {error.validator} does not hold."
            for error in validator.iter_errors(value)
        ]

    def _resolved(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in node:
            return node
        resolver = self.registry.resolver(_DOCUMENT)
        found: Mapping[str, Any] = resolver.lookup(node["$ref"]).contents
        return found


def _anchored(node: Any) -> Any:
    """The schema with its references made absolute, so that it can stand alone."""
    if isinstance(node, Mapping):
        return {
            key: _DOCUMENT + quote(value, safe="#/~%")
            if key == "$ref" and isinstance(value, str)
            else _anchored(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_anchored(item) for item in node]
    return node
