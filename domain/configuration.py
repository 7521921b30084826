"""What an installation declares: providers, routes, and the policies of modes, errors and accounts.

These are values only. `settings/configuration_file.py` reads them from TOML and says where a
mistake stands; a `Configuration` that exists is consistent in itself (a route names no provider
that is missing). Secrets are references, never values, so that a configuration can be stored.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from phonenumbers import SUPPORTED_REGIONS
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from domain.callbacks import MOST_EVENTS
from domain.encoding import DefaultAlphabet
from domain.errors import RETRIES, ErrorClass, RetryRule
from domain.modes import (
    MODE_POLICIES,
    MissingReceiptPolicy,
    Mode,
    ModePolicy,
    Priority,
    UnknownPolicy,
)
from domain.numbers import UNKNOWN_COUNTRY
from domain.segments import PartMethod

# --- durations ---------------------------------------------------------------------------------

_UNITS: Mapping[str, timedelta] = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_BARE = timedelta(seconds=1)
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d|)", re.ASCII)
_LONGEST = timedelta(days=3660)


def parse_duration(value: object) -> timedelta:
    """A duration from "500ms", "30s", "10m", "24h", "35d", or from a number of seconds.

    Raises:
        ValueError: with a sentence, if it is none of these, negative, or longer than ten years.
    """
    duration: timedelta | None = None
    match value:
        case timedelta():
            duration = value
        case bool():
            pass
        case int() | float() if abs(value) <= _LONGEST.total_seconds():
            duration = timedelta(seconds=value)
        case str() if found := _DURATION.fullmatch(value):
            seconds = float(found[1]) * _UNITS.get(found[2], _BARE).total_seconds()
            duration = timedelta(seconds=min(seconds, 2 * _LONGEST.total_seconds()))
        case _:
            pass
    if duration is None or not timedelta() <= duration <= _LONGEST:
        raise ValueError(
            'a duration is written like "500ms", "30s", "10m", "24h" or "35d", '
            "or as a number of seconds, and is at most ten years"
        )
    return duration


def format_duration(duration: timedelta) -> str:
    """The shortest text that `parse_duration` reads back as the same duration."""
    for unit, size in _UNITS.items():
        if duration and duration % size == timedelta():
            return f"{duration // size}{unit}"
    return f"{duration.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"


def _longer_than_zero(duration: timedelta) -> timedelta:
    if not duration:
        raise ValueError("the duration must be longer than zero")
    return duration


Delay = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
]
"""A duration that may be zero."""

Duration = Annotated[Delay, AfterValidator(_longer_than_zero)]
"""A duration longer than zero."""

# --- words and names ---------------------------------------------------------------------------


class Environment(StrEnum):
    """Live traffic, or tests; keys reach only providers of their own environment."""

    LIVE = "live"
    TEST = "test"


ProviderName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
"""Becomes a task queue and a metric label: short, lower case, closed set."""

AccountName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]

_COMMON_SLIPS: Mapping[str, str] = {"UK": "GB", "EN": "GB", "USA": "US", "EL": "GR"}


def _known_country(country: str) -> str:
    if country in SUPPORTED_REGIONS or country == UNKNOWN_COUNTRY:
        return country
    meant = _COMMON_SLIPS.get(country.upper(), country.upper())
    hint = f'; did you mean "{meant}"?' if meant in SUPPORTED_REGIONS else ""
    raise ValueError(f'a country is two capital letters of ISO 3166-1, such as "US"{hint}')


Country = Annotated[str, AfterValidator(_known_country)]
Network = Annotated[str, StringConstraints(pattern=r"^([0-9]{5,6}|unknown)$")]
"""MCC and MNC as five or six digits, or "unknown"."""

SECRET_SCHEMES: Mapping[str, bool] = {"env": True, "file": True, "vault": False, "aws-sm": False}
"""Schemes of secret references, and whether this version can resolve them."""


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
    if scheme == "file" and not name.startswith("/"):
        raise ValueError('"file:" is followed by an absolute path, such as "file:/run/secrets/x"')
    return reference


SecretReference = Annotated[str, AfterValidator(checked_secret_reference)]
"""Where a secret is found, such as "env:NAME"; `settings.secrets` resolves it at use."""


class Declared(BaseModel):
    """What every part of a configuration has in common: frozen, and no key passes unknown.

    Inputs stay out of error texts, because a mistyped secret would be among them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _at(*location: str | int, sentence: str) -> InitErrorDetails:
    """A mistake that stands in another place than the value being validated."""
    escaped = sentence.replace("{", "{{").replace("}", "}}")
    return InitErrorDetails(type=PydanticCustomError("mistake", escaped), loc=location, input=None)


