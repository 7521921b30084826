"""Search attributes of workflows, by which people find them in Temporal's UI and CLI (docs/temporal.md).

All are keywords. They are set when a workflow starts, and `MESSAGE_STATUS` and `PROVIDER` when it ends.
"""

from typing import Final

from temporalio.common import SearchAttributeKey

MESSAGE_MODE: Final = SearchAttributeKey.for_keyword("MessageMode")
"""`Mode` alone is a reserved word of the query language."""
MESSAGE_STATUS: Final = SearchAttributeKey.for_keyword("MessageStatus")
"""The status with which a message ended."""
PROVIDER: Final = SearchAttributeKey.for_keyword("Provider")
"""The provider of the last attempt."""
COUNTRY: Final = SearchAttributeKey.for_keyword("Country")
ACCOUNT: Final = SearchAttributeKey.for_keyword("Account")

SEARCH_ATTRIBUTES: Final = tuple(
    key.name for key in (MESSAGE_MODE, MESSAGE_STATUS, PROVIDER, COUNTRY, ACCOUNT)
)
"""The names that a namespace has to know; a worker adds those that are missing."""
