"""The search attributes by which operators find workflows in Temporal."""

from datetime import timedelta
from typing import Final

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from workflows.ports.attributes import SEARCH_ATTRIBUTES

_ADD_WITHIN: Final = timedelta(seconds=30)


async def add_search_attributes(client: Client, namespace: str) -> None:
    """Add the attributes by which operators find workflows, as far as they are missing."""
    for name in SEARCH_ATTRIBUTES:
        try:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(
                    namespace=namespace,
                    search_attributes={name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD},
                ),
                timeout=_ADD_WITHIN,
            )
        except RPCError as error:
            if error.status is not RPCStatusCode.ALREADY_EXISTS:
                raise
