"""The configuration over HTTP: checked, applied, read."""

import asyncio
from collections.abc import Callable

import pytest

from api.configuration import EXAMPLE, MISTAKEN
from services.assembly import assemble
from tests.api.conftest import CONFIGURATION, Api, slug_of, temporal_is_away

pytestmark = pytest.mark.stack

CONFIG = "/api/v1/config"
TOML = {"content-type": "application/toml"}


async def test_mistakes_are_told_with_their_place_and_change_nothing(api: Api) -> None:
    good = await api.post(f"{CONFIG}/check", content=EXAMPLE, headers=TOML)
    assert good.json() == {"ok": True, "mistakes": []}
    bad = (await api.post(f"{CONFIG}/check", content=MISTAKEN, headers=TOML)).json()
    assert bad["ok"] is False
    (mistake,) = bad["mistakes"]
    assert (mistake["line"], mistake["path"]) == (8, "routes[0].providers[0]")
    assert "declared are: primary" in mistake["detail"]
    assert (await api.get(CONFIG)).json()["content"] == CONFIGURATION


async def test_an_applied_configuration_holds_at_once(api: Api) -> None:
    answer = await api.post(f"{CONFIG}/apply", content=EXAMPLE, headers=TOML)
    assert answer.json() == {"version": 2, "changed": True}
    again = await api.post(f"{CONFIG}/apply", content=EXAMPLE, headers=TOML)
    assert again.json() == {"version": 2, "changed": False}
    stored = (await api.get(CONFIG)).json()
    assert (stored["version"], stored["content"]) == (2, EXAMPLE)
    assert stored["applied_by"].startswith("key_")
    providers = (await api.get("/api/v1/providers")).json()["items"]
    assert [provider["name"] for provider in providers] == ["primary"]


async def test_a_configuration_with_mistakes_is_not_applied(api: Api) -> None:
    answer = await api.post(f"{CONFIG}/apply", content=MISTAKEN, headers=TOML)
    assert (answer.status_code, slug_of(answer)) == (422, "invalid-configuration")
    (error,) = answer.json()["errors"]
    assert (error["field"], error["line"]) == ("routes[0].providers[0]", 8)
    assert (await api.get(CONFIG)).json()["version"] == 1


async def test_no_mistake_repeats_a_secret(api: Api) -> None:
    text = EXAMPLE.replace('"env:PRIMARY_PASSWORD"', '"hunter2-hunter2"')
    for what in ("check", "apply"):
        answer = await api.post(f"{CONFIG}/{what}", content=text, headers=TOML)
        assert "env:NAME" in answer.text
        assert "hunter2" not in answer.text


async def test_what_is_no_toml_is_refused(api: Api) -> None:
    for content, headers, slug in [
        (b"\xff", TOML, "malformed-request"),
        (b"{}", {"content-type": "application/json"}, "unsupported-media-type"),
        (b"[[", TOML, "invalid-configuration"),
        (b"a = '\0'", TOML, "invalid-configuration"),
        (b"", TOML, "invalid-configuration"),
        (b"#" * 9000, TOML, "body-too-large"),
    ]:
        answer = await api.post(f"{CONFIG}/apply", content=content, headers=headers)
        assert slug_of(answer) == slug


async def test_before_the_first_configuration_there_is_none_to_read(unconfigured: Api) -> None:
    answer = await unconfigured.get(CONFIG)
    assert (answer.status_code, slug_of(answer)) == (503, "no-configuration")


async def test_every_process_follows_also_when_the_database_cut_its_connections(api: Api) -> None:
    other = assemble(api.services.settings, connect=temporal_is_away)
    following = asyncio.create_task(other.configurations.follow())
    try:
        await until(lambda: other.configurations.version == 1)
        await api.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        applied = await api.services.configurations.apply(EXAMPLE, applied_by="key_test")
        await until(lambda: other.configurations.version == applied.version)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await other.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.02)
