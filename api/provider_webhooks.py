"""Where providers report: receipts of Twilio, Telnyx, Vonage, Infobip and of declared providers.

The address is checked before the body is read, and the signature before it is parsed.
"""

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from api.dependencies import Gateway
from api.routing import Endpoint
from providers.webhooks import WebhookRequest
from services.provider_webhooks import PATH, ProviderReports, UnknownAddress

router = APIRouter(prefix=PATH, route_class=Endpoint)


@router.api_route("/{provider}/receipts/{token}", methods=["GET", "POST"], include_in_schema=False)
async def receipts(provider: str, token: str, request: Request, gateway: Gateway) -> Response:
    """Take the receipts of a provider in its own format, signed as it signs them.

    `token` names the attempt, or the provider. The response follows when all receipts are committed.
    """
    reports = gateway.provider_reports
    address = reports.receipt_address(provider, token)
    taken = await reports.take_receipts(address, await _as_called(request, reports))
    return Response(taken.body, taken.status, media_type=taken.content_type)


async def _as_called(request: Request, reports: ProviderReports) -> WebhookRequest:
    """The request with the address that the provider called, which a proxy may have changed."""
    query = request.scope["query_string"].decode("latin-1")
    target = request.scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
    url = reports.called_url(target)
    if url is None:
        raise UnknownAddress
    return WebhookRequest(
        method=request.method,
        url=url,
        headers=dict(request.headers),
        body=await request.body(),
        at=datetime.now(UTC),
    )