def _refuse(title: str, mistakes: Sequence[InitErrorDetails]) -> None:
    if mistakes:
        raise ValidationError.from_exception_data(title, list(mistakes), hide_input=True)


# --- providers ---------------------------------------------------------------------------------


class TlsOptions(Declared):
    """How a connection is encrypted; paths are of PEM files on the machine that connects."""

    ca: str | None = Field(
        None, description="file of the authorities to trust; the system's otherwise"
    )
    cert: str | None = Field(None, description="file of our certificate, if the carrier asks")
    key: str | None = Field(None, description="file of that certificate's private key")
    verify: StrictBool = Field(True, description="whether the carrier's certificate is checked")

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together: give both or neither")
        return self


def _tls_from_switch(value: object) -> object:
    if value is True:
        return {}
    return None if value is False else value


class Backoff(Declared):
    """How long to wait before a new try: `min` at first, doubled up to `max`."""

    min: Duration = Field(timedelta(seconds=1), description="before the first try")
    max: Duration = Field(timedelta(seconds=60), description="the longest that is waited")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError("min must not be longer than max")
        return self


class MessageIdForm(StrEnum):
    """How an SMSC writes a message id; many answer in one base and send receipts in another."""

    AS_IS = "as_is"
    HEX = "hex"
    DECIMAL = "decimal"

    def canonical(self, written: str) -> str:
        """An id in the one form that answers and receipts are compared in.

        Hexadecimal and decimal ids become decimal without zeros in front; what is not such a number
        stays as it is.
        """
        base = _BASES.get(self)
        try:
            return str(int(written, base)) if base and written.isalnum() else written
        except ValueError:
            return written


_BASES: Mapping[MessageIdForm, int] = {MessageIdForm.HEX: 16, MessageIdForm.DECIMAL: 10}


class MessageIdForms(Declared):
    """The forms of the id in `submit_sm_resp` and in receipts."""

    response: MessageIdForm = Field(MessageIdForm.AS_IS, description="the base in submit_sm_resp")
    receipt: MessageIdForm = Field(MessageIdForm.AS_IS, description="the base in receipts")


Octet = Annotated[StrictInt, Field(ge=0, le=0xFF)]


class DataCodings(Declared):
    """Values of `data_coding` that the SMSC expects for each encoding."""

    gsm7: Octet = Field(0, description="data_coding of GSM-7, or of what `alphabet` says")
    ucs2: Octet = Field(8, description="data_coding of UCS-2")


class ValidityForm(StrEnum):
    """How `validity_period` is sent (SMPP 3.4, 7.1.1); NONE leaves it to the SMSC."""

    RELATIVE = "relative"
    ABSOLUTE = "absolute"
    NONE = "none"


class BindStyle(StrEnum):
    """One session for both directions, or a pair of sessions."""

    TRANSCEIVER = "transceiver"
    TRANSMITTER_RECEIVER = "transmitter_receiver"


# Written by the gateway itself, SMPP 3.4, 5.3.2: a second one would contradict the first.
_OWN_TLVS: Mapping[int, str] = {
    0x0204: "user_message_reference",
    0x020C: "sar_msg_ref_num",
    0x020E: "sar_total_segments",
    0x020F: "sar_segment_seqnum",
    0x0424: "message_payload",
}


