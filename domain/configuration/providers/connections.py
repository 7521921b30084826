"""How a connection to a provider is encrypted, and when it is tried again."""

from datetime import timedelta
from typing import Self

from pydantic import Field, StrictBool, model_validator

from domain.configuration.declared import Declared
from domain.configuration.durations import Duration
from domain.configuration.secret_references import AllowedKeyFile


class TlsOptions(Declared):
    """How a connection is encrypted; paths are of PEM files on the machine that connects."""

    ca: str | None = Field(
        None,
        description="file of the certificate authorities to trust; by default those of the system",
    )
    cert: str | None = Field(
        None, description="file of the gateway's certificate, if the carrier requires one"
    )
    key: AllowedKeyFile | None = Field(
        None,
        description="file of the private key of `cert`, in a folder that the server allows",
    )
    verify: StrictBool = Field(True, description="whether the carrier's certificate is checked")

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together: give both or neither")
        return self


def tls_from_switch(value: object) -> object:
    """`tls = true` as a table without options, and `tls = false` as none."""
    if value is True:
        return {}
    return None if value is False else value


class Backoff(Declared):
    """How long to wait before a new try: `min` at first, doubled up to `max`."""

    min: Duration = Field(timedelta(seconds=1), description="wait before the first try")
    max: Duration = Field(timedelta(seconds=60), description="maximum wait between two tries")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError("min must not be longer than max")
        return self
