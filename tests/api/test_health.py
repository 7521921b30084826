"""Liveness and readiness: separate responses, and the reasons for not being ready."""

import pytest
from pydantic import SecretStr
from temporalio.client import Client

from local.processes import free_port
from services.assembly import assemble
from settings.settings import Settings
from tests.api.conftest import CONFIGURATION, Api, serving, temporal_is_away

pytestmark = pytest.mark.stack


async def test_temporal_being_down_is_reported_and_refuses_nothing(api: Api) -> None:
    response = await api.get("/readyz", key=None)
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "database": "up",
        "configuration": "loaded",
        "temporal": "down",
        "detail": None,
    }
    await api.sent()


async def test_a_temporal_that_answers_is_up(settings: Settings, temporal_client: Client) -> None:
    async def connect() -> Client:
        return temporal_client

    services = assemble(settings, connect=connect)
    await services.configurations.apply(CONFIGURATION, applied_by="test")
    async with serving(services) as api:
        assert (await api.get("/readyz", key=None)).json()["temporal"] == "up"
    await services.close()


async def test_without_a_configuration_nothing_can_be_accepted(unconfigured: Api) -> None:
    response = await unconfigured.get("/readyz", key=None)
    assert (response.status_code, response.json()["configuration"]) == (503, "missing")
    assert "smsctl config apply" in response.json()["detail"]
    assert (await unconfigured.get("/healthz", key=None)).json() == {"status": "ok"}


async def test_a_database_without_its_tables_is_outdated(
    settings: Settings, empty_database_url: str
) -> None:
    empty = settings.model_copy(update={"database_url": SecretStr(empty_database_url)})
    services = assemble(empty, connect=temporal_is_away)
    async with serving(services) as api:
        response = await api.get("/readyz", key=None)
        assert (response.status_code, response.json()["database"]) == (503, "outdated")
        assert "bootstrap" in response.json()["detail"]
    await services.close()


async def test_a_database_of_a_newer_gateway_will_do(api: Api) -> None:
    await api.execute("UPDATE alembic_version SET version_num = '9999'")
    assert (await api.get("/readyz", key=None)).status_code == 200


async def test_a_database_that_does_not_answer_is_down(settings: Settings) -> None:
    nowhere = settings.model_copy(
        update={"database_url": SecretStr(f"postgresql://me:pw@127.0.0.1:{free_port()}/none")}
    )
    services = assemble(nowhere, connect=temporal_is_away)
    async with serving(services) as api:
        response = await api.get("/readyz", key=None)
        assert (response.status_code, response.json()["database"]) == (503, "down")
        assert (await api.get("/healthz", key=None)).status_code == 200
    await services.close()
