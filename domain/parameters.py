"""Parameters of a message: what some providers want to know beside sender, recipient and text.

Such as the ids of a registered template and of its owner: the law of some countries asks for them.
"""

from typing import Final

MOST_PARAMETERS: Final = 20
"""That a message may have."""
LONGEST_VALUE: Final = 255
"""Characters of a parameter's value."""
NAME_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$"
"""How a parameter is named."""


class UnusableParameter(ValueError):
    """A parameter's value cannot be sent in the form that the provider is configured to get it in."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the value of the parameter {name} does not have the form that is configured"
        )
        self.name = name