class VendorTlv(Declared):
    """A TLV that is sent with every message; exactly one of `text`, `hex` and `number` is given."""

    tag: Annotated[StrictInt, Field(ge=1, le=0xFFFF)] = Field(
        description="such as 0x1400; sent with every message"
    )
    text: Annotated[str, StringConstraints(max_length=255)] | None = Field(
        None, description="the value as UTF-8, without a NUL at its end"
    )
    hex: Annotated[str, StringConstraints(pattern=r"^([0-9A-Fa-f]{2}){0,255}$")] | None = Field(
        None, description="the value as hexadecimal digits, instead of `text`"
    )
    number: Annotated[StrictInt, Field(ge=0)] | None = Field(
        None, description="the value as a number, instead of `text`"
    )
    size: Annotated[StrictInt, Field(ge=1, le=8)] | None = Field(
        None, description="octets of `number`, which is sent with the highest first"
    )

    @model_validator(mode="after")
    def _has_one_value(self) -> Self:
        if self.tag in _OWN_TLVS:
            name = _OWN_TLVS[self.tag]
            raise ValueError(f"the gateway itself writes {name} (0x{self.tag:04X}): leave it out")
        if sum(value is not None for value in (self.text, self.hex, self.number)) != 1:
            raise ValueError("give exactly one of text, hex and number")
        if (self.number is None) != (self.size is None):
            raise ValueError("number and size belong together: size is the octets of the number")
        if self.number is not None and self.size and self.number >= 1 << (8 * self.size):
            raise ValueError(f"the number does not fit into {self.size} octets")
        return self

    @property
    def value(self) -> bytes:
        """The octets as sent; `text` in UTF-8 without a terminating NUL (give `hex` for one)."""
        if self.text is not None:
            return self.text.encode()
        if self.hex is not None:
            return bytes.fromhex(self.hex)
        return (self.number or 0).to_bytes(self.size or 1, "big")


_HIGHEST_STATUS = 0xFFFFFFFF


def _command_status(key: object) -> int:
    text = str(key)
    try:
        status = int(text, 16) if text.lower().startswith("0x") else int(text)
    except ValueError:
        status = 0
    if not 0 < status <= _HIGHEST_STATUS:
        raise ValueError('a command status is written like "0x00000045", or as a decimal number')
    return status


CommandStatus = Annotated[
    int,
    BeforeValidator(_command_status),
    PlainSerializer(lambda status: f"0x{status:08X}", return_type=str, when_used="json"),
]

# SMPP 3.4, 4.1.1 and 4.4.1: sizes of the fields without their NUL.
SystemId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,15}$")]
SystemType = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{0,12}$")]
_LONGEST_PASSWORD = 8

# What `type = "simulator"` need not say; the name and the password are no secret.
_SIMULATOR: Mapping[str, Any] = {
    "host": "127.0.0.1",
    "port": 2775,
    "system_id": "simulator",
    "password": "simulate",
}


