"""A provider that one worker cannot bind: its fault stays its own, is shown, and is tried again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domain.binds import BindError, BindFailure
from services.providers import ProviderStatus
from simulator.behaviour import Outage
from telemetry.metrics import REGISTRY
from tests.gateway import CONFIGURATION, Gateway, gateway, running_gateway
from workers.provider_pools import ProviderPools
from workers.reconciler import ReconcilerStarter
from workflows.reconciler import RECONCILER_WORKFLOW_ID

__all__ = ["gateway"]

pytestmark = pytest.mark.stack

WITHIN = 120
CERTIFICATE = Path(__file__).parent.parent / "smpp/tls/cert.pem"


def configuration(gateway: Gateway, primary: str) -> str:
    """With more keys for the primary."""
    text = CONFIGURATION.format(
        primary=gateway.primary.port,
        backup=gateway.backup.port,
        receipt_deadline="30m",
        response_timeout="2s",
        more="",
    )
    return text.replace("echoes_reference", f"{primary}\nechoes_reference", 1)


async def apply(gateway: Gateway, text: str) -> None:
    await gateway.services.configurations.apply(text, applied_by="test")


async def status(gateway: Gateway, name: str) -> ProviderStatus:
    listed = await gateway.services.providers.listed(gateway.caller)
    return next(each for each in listed if each.name == name)


async def until_error(gateway: Gateway, name: str, reason: BindFailure | None) -> BindError | None:
    async with asyncio.timeout(WITHIN):
        while True:
            error = (await status(gateway, name)).last_bind_error
            if ((error and error.is_current and error.reason) or None) == reason:
                return error
            await asyncio.sleep(0.05)


def missing(kind: str, place: Path) -> str:
    """Keys of a provider one of whose files is missing."""
    if kind == "tls":
        return f'tls = {{ ca = "{place}" }}'
    return f'password = "file:{place}"'


@pytest.fixture
async def gateway_of_secrets(database_url, temporal_client, tmp_path) -> AsyncIterator[Gateway]:
    """Its configuration may name secrets in the folder of the test."""
    async with running_gateway(
        database_url, temporal_client, secret_folders=(str(tmp_path),)
    ) as running:
        yield running


NO_TLS_THERE = {BindFailure.TLS_FAILED, BindFailure.CONNECT_FAILED, BindFailure.TIMEOUT}
FAULTS = pytest.mark.parametrize(
    ("kind", "reason"), [("tls", BindFailure.TLS_UNUSABLE), ("secret", BindFailure.SECRET_MISSING)]
)


@FAULTS
async def test_a_missing_file_in_an_applied_configuration_stays_its_providers_fault(
    gateway_of_secrets: Gateway, tmp_path, kind, reason
):
    gateway = gateway_of_secrets
    await apply(gateway, configuration(gateway, missing(kind, tmp_path / "away")))
    error = await until_error(gateway, "primary", reason)
    assert error is not None
    assert str(tmp_path / "away") in error.sentence
    assert str(tmp_path) not in error.brief
    labels = {"provider": "primary", "reason": reason.value}
    assert REGISTRY.get_sample_value("smsgateway_bind_errors", labels) == 1
    assert "tls.ca" in error.sentence or kind != "tls"
    message = await gateway.send()
    await gateway.until(message, "delivered", within=WITHIN)
    assert await gateway.attempts(message) == [("backup", "delivered")]
    # Later configurations are followed.
    await apply(gateway, configuration(gateway, "binds = 1"))
    await gateway.providers_up("primary", "backup", within=WITHIN)
    await until_error(gateway, "primary", None)
    assert REGISTRY.get_sample_value("smsgateway_bind_errors", labels) is None


@FAULTS
async def test_a_worker_starts_without_a_provider_whose_file_is_missing_and_binds_when_it_is_there(
    database_url, temporal_client, tmp_path, kind, reason
):
    async with running_gateway(
        database_url, temporal_client, with_worker=False, secret_folders=(str(tmp_path),)
    ) as gateway:
        place = tmp_path / "later"
        await apply(gateway, configuration(gateway, missing(kind, place)))
        await gateway.start_worker()
        await until_error(gateway, "primary", reason)
        await gateway.providers_up("backup", within=WITHIN)
        place.write_text(CERTIFICATE.read_text() if kind == "tls" else "secret")
        if kind == "secret":
            await gateway.providers_up("primary", "backup", within=WITHIN)
        else:  # the simulator speaks no TLS, which is another fault
            async with asyncio.timeout(WITHIN):
                while (error := (await status(gateway, "primary")).last_bind_error) is None or (
                    error.reason not in NO_TLS_THERE
                ):
                    await asyncio.sleep(0.05)


async def test_a_bind_that_is_refused_shows_its_reason_until_it_succeeds(gateway: Gateway):
    await gateway.primary.outage(kind=Outage.REFUSES_BINDS)
    error = await until_error(gateway, "primary", BindFailure.BIND_REFUSED)
    assert error == BindError(BindFailure.BIND_REFUSED, "ESME_RBINDFAIL", "transceiver")
    await gateway.primary.outage(on=False)
    await until_error(gateway, "primary", None)


async def test_a_password_that_is_too_long_shows_as_the_reason(
    gateway_of_secrets: Gateway, tmp_path
):
    gateway = gateway_of_secrets
    secret = tmp_path / "password"
    text = configuration(gateway, f'password = "file:{secret}"')
    await apply(gateway, text)  # the API could not read it then
    secret.write_text("twelve-chars")
    await until_error(gateway, "primary", BindFailure.PASSWORD_TOO_LONG)


async def test_a_provider_whose_pool_fails_in_any_way_is_followed_again(
    database_url, temporal_client, monkeypatch
):
    real = ProviderPools._replace
    failed = []

    async def fails_first(self, name, configuration):
        if name == "primary" and not failed:
            failed.append(name)
            raise RuntimeError
        await real(self, name, configuration)

    monkeypatch.setattr(ProviderPools, "_replace", fails_first)
    async with running_gateway(database_url, temporal_client) as gateway:
        assert failed
        assert (await status(gateway, "primary")).up


async def test_the_reconciler_is_started_whatever_its_keeper_fails_with(
    database_url, temporal_client, monkeypatch
):
    real = ReconcilerStarter._see_to_search_attributes
    failed = []

    async def fails_first(self):
        if not failed:
            failed.append(True)
            raise KeyError("unexpected")
        await real(self)

    monkeypatch.setattr(ReconcilerStarter, "_see_to_search_attributes", fails_first)
    async with running_gateway(database_url, temporal_client) as gateway:
        async with asyncio.timeout(WITHIN):
            while not failed:
                await asyncio.sleep(0.05)
        handle = gateway.client.get_workflow_handle(RECONCILER_WORKFLOW_ID)
        await handle.terminate()
        async with asyncio.timeout(WITHIN):
            while (await handle.describe()).status.name != "RUNNING":
                await asyncio.sleep(0.1)
