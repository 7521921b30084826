"""What every part of a configuration has in common, and how its validators report mistakes."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


class Declared(BaseModel):
    """What every part of a configuration has in common: frozen, and no key passes unknown.

    Inputs stay out of error texts, because a mistyped secret would be among them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def mistake_at(*location: str | int, sentence: str) -> InitErrorDetails:
    """A mistake that stands in another place than the value being validated."""
    # Without a context, pydantic takes braces in it as they are.
    return InitErrorDetails(type=PydanticCustomError("mistake", sentence), loc=location, input=None)


def refuse(title: str, mistakes: Sequence[InitErrorDetails]) -> None:
    """Raise the mistakes of a model of this name, if there are any."""
    if mistakes:
        raise ValidationError.from_exception_data(title, list(mistakes), hide_input=True)