class SmppProvider(Declared):
    """One account at an SMSC (SMPP 3.4), or at the simulator, which speaks the same."""

    type: Literal["smpp", "simulator"] = Field(
        description="a simulator needs no address and may have its password here"
    )
    host: Annotated[str, StringConstraints(min_length=1, max_length=253)] = Field(
        description="name or address of the SMSC"
    )
    port: Annotated[StrictInt, Field(ge=1, le=65535)] = Field(2775, description="its port")
    system_id: SystemId = Field(description="who we are to it")
    password: str = Field(description="a secret reference; behind it at most 8 characters")
    system_type: SystemType = Field("", description="what the carrier asks for, mostly nothing")
    environment: Environment = Field(
        Environment.LIVE, description="which keys' messages may go here"
    )

    bind: BindStyle = Field(
        BindStyle.TRANSCEIVER, description="one session both ways, or a pair of them"
    )
    binds: Annotated[StrictInt, Field(ge=1, le=64)] = Field(
        2, description="sessions in total, over all processes"
    )
    window: Annotated[StrictInt, Field(ge=1, le=10_000)] = Field(
        100, description="unanswered submits a bind"
    )
    rate: Annotated[float, Field(gt=0, le=100_000, strict=True)] | None = Field(
        None, description="messages a second, over all processes; without it no limit"
    )
    tls: Annotated[TlsOptions | None, BeforeValidator(_tls_from_switch)] = Field(
        None, description="true, or a table of options"
    )

    connect_timeout: Duration = Field(
        timedelta(seconds=5), description="for the connection and the bind"
    )
    response_timeout: Duration = Field(
        timedelta(seconds=10),
        description="how long an answer is waited for; then the outcome is unknown",
    )
    enquire_link: Duration = Field(
        timedelta(seconds=30), description="silence after which the link is tested"
    )
    rebind_backoff: Backoff = Field(
        Backoff(), description="waits between tries to bind again, doubled each time"
    )

    receipts: StrictBool = Field(
        True, description='whether receipts come; without them messages end at "sent"'
    )
    receipt_deadline: Duration = Field(
        timedelta(minutes=30), description="how long a receipt is waited for"
    )
    receipt_secret: SecretReference | None = Field(
        None, description="what signs this provider's receipts at POST /webhooks/sms-delivery"
    )
    message_id: MessageIdForms = MessageIdForms()
    echoes_reference: StrictBool = Field(
        False, description="whether receipts carry our user_message_reference"
    )

    alphabet: DefaultAlphabet = Field(
        DefaultAlphabet.GSM7, description="what the SMSC takes data_coding 0 to mean"
    )
    data_coding: DataCodings = DataCodings()
    parts: PartMethod = Field(
        PartMethod.UDH8, description="how the parts of a long message are joined"
    )
    validity: ValidityForm = Field(
        ValidityForm.RELATIVE, description="how validity_period is written"
    )
    cancel: StrictBool = Field(True, description="whether the SMSC knows cancel_sm")
    source_ton: Octet | None = Field(None, description="instead of what the sender suggests")
    source_npi: Octet | None = Field(None, description="instead of what the sender suggests")
    destination_ton: Octet | None = Field(None, description="instead of 1, international")
    destination_npi: Octet | None = Field(None, description="instead of 1, E.164")
    tlvs: tuple[VendorTlv, ...] = ()
    errors: dict[CommandStatus, ErrorClass] = Field(
        {}, description="what this SMSC means by a command status, where it differs"
    )

    @model_validator(mode="before")
    @classmethod
    def _simulator_needs_no_address(cls, data: object) -> object:
        if isinstance(data, Mapping) and data.get("type") == "simulator":
            return {**_SIMULATOR, **data}
        return data

    @field_validator("password")
    @classmethod
    def _password_is_a_reference(cls, password: str, info: ValidationInfo) -> str:
        if info.data.get("type") != "simulator":
            return checked_secret_reference(password)
        scheme = password.partition(":")[0]
        if ":" in password and scheme in SECRET_SCHEMES:
            return checked_secret_reference(password)
        if len(password) > _LONGEST_PASSWORD:
            raise ValueError(f"an SMPP password has at most {_LONGEST_PASSWORD} characters")
        return password

    @field_validator("tlvs")
    @classmethod
    def _one_value_for_each_tag(cls, tlvs: tuple[VendorTlv, ...]) -> tuple[VendorTlv, ...]:
        tags = [tlv.tag for tlv in tlvs]
        _refuse(
            cls.__name__,
            [
                _at(place, "tag", sentence=f"0x{tag:04X} is given twice")
                for place, tag in enumerate(tags)
                if tag in tags[:place]
            ],
        )
        return tlvs

    @property
    def password_is_literal(self) -> bool:
        """Whether `password` is the password itself, which only a simulator's may be."""
        return self.password.partition(":")[0] not in SECRET_SCHEMES


ProviderConfiguration = SmppProvider
"""Any provider: a union discriminated by `type` as soon as there is a second class."""

# --- routes ------------------------------------------------------------------------------------


class Match(Declared):
    """Which messages a route takes; what is left empty matches everything."""

    countries: tuple[Country, ...] = Field((), description="of the recipient's number")
    modes: tuple[Mode, ...] = Field((), description="of the message")
    senders: tuple[str, ...] = Field((), description="by their exact text")
    networks: tuple[Network, ...] = Field((), description="of the recipient, as MCC and MNC")
    accounts: tuple[AccountName, ...] = Field((), description="whose messages")
    environment: Environment | None = Field(None, description="of the key")

    def covers(
        self,
        *,
        country: str,
        mode: Mode,
        sender: str,
        network: str,
        account: str,
        environment: Environment,
    ) -> bool:
        """Whether a message with these properties takes this route."""
        return (
            (not self.countries or country in self.countries)
            and (not self.modes or mode in self.modes)
            and (not self.senders or sender in self.senders)
            and (not self.networks or network in self.networks)
            and (not self.accounts or account in self.accounts)
            and self.environment in {None, environment}
        )


