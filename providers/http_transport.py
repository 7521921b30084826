"""HTTP connections of providers: TLS as configured, and never to where they must not go (SSRF).

The host is resolved here and its addresses are judged by `domain.callbacks.urls.may_receive`; the
connection goes to the very address that was judged. The Host header, SNI and the certificate's check
keep the name. Redirects are not followed, and no proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import httpx

from domain.callbacks.urls import may_receive
from providers.connections import tls_context

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address, IPv6Address

    from domain.configuration.providers.http import HttpConfiguration

# Shorter than what common servers wait (5 s: Node and uvicorn): a request on a connection that the
# server closes at that moment has an unknown outcome.
_IDLE_SECONDS: Final = 4.0
_RESOLVED_FOR: Final = 30.0


class AddressRefused(OSError):
    """No address of the provider's host is one that it may have."""

    def __init__(self) -> None:
        super().__init__("the host has no address that it may have")


class ProviderTransport(httpx.AsyncBaseTransport):
    """Carries the requests of one provider, which all go to the host of its `url`.

    Raises:
        TlsFileUnusable: a file of `configuration.tls` cannot be read or used.
    """

    def __init__(self, configuration: HttpConfiguration) -> None:
        url = httpx.URL(configuration.url)
        self._host = url.host
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._allow_private = configuration.private_network
        self._connect_seconds = configuration.connect_timeout.total_seconds()
        self._tls = tls_context(configuration.tls) if url.scheme == "https" else None
        self._connections = httpx.AsyncHTTPTransport(
            verify=self._tls or ssl.create_default_context(),
            trust_env=False,
            # Not more than the window are used at once; a limit here could only make a request wait.
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=configuration.binds,
                keepalive_expiry=_IDLE_SECONDS,
            ),
        )
        self._addresses: list[str] = []
        self._resolved_at = 0.0
        # One look-up at a time, on a thread of its own: a name server that hangs holds up no other provider.
        self._resolving = asyncio.Lock()
        self._resolver = ThreadPoolExecutor(1, "provider-resolver")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the host's address.

        Raises:
            httpx.ConnectError: it was not sent, since the host has no address, or none that it may have.
        """
        try:
            address = await self._resolve()
        except OSError as error:
            raise httpx.ConnectError(type(error).__name__, request=request) from error
        to_address = httpx.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": self._host},
        )
        return await self._connections.handle_async_request(to_address)

    async def probe(self) -> None:
        """Connect, with the TLS handshake, and close the connection without a request.

        Raises:
            OSError, ssl.SSLError: it could not be made.
        """
        async with asyncio.timeout(self._connect_seconds):
            address = await self._resolve()
            _, writer = await asyncio.open_connection(
                address,
                self._port,
                ssl=self._tls,
                server_hostname=self._host if self._tls is not None else None,
            )
        writer.transport.abort()

    async def _resolve(self) -> str:
        """An address of the host that it may have; the addresses are kept for a while.

        Raises:
            OSError: the host has no such address, or the name servers do not answer in time.
        """
        async with self._resolving:
            now = asyncio.get_running_loop().time()
            if not self._addresses or now - self._resolved_at > _RESOLVED_FOR:
                found = await self._look_up()
                self._addresses = [each for each in found if self._may_have(ip_address(each))]
                self._resolved_at = now
            if not self._addresses:
                raise AddressRefused
            return self._addresses[0]

    async def _look_up(self) -> Sequence[str]:
        """The addresses of the host, which may be one itself."""
        try:
            return [str(ip_address(self._host))]
        except ValueError:
            pass
        look_up = partial(socket.getaddrinfo, self._host, self._port, type=socket.SOCK_STREAM)
        async with asyncio.timeout(self._connect_seconds):
            found = await asyncio.get_running_loop().run_in_executor(self._resolver, look_up)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    def _may_have(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether the API may be at this address; without TLS, only in a private network."""
        is_public = may_receive(address, allow_private=False)
        if is_public:
            return self._tls is not None
        return self._allow_private and may_receive(address, allow_private=True)

    def try_next_address(self) -> None:
        """Take another address of the host for the next connection: the last one could not be made."""
        del self._addresses[:1]

    async def aclose(self) -> None:
        self._resolver.shutdown(wait=False, cancel_futures=True)
        await self._connections.aclose()
