"""Settings of a process, from its environment variables; everything else is configuration.

`docs/configuration.md` lists the variables; `settings/reference.py` writes that list from here.
"""

import os
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from domain.callbacks.urls import InvalidCallbackUrl, parse_url
from domain.configuration import Duration, parse_duration
from domain.secrets import AllowedSecrets
from settings.secrets import SecretMissing, read_secret_file
from settings.sentences import sentence_about

_PREFIX = "SMSGATEWAY_"
_SHORTEST_KEY = 32
_SHORTEST_RETENTION = timedelta(days=7)


class LogLevel(StrEnum):
    """The least urgent records that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """For machines or for people."""

    JSON = "json"
    CONSOLE = "console"


class SettingsMistakes(Exception):
    """The environment cannot be used; each sentence names a variable and says what to do."""

    loggable = True

    def __init__(self, sentences: tuple[str, ...]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


def _postgres(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("it must be written like postgresql://user:password@host:5432/database")
    return url


def _long_enough_for_callbacks(keep: timedelta) -> timedelta:
    if keep < _SHORTEST_RETENTION:
        raise ValueError("it must be at least 7d: callbacks are tried for days")
    return keep


def _long_enough(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value()) < _SHORTEST_KEY:
        raise ValueError(
            f"it needs at least {_SHORTEST_KEY} characters: make one with `openssl rand -hex 32`"
        )
    return key


def _comma_separated(value: object) -> object:
    if isinstance(value, str):
        return tuple(part for each in value.split(",") if (part := each.strip()))
    return value


def _folder(path: str) -> str:
    place = PurePosixPath(path)
    if not place.is_absolute() or ".." in place.parts or place == PurePosixPath("/"):
        raise ValueError('each is the absolute path of a folder, without ".." and not "/" itself')
    return str(place)


def _http(address: str) -> str:
    if not address.startswith(("http://", "https://")):
        raise ValueError("it must be an address such as http://127.0.0.1:4318")
    return address


def _public_url(address: str) -> str:
    try:
        url = parse_url(address)
    except InvalidCallbackUrl:
        raise ValueError("it must be an address such as https://sms.example.com") from None
    if "?" in address or "#" in address:
        raise ValueError("it has no query and no fragment")
    return str(url).rstrip("/")


def _readable(path: Path) -> Path:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from None
    return path


ReadableFile = Annotated[Path, AfterValidator(_readable)]
Port = Annotated[int, Field(ge=1, le=65535)]
PortOrOff = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """The variables, read once at start; `load_settings` reads them and explains mistakes."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
        enable_decoding=False,
    )

    database_url: Annotated[SecretStr, AfterValidator(_postgres)] = Field(
        validation_alias="DATABASE_URL",
        description="The Postgres database, as postgresql://user:password@host:5432/name.",
    )
    database_pool_size: Annotated[int, Field(ge=1, le=200)] = Field(
        10, description="Maximum number of connections of this process."
    )
    database_pool_timeout: Duration = Field(
        parse_duration("5s"),
        description="How long to wait for a free connection, or for a new one.",
    )
    database_statement_timeout: Duration = Field(
        parse_duration("10s"),
        description="How long a statement may take. A database that is silent for two seconds "
        "longer counts as away.",
    )
    database_read_pool_size: Annotated[int, Field(ge=1, le=200)] = Field(
        5, description="Maximum number of further connections, which only reads by the API use."
    )
    database_read_timeout: Duration = Field(
        parse_duration("10s"), description="How long a statement of such a read may take."
    )

    temporal_address: Annotated[str, StringConstraints(pattern=r"^[^\s:/]+:[0-9]{1,5}$")] = Field(
        "127.0.0.1:7233",
        validation_alias="TEMPORAL_ADDRESS",
        description="Temporal's frontend, as host:port.",
    )
    temporal_namespace: str = Field(
        "default", validation_alias="TEMPORAL_NAMESPACE", description="Temporal's namespace."
    )
    temporal_api_key: SecretStr | None = Field(
        None,
        validation_alias="TEMPORAL_API_KEY",
        description="API key, if Temporal requires one; switches TLS on.",
    )
    temporal_tls: bool = Field(
        False,
        validation_alias="TEMPORAL_TLS",
        description="Whether to connect by TLS; each of the following four switches it on, too.",
    )
    temporal_tls_server_ca_cert_path: ReadableFile | None = Field(
        None,
        validation_alias="TEMPORAL_TLS_SERVER_CA_CERT_PATH",
        description="File of the certificate authorities to trust; by default those of the system.",
    )
    temporal_tls_server_name: str | None = Field(
        None,
        validation_alias="TEMPORAL_TLS_SERVER_NAME",
        description="Name in the server's certificate, if it differs from TEMPORAL_ADDRESS.",
    )
    temporal_tls_client_cert_path: ReadableFile | None = Field(
        None,
        validation_alias="TEMPORAL_TLS_CLIENT_CERT_PATH",
        description="File of the gateway's certificate, if Temporal requires one.",
    )
    temporal_tls_client_key_path: ReadableFile | None = Field(
        None,
        validation_alias="TEMPORAL_TLS_CLIENT_KEY_PATH",
        description="File of that certificate's private key.",
    )

    config: Path | None = Field(
        None, description="The configuration file; without it the newest stored version is used."
    )
    allowed_secret_variables: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], ...],
        BeforeValidator(_comma_separated),
    ] = Field(
        ("SMSGATEWAY_SECRET_",),
        description="How the environment variables begin that secret references of the "
        "configuration may name (`env:`); several with commas. The same in every process.",
    )
    allowed_secret_folders: Annotated[
        tuple[Annotated[str, AfterValidator(_folder)], ...], BeforeValidator(_comma_separated)
    ] = Field(
        ("/run/secrets",),
        description="Folders below which secret references of the configuration may name files "
        "(`file:`), and private keys lie; several with commas. The same in every process.",
    )
    recipient_hash_key: Annotated[SecretStr, AfterValidator(_long_enough)] = Field(
        description="Key of the hash by which recipients are found; at least 32 characters, "
        "the same in every process."
    )
    recipient_hash_version: Annotated[int, Field(ge=1, le=32767)] = Field(
        1, description="Number of that key; raise it when the key changes."
    )

    api_host: str = Field("127.0.0.1", description="Address that the API listens on.")
    api_port: Port = Field(8080, description="Port that the API listens on.")
    public_url: Annotated[str, AfterValidator(_public_url)] | None = Field(
        None,
        description="Address under which providers reach this API from outside, such as "
        "https://sms.example.com; HTTP providers report to it. The same in every process.",
    )
    max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = Field(
        64 * 1024, description="Largest request body that the API reads, in bytes."
    )
    max_batch_bytes: Annotated[int, Field(ge=1024, le=256 * 1024 * 1024)] = Field(
        8 * 1024 * 1024,
        description="Largest request body that a batch may have, in bytes.",
    )
    max_header_bytes: Annotated[int, Field(ge=4096, le=1024 * 1024)] = Field(
        32 * 1024,
        description="Largest request line and headers together that the API reads, in bytes.",
    )
    max_webhook_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = Field(
        1024 * 1024,
        description="Largest request body that a provider may send, in bytes.",
    )
    request_timeout: Duration = Field(
        parse_duration("60s"),
        description="How long the API waits for the headers of a request, then for its body, and "
        "then for the client to read something of the response.",
    )
    max_connections: Annotated[int, Field(ge=10, le=100_000)] = Field(
        1000,
        description="Connections that this process of the API keeps open at most; it needs as many "
        "file descriptors.",
    )
    workflow_starts: Annotated[int, Field(ge=0, le=100_000)] = Field(
        15,
        description="Single messages a second that get a workflow each, over all processes of the "
        "API; what comes faster is accepted in groups that share one. Critical messages always get one.",
    )
    retention: Annotated[Duration, AfterValidator(_long_enough_for_callbacks)] | None = Field(
        None,
        description="How long messages that are over are kept, from their acceptance, such as "
        "90d; without it for ever. At least 7d, so that all callbacks have ended.",
    )
    allow_private_callbacks: bool = Field(
        False,
        description="Whether callbacks may go to loopback and private networks, whatever the "
        "configuration says; for development.",
    )

    metrics_host: str = Field("127.0.0.1", description="Address that `/metrics` listens on.")
    metrics_port: PortOrOff = Field(
        0, description="Port of this process's `/metrics`; 0 switches it off."
    )
    temporal_metrics_port: PortOrOff = Field(
        0, description="Port of the Temporal SDK's own `/metrics`; 0 switches it off."
    )
    log_level: LogLevel = Field(LogLevel.INFO, description="debug, info, warning or error.")
    log_format: LogFormat = Field(LogFormat.JSON, description="json or console.")
    otlp_endpoint: Annotated[str, AfterValidator(_http)] | None = Field(
        None, description="Collector of traces (OTLP over HTTP); tracing is off without it."
    )

    shutdown_grace: Duration = Field(
        parse_duration("15s"), description="How long a process may finish its work when stopped."
    )
    build_folder: Path = Field(
        Path("build"), description="Where the embedded stack keeps its data and `run.json`."
    )

    @model_validator(mode="after")
    def _client_certificate_has_its_key(self) -> Self:
        given = (self.temporal_tls_client_cert_path, self.temporal_tls_client_key_path)
        if (given[0] is None) != (given[1] is None):
            raise ValueError(
                "TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH belong together: "
                "set both or neither"
            )
        return self

    @property
    def uses_tls_for_temporal(self) -> bool:
        """Whether Temporal is reached by TLS: nothing that belongs to it is ignored without it."""
        return self.temporal_tls or any(
            (
                self.temporal_api_key,
                self.temporal_tls_server_ca_cert_path,
                self.temporal_tls_server_name,
                self.temporal_tls_client_cert_path,
            )
        )

    @cached_property
    def allowed_secrets(self) -> AllowedSecrets:
        """What secret references of the configuration may name; never these settings themselves."""
        fields = type(self).model_fields.items()
        secret = {variable_of(name, field) for name, field in fields if is_secret(field)}
        files = [os.environ.get(f"{variable}_FILE") for variable in secret]
        key = self.temporal_tls_client_key_path
        return AllowedSecrets(
            variables=self.allowed_secret_variables,
            folders=self.allowed_secret_folders,
            reserved_variables=frozenset(
                {variable_of(name, field) for name, field in fields}
                | {f"{variable}_FILE" for variable in secret}
            ),
            reserved_files=frozenset(filter(None, [*files, str(key) if key else None])),
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in code, then the environment, then files that it names."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _SecretFiles(settings_cls)


def is_secret(field: FieldInfo) -> bool:
    """Whether a setting is secret, so that `<VARIABLE>_FILE` may name a file that holds it."""
    return "SecretStr" in str(field.annotation)


def variable_of(name: str, field: FieldInfo) -> str:
    """The environment variable of a setting."""
    alias = field.validation_alias
    return alias if isinstance(alias, str) else f"{_PREFIX}{name.upper()}"


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads `DATABASE_URL_FILE` and its like: the files in which orchestrators put secrets."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = variable_of(field_name, field)
        path = os.environ.get(f"{variable}_FILE") if is_secret(field) else None
        if not path:
            return None, variable, False
        if os.environ.get(variable):
            raise SettingsMistakes(
                (f"Both {variable} and {variable}_FILE are set: unset one of them.",)
            )
        try:
            return read_secret_file(Path(path), f"the file that {variable}_FILE names"), "", False
        except SecretMissing as error:
            raise SettingsMistakes((f"{variable}_FILE: {error}.",)) from None

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            value, _, _ = self.get_field_value(field, name)
            if value:
                found[name] = value
        return found


def offline_settings() -> Settings:
    """The settings of a process that uses neither database nor keys; it needs no variables.

    Raises:
        SettingsMistakes: a variable that is set is wrong.
    """
    return load_settings(
        database_url="postgresql://none", recipient_hash_key="not used".ljust(_SHORTEST_KEY)
    )


def load_settings(**given: Any) -> Settings:
    """The settings of this process, from its environment and the files that this names.

    Args:
        given: values by their names in `Settings`, which stand above the environment.

    Raises:
        SettingsMistakes: with one sentence for each variable that is missing or wrong.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        sentences = [_explained(details) for details in error.errors(include_url=False)]
    raise SettingsMistakes(tuple(sentences))


def _explained(details: ErrorDetails) -> str:
    place = str(details["loc"][0]) if details["loc"] else ""
    for name, field in Settings.model_fields.items():
        variable = variable_of(name, field)
        if place in {name, variable}:
            if details["type"] == "missing":
                files = f" (or {variable}_FILE)" if is_secret(field) else ""
                return f"{variable}{files} is not set. {field.description}"
            return f"{variable}: {sentence_about(details)}."
    return sentence_about(details)
