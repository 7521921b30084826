"""The codes of a declared provider, and what each means."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Self

from pydantic import Field, StringConstraints, model_validator

from domain.configuration.declared import Declared
from domain.configuration.providers.declared.response import ResponseReading
from domain.error_classes import RECEIPT_ERRORS, ErrorClass
from domain.http_statuses import class_of_status, is_success
from domain.provider_codes import ProviderCode
from domain.receipts import ReceiptState


class Code(Declared):
    """What a code of the provider means."""

    error_class: ErrorClass | None = Field(
        None,
        alias="class",
        description="its error class; without one it is a warning, and no failure",
    )
    meaning: Annotated[str, StringConstraints(max_length=200)] = Field(
        "", description="what it means, as `smsctl message explain` shows it"
    )
    state: ReceiptState | None = Field(
        None, description="replaces the state of a receipt with this code"
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.error_class is None and self.state is None and not self.meaning:
            raise ValueError("give at least one of class, meaning and state")
        return self

    def as_code(self) -> ProviderCode:
        """The code as the table of a built-in type has it."""
        meaning = self.meaning or f"declared as {self.error_class or self.state}"
        return ProviderCode(meaning, self.error_class, self.state)


def code_from_class(value: object) -> object:
    """`"12" = "blocked"` as a table with that class."""
    return {"class": value} if isinstance(value, str) else value


# Codes are labels of metrics, and are logged. A text that is in no table is kept as a code only if it
# can be neither a sentence nor a phone number.
_CODE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,32}")
_MANY_DIGITS: Final = re.compile(r"[0-9]{7}")


@dataclass(frozen=True, slots=True)
class Codes:
    """What codes mean: `table` by the section's `codes`, and `classes` by its `errors`, which come first."""

    table: Mapping[str, ProviderCode]
    classes: Mapping[str, ErrorClass]

    def kept(self, text: str) -> str:
        """A code as it is kept; empty for a text that is no code, such as a sentence."""
        if text in self.table or text in self.classes:
            return text
        return text if _CODE.fullmatch(text) and not _MANY_DIGITS.search(text) else ""

    def class_of_response(self, code: str, status: int, reading: ResponseReading) -> ErrorClass:
        """The error class of a refusal: by its code, else by its HTTP status."""
        return (
            self._declared(code)
            or reading.statuses.get(status)
            or (reading.default if is_success(status) else class_of_status(status))
        )

    def state_of_receipt(self, code: str, state: ReceiptState) -> ReceiptState:
        """The state of a receipt with this code and state."""
        known = self.table.get(code)
        return state if known is None or known.state is None else known.state

    def class_of_receipt(self, code: str, state: ReceiptState) -> ErrorClass | None:
        """The error class of a receipt; None if its state is no failure."""
        return (self._declared(code) or RECEIPT_ERRORS[state]) if state in RECEIPT_ERRORS else None

    def _declared(self, code: str) -> ErrorClass | None:
        known = self.table.get(code)
        return self.classes.get(code) or (None if known is None else known.error_class)