class Strategy(StrEnum):
    """How the providers of a route are ordered."""

    PRIORITY = "priority"
    """In the order of the list."""


_LATER_STRATEGIES = frozenset({"cost", "balanced"})


class Route(Declared):
    """Messages that match, and the providers to try for them."""

    match: Match = Match()
    strategy: Strategy = Field(Strategy.PRIORITY, description="in the order of the list")
    providers: tuple[ProviderName, ...] = Field(description="which to try, the first one first")

    @field_validator("strategy", mode="before")
    @classmethod
    def _strategy_works_already(cls, strategy: object) -> object:
        if isinstance(strategy, str) and strategy in _LATER_STRATEGIES:
            raise ValueError(
                f'the strategy "{strategy}" is not supported yet: use "priority", '
                "which tries the providers in the order of the list"
            )
        return strategy

    @field_validator("providers")
    @classmethod
    def _names_each_provider_once(cls, providers: tuple[str, ...]) -> tuple[str, ...]:
        if not providers:
            raise ValueError("a route needs at least one provider")
        _refuse(
            cls.__name__,
            [
                _at(place, sentence=f'"{name}" is listed twice')
                for place, name in enumerate(providers)
                if name in providers[:place]
            ],
        )
        return providers


# --- policies ----------------------------------------------------------------------------------

Attempts = Annotated[StrictInt, Field(ge=1, le=100)]
Senders = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1, max_length=20)], ...],
    BeforeValidator(lambda senders: (senders,) if isinstance(senders, str) else senders),
]
"""Senders by their exact text, or "*" for all; one alone needs no list."""


class ModeOverrides(Declared):
    """What an installation wants otherwise than `domain.modes.MODE_POLICIES` for one mode."""

    priority: Priority | None = Field(None, description="where a request names none")
    validity: Duration | None = Field(None, description="where a request names none")
    unknown: UnknownPolicy | None = Field(
        None, description="what to do when a provider never answered"
    )
    missing_receipt: MissingReceiptPolicy | None = Field(
        None, description="what to do when no receipt came by its deadline"
    )
    max_attempts: Attempts | None = Field(None, description="for a message, until it is replayed")
    outage_patience: Delay | None = Field(
        None, description="how long to wait while no provider of the route is up"
    )
    senders: Senders | None = Field(
        None, description="senders that this mode may use, within those of the account"
    )

    def apply_to(self, policy: ModePolicy) -> ModePolicy:
        """The policy with these overrides."""
        return replace(policy, **self.model_dump(exclude_none=True, exclude={"senders"}))


class RetryOverrides(Declared):
    """What an installation wants otherwise than `domain.errors.RETRIES` for one class."""

    same_provider_attempts: Attempts | None = Field(
        None, description="how often one provider is tried"
    )
    delay: Delay | None = Field(None, description="before the second try, then doubled")
    max_delay: Delay | None = Field(None, description="the longest that is waited")

    def apply_to(self, rule: RetryRule) -> RetryRule:
        """The rule with these overrides; a longer `delay` alone lifts `max_delay` with it."""
        delay = rule.delay if self.delay is None else self.delay
        longest = max(rule.max_delay, delay) if self.max_delay is None else self.max_delay
        return replace(
            rule,
            attempts=self.same_provider_attempts or rule.attempts,
            delay=delay,
            max_delay=longest,
        )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.delay is not None and self.max_delay is not None and self.delay > self.max_delay:
            raise ValueError("delay must not be longer than max_delay")
        return self


class AccountPolicy(Declared):
    """What an account may do; an account that is not declared has the defaults."""

    senders: Senders = Field(("*",), description='senders that it may use, or "*" for all')
    default_callback_url: (
        Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#]+\S*$", max_length=2048)]
        | None
    ) = Field(None, description="where events go when a request names no callback_url")
    callback_secret: SecretReference | None = Field(
        None, description="what signs this account's callbacks"
    )
    callback_final_only: StrictBool = Field(
        False, description="whether only the end of a message is told, and not that it was sent"
    )
    callback_events_per_request: Annotated[StrictInt, Field(ge=1, le=MOST_EVENTS)] = Field(
        1, description="how many events a callback may carry; above 1 they come as a list"
    )
    max_segments: Annotated[StrictInt, Field(ge=1, le=255)] = Field(
        10, description="longest message, in parts"
    )
    schedule_horizon: Duration = Field(
        timedelta(days=35), description="how far ahead a message may be scheduled"
    )

    def allows_sender(self, sender: str) -> bool:
        """Whether the account may send as this sender."""
        return "*" in self.senders or sender in self.senders


