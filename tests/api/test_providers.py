"""Providers over HTTP: who is declared, who is up, what came of the last hour."""

import pytest

from domain.configuration import Environment
from store import providers as store
from store.providers import Beat
from tests.api.conftest import Api, slug_of

pytestmark = pytest.mark.stack

PROVIDERS = "/api/v1/providers"


async def test_providers_are_up_while_a_living_worker_has_a_bind(api: Api) -> None:
    async with api.services.database.begin() as connection:
        for name, binds, state in (("primary", 2, "up"), ("backup", 0, "down")):
            store.tell(connection, Beat(name, "worker/1", ["providers"], binds, binds, state))
    primary, backup = sorted(
        (await api.get(PROVIDERS)).json()["items"], key=lambda p: str(p["name"]), reverse=True
    )
    assert (primary["name"], primary["state"], primary["binds_up"]) == ("primary", "up", 2)
    assert (backup["name"], backup["state"], backup["workers"]) == ("backup", "down", 1)
    assert (primary["type"], primary["environment"], primary["rate"]) == ("simulator", "live", None)
    assert primary["recent"]["attempts"] == 0


async def test_figures_are_of_the_accounts_own_attempts(api: Api) -> None:
    await api.submitted(await api.sent(), "7f3a")
    await api.submitted(await api.sent(), None)
    recent = (await api.get(f"{PROVIDERS}/primary")).json()["recent"]
    assert (recent["attempts"], recent["accepted"], recent["unknown"]) == (2, 1, 1)
    other = await api.key_of(account="depot")
    recent = (await api.get(f"{PROVIDERS}/primary", key=other)).json()["recent"]
    assert recent["attempts"] == 0


async def test_a_key_sees_the_providers_of_its_environment_only(api: Api) -> None:
    trial = await api.key_of(environment=Environment.TEST)
    listed = (await api.get(PROVIDERS, key=trial)).json()["items"]
    assert [provider["name"] for provider in listed] == ["sandbox"]
    for key, name in ((trial, "primary"), ("", "sandbox"), ("", "nobody")):
        answer = await api.get(f"{PROVIDERS}/{name}", key=key)
        assert (answer.status_code, slug_of(answer)) == (404, "not-found")
