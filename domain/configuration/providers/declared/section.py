"""The section of a declared provider as a whole, consistent in itself."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator
from pydantic_core import InitErrorDetails

from domain.configuration.declared import mistake_at, refuse
from domain.configuration.providers.base import ProviderSecret
from domain.configuration.providers.declared.codes import Code, Codes, code_from_class
from domain.configuration.providers.declared.credentials import Authentication, AuthenticationType
from domain.configuration.providers.declared.receipt import POLL_AFTER, Polling, ReceiptReading
from domain.configuration.providers.declared.request import Idempotency, SendRequest
from domain.configuration.providers.declared.response import ResponseReading
from domain.configuration.providers.declared.samples import Samples
from domain.configuration.providers.declared.templates import (
    PARAMETER,
    SECRET,
    SENDS_TEXT,
    SENDS_TO,
    parse_template,
)
from domain.configuration.providers.http import HttpConfiguration
from domain.configuration.secret_references import SecretReference
from domain.provider_codes import ProviderCode

SecretName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Location = tuple[str | int, ...]


class DeclaredProviderConfiguration(HttpConfiguration):
    """One account at a provider whose HTTP API is described in the section itself."""

    type: Literal["http"] = Field(description="an HTTP API that the section describes")
    secret_references: dict[SecretName, SecretReference] = Field(
        {}, alias="secrets", description="references to secrets, by the names in `{secret:NAME}`"
    )
    authentication: Authentication = Authentication()
    request: SendRequest
    response: ResponseReading = ResponseReading()
    code_table: dict[str, Annotated[Code, BeforeValidator(code_from_class)]] = Field(
        {}, alias="codes", description="the provider's codes: an error class, or a table"
    )
    idempotency: Idempotency | None = Field(
        None, description="by what the provider recognizes a request that comes twice, if it does"
    )
    receipt: ReceiptReading | None = Field(
        None, description="how the provider's receipts are read, if it sends any"
    )
    polling: Polling | None = Field(
        None,
        description="how the state of a message is asked for, if it can be; by default 5 minutes after the "
        "submit (`poll_after`)",
    )
    samples: Samples = Samples()

    @model_validator(mode="before")
    @classmethod
    def _poll_after_is_given(cls, data: object) -> object:
        if isinstance(data, Mapping) and data.get("polling") and "poll_after" not in data:
            return {**data, "poll_after": POLL_AFTER}
        return data

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        refuse(
            type(self).__name__,
            [*self._wrong_secrets(), *self._wrong_request(), *self._wrong_receipts()],
        )
        return self

    # What is wrong with it

    def _wrong_secrets(self) -> Iterator[InitErrorDetails]:
        known = self.secret_references
        used = [
            (location, name)
            for location, text in self._templates()
            for name in sorted(parse_template(text).arguments(SECRET))
        ]
        unknown = [(location, name) for location, name in used if name not in known]
        for location, name in unknown:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f'; did you mean "{close[0]}"?' if close else ""
            sentence = f"it has a secret that is not declared in secrets{hint}"
            yield mistake_at(*location, sentence=sentence)
        if unknown:
            return  # one of the secrets that nothing uses may be meant
        for name in sorted(known.keys() - {name for _, name in used}):
            sentence = f"no key uses this secret: write {{secret:{name}}} where it is needed"
            yield mistake_at("secrets", name, sentence=sentence)

    def _wrong_request(self) -> Iterator[InitErrorDetails]:
        names = {each.name for template in self.request.parsed() for each in template.placeholders}
        if not names & SENDS_TO:
            yield mistake_at("request", sentence="no key has the recipient's number: write {to}")
        if not names & SENDS_TEXT:
            yield mistake_at("request", sentence="no key has the text: write {text}")
        if "coding" in names and self.request.coding is None:
            yield mistake_at(
                "request", "coding", sentence="{coding} needs its values: gsm7 and ucs2"
            )
        kind = self.authentication.type
        if kind is AuthenticationType.FORM and self.request.form is None:
            yield mistake_at("authentication", "type", sentence="the request has no form")
        if kind is AuthenticationType.HMAC and not self.request.has_body:
            yield mistake_at(
                "authentication", "type", sentence="the request has no body to be signed"
            )
        if (
            self.idempotency is not None
            and self.idempotency.header is None
            and "reference" not in names
        ):
            sentence = "no key of the request has it: write {reference}"
            yield mistake_at("idempotency", "duplicate_codes", sentence=sentence)

    def _wrong_receipts(self) -> Iterator[InitErrorDetails]:
        if self.receipts and self.receipt is None and self.polling is None:
            sentence = "nothing says how receipts are read: add receipt or polling, or set receipts = false"
            yield mistake_at("receipt", sentence=sentence)
        if not self.receipts and self.receipt is not None:
            yield mistake_at("receipt", sentence="it has no effect while receipts is false")
        if self.poll_after is not None and self.polling is None:
            yield mistake_at("poll_after", sentence="nothing says how to ask: add polling")
        if self.polling is not None and self.response.id is None:
            yield mistake_at("polling", sentence="messages cannot be asked for without response.id")
        kind = self.authentication.type
        if (
            self.polling is not None
            and kind is AuthenticationType.FORM
            and self.polling.form is None
        ):
            yield mistake_at(
                "polling", "form", sentence="it is missing: the credentials are in a form"
            )
        if (
            self.polling is not None
            and kind is AuthenticationType.HMAC
            and self.polling.form is None
        ):
            yield mistake_at(
                "polling", "form", sentence="it is missing: the credentials sign a body"
            )

    def _templates(self) -> Iterator[tuple[Location, str]]:
        """Where each template is in the section, and the template."""
        tables: list[tuple[Location, Any]] = [
            (("authentication",), self.authentication),
            (("request",), self.request),
            (("polling",), self.polling),
            (("receipt", "signature"), None if self.receipt is None else self.receipt.signature),
        ]
        for location, table in tables:
            for path, template in () if table is None else table.templates():
                yield (*location, *path), template

    # What the gateway asks of it

    def secrets(self) -> Sequence[ProviderSecret]:
        return [
            ProviderSecret(name, reference, is_literal=False, check=_usable_secret, table="secrets")
            for name, reference in self.secret_references.items()
        ]

    @cached_property
    def known_codes(self) -> Codes:
        """What the provider's codes mean."""
        table = {code: each.as_code() for code, each in self.code_table.items()}
        return Codes(table, self.errors)

    def codes(self) -> Mapping[str, ProviderCode]:
        return self.known_codes.table

    @cached_property
    def _parameters(self) -> frozenset[str]:
        return frozenset(
            name for template in self.request.parsed() for name in template.arguments(PARAMETER)
        )

    def known_parameters(self) -> frozenset[str]:
        return self._parameters

    def mistakes(self) -> Iterator[tuple[Location, str]]:
        for path, sentence in self.samples.mistakes(self.response, self.receipt, self.known_codes):
            yield ("samples", *path), sentence


def _usable_secret(secret: str) -> None:
    """Refuse a secret that cannot be a part of a header or of a form.

    Raises:
        ValueError: it is empty, or has line breaks or other characters that no secret has.
    """
    if not secret or not secret.isprintable():
        raise ValueError(
            "the secret is empty, or has line breaks or other characters that no key has"
        )