class CallbackPolicy(Declared):
    """How the events of all accounts are delivered."""

    allow_private_addresses: StrictBool = Field(
        False, description="whether callbacks may go to loopback and private networks"
    )
    timeout: Duration = Field(timedelta(seconds=15), description="for one request, redirects too")
    retry_delays: tuple[Duration, ...] = Field(
        (
            timedelta(seconds=5),
            timedelta(minutes=5),
            timedelta(minutes=30),
            timedelta(hours=2),
            timedelta(hours=5),
            timedelta(hours=10),
            timedelta(hours=14),
            timedelta(hours=20),
            timedelta(hours=24),
        ),
        description="waits between tries; after the last one a callback is given up",
    )


# --- all together ------------------------------------------------------------------------------


class Configuration(Declared):
    """Everything that an installation declares."""

    providers: dict[ProviderName, ProviderConfiguration]
    routes: tuple[Route, ...]
    modes: dict[Mode, ModeOverrides] = {}
    retries: dict[ErrorClass, RetryOverrides] = {}
    accounts: dict[AccountName, AccountPolicy] = {}
    callbacks: CallbackPolicy = CallbackPolicy()

    @model_validator(mode="after")
    def _routes_name_providers_that_exist(self) -> Self:
        mistakes: list[InitErrorDetails] = []
        for number, route in enumerate(self.routes):
            for place, name in enumerate(route.providers):
                sentence = self._wrong_with(route, name)
                if sentence:
                    mistakes.append(_at("routes", number, "providers", place, sentence=sentence))
        _refuse(type(self).__name__, mistakes)
        return self

    def _wrong_with(self, route: Route, name: str) -> str | None:
        provider = self.providers.get(name)
        if provider is None:
            known = ", ".join(sorted(self.providers)) or "none"
            return f'there is no provider "{name}"; declared are: {known}'
        wanted = route.match.environment
        if wanted not in {None, provider.environment}:
            return (
                f'provider "{name}" is for {provider.environment} messages, '
                f"and this route takes only {wanted} ones"
            )
        return None

    def route_for(
        self,
        *,
        country: str,
        mode: Mode,
        sender: str,
        network: str,
        account: str,
        environment: Environment,
    ) -> tuple[int, Route] | None:
        """The first route that matches, with its number in the file, from 0; None if none does.

        A route whose providers are all of the other environment is passed over.
        """
        for number, route in enumerate(self.routes):
            if self.providers_of(route, environment) and route.match.covers(
                country=country,
                mode=mode,
                sender=sender,
                network=network,
                account=account,
                environment=environment,
            ):
                return number, route
        return None

    def providers_of(self, route: Route, environment: Environment) -> tuple[str, ...]:
        """The route's providers that messages of this environment may reach, in order."""
        return tuple(
            name for name in route.providers if self.providers[name].environment is environment
        )

    def mode_policy(self, mode: Mode) -> ModePolicy:
        """The mode's policy with this installation's overrides."""
        overrides = self.modes.get(mode)
        policy = MODE_POLICIES[mode]
        return overrides.apply_to(policy) if overrides else policy

    def allows_sender(self, account: str, mode: Mode, sender: str) -> bool:
        """Whether the account may send as this sender in this mode."""
        overrides = self.modes.get(mode)
        of_mode = overrides.senders if overrides else None
        return self.account(account).allows_sender(sender) and (
            of_mode is None or "*" in of_mode or sender in of_mode
        )

    def retry_rule(self, error_class: ErrorClass) -> RetryRule:
        """What an error of this class is worth, with this installation's overrides."""
        overrides = self.retries.get(error_class)
        rule = RETRIES[error_class]
        return overrides.apply_to(rule) if overrides else rule

    def account(self, name: str) -> AccountPolicy:
        """The policy of an account, the default one if it is not declared."""
        return self.accounts.get(name, AccountPolicy())
