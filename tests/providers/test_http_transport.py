"""Where requests of HTTP providers may go: judged by the address, and never without TLS outside."""

import asyncio
import socket
from contextlib import suppress
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from domain.configuration.providers.twilio import TwilioConfiguration
from providers.http_transport import AddressRefused, ProviderTransport

ACCOUNT = {
    "type": "twilio",
    "account_sid": "AC72d1371c17149d439536b3216fdaeeb9",
    "auth_token": "env:SMSGATEWAY_SECRET_TWILIO",
}


def declared(**more: Any) -> TwilioConfiguration:
    return TwilioConfiguration.model_validate(ACCOUNT | more)


@pytest.mark.parametrize(
    ("url", "private_network"),
    [
        ("http://sms.example.com", False),
        ("http://127.0.0.1:8080", False),
        ("https://127.0.0.1:8080", False),
        ("https://[::1]", False),
        ("https://10.1.2.3", False),
        ("https://169.254.169.254", False),
        ("http://8.8.8.8", True),
        ("http://[2606:4700::1111]", True),
        ("https://user:secret@sms.example.com", False),
        ("https://sms.example.com/?a=1", False),
        ("ftp://sms.example.com", False),
        ("https://0x7f000001", False),
    ],
)
def test_a_url_that_the_api_cannot_have_is_refused(url: str, private_network: bool) -> None:
    with pytest.raises(ValidationError) as refused:
        declared(url=url, private_network=private_network)
    assert refused.value.errors()[0]["loc"] == ("url",)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "private_network", "address", "allowed"),
    [
        ("https://sms.example.com", False, "93.184.215.14", True),
        ("https://sms.example.com", False, "127.0.0.1", False),
        ("https://sms.example.com", False, "::ffff:10.0.0.1", False),
        ("https://sms.example.com", False, "169.254.169.254", False),
        ("https://sms.example.com", True, "10.0.0.1", True),
        ("https://sms.example.com", True, "169.254.169.254", False),
        ("https://sms.example.com", True, "93.184.215.14", True),
        ("http://sms.example.com", True, "10.0.0.1", True),
        ("http://sms.example.com", True, "93.184.215.14", False),
    ],
)
async def test_the_address_of_a_name_is_judged_before_the_connection(
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    private_network: bool,
    address: str,
    allowed: bool,
) -> None:
    def resolved(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]

    monkeypatch.setattr("providers.http_transport.socket.getaddrinfo", resolved)
    transport = ProviderTransport(declared(url=url, private_network=private_network))
    if allowed:
        assert await transport._resolve() == address
        return
    with pytest.raises(AddressRefused):
        await transport.probe()
    with pytest.raises(httpx.ConnectError):
        await transport.handle_async_request(httpx.Request("GET", url))


async def test_a_probe_ends_within_the_connect_timeout() -> None:
    hung_up = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        hung_up.set()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    transport = ProviderTransport(
        declared(
            url=f"https://127.0.0.1:{port}",
            private_network=True,
            connect_timeout=timedelta(milliseconds=200),
        )
    )
    async with asyncio.timeout(60):
        with pytest.raises(TimeoutError):
            await transport.probe()
        await hung_up.wait()
    silent.close()
