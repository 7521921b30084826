"""The configuration over HTTP: checked, applied, read."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from api.configuration import EXAMPLE, MISTAKEN
from services.assembly import assemble
from store import configurations
from tests.api.conftest import CONFIGURATION, Api, slug_of, temporal_is_away

pytestmark = pytest.mark.stack

CONFIG = "/api/v1/config"
TOML = {"content-type": "application/toml"}


async def test_mistakes_are_reported_with_their_place_and_change_nothing(api: Api) -> None:
    good = await api.post(f"{CONFIG}/check", content=EXAMPLE, headers=TOML)
    assert (good.json()["ok"], good.json()["mistakes"]) == (True, [])
    bad = (await api.post(f"{CONFIG}/check", content=MISTAKEN, headers=TOML)).json()
    assert bad["ok"] is False
    (mistake,) = bad["mistakes"]
    assert (mistake["line"], mistake["path"]) == (8, "routes[0].providers[0]")
    assert "declared are: primary" in mistake["detail"]
    assert (await api.get(CONFIG)).json()["content"] == CONFIGURATION


async def test_an_applied_configuration_holds_at_once(api: Api) -> None:
    response = await api.post(f"{CONFIG}/apply", content=EXAMPLE, headers=TOML)
    assert (response.json()["version"], response.json()["changed"]) == (2, True)
    again = await api.post(f"{CONFIG}/apply", content=EXAMPLE, headers=TOML)
    assert (again.json()["version"], again.json()["changed"]) == (2, False)
    stored = (await api.get(CONFIG)).json()
    assert (stored["version"], stored["content"]) == (2, EXAMPLE)
    assert stored["applied_by"].startswith("key_")
    providers = (await api.get("/api/v1/providers")).json()["items"]
    assert [provider["name"] for provider in providers] == ["primary"]


async def test_a_secret_that_the_api_cannot_read_is_a_warning_and_no_mistake(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SMSGATEWAY_SECRET_PRIMARY", raising=False)
    for what in ("check", "apply"):
        response = await api.post(f"{CONFIG}/{what}", content=EXAMPLE, headers=TOML)
        assert response.status_code == 200
        (warning,) = response.json()["warnings"]
        assert (warning["line"], warning["path"]) == (5, "providers.primary.password")
        assert 'cannot read the secret "env:SMSGATEWAY_SECRET_PRIMARY"' in warning["detail"]
        assert "smsctl provider status" in warning["detail"]
    monkeypatch.setenv("SMSGATEWAY_SECRET_PRIMARY", "hunter2")
    response = await api.post(f"{CONFIG}/apply", content=EXAMPLE, headers=TOML)
    assert response.json()["warnings"] == []


async def test_an_account_that_does_not_exist_is_a_warning(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMSGATEWAY_SECRET_PRIMARY", "hunter2")
    text = f"""{EXAMPLE}match = {{ accounts = ["shop", "acc_nope"] }}

[accounts.shop]
max_segments = 3

[accounts.bata]
max_segments = 3
"""
    for what in ("check", "apply"):
        response = await api.post(f"{CONFIG}/{what}", content=text, headers=TOML)
        assert response.status_code == 200
        of_route, of_table = response.json()["warnings"]
        assert (of_route["line"], of_route["path"]) == (9, "routes[0].match.accounts[1]")
        assert (of_table["line"], of_table["path"]) == (14, "accounts.bata")
        assert 'no account with the id "bata"' in of_table["detail"]
        assert "smsctl account list" in of_table["detail"]


async def test_a_configuration_with_mistakes_is_not_applied(api: Api) -> None:
    response = await api.post(f"{CONFIG}/apply", content=MISTAKEN, headers=TOML)
    assert (response.status_code, slug_of(response)) == (422, "invalid-configuration")
    (error,) = response.json()["errors"]
    assert (error["field"], error["line"]) == ("routes[0].providers[0]", 8)
    assert (await api.get(CONFIG)).json()["version"] == 1


async def test_no_mistake_repeats_a_secret(api: Api) -> None:
    text = EXAMPLE.replace('"env:SMSGATEWAY_SECRET_PRIMARY"', '"hunter2-hunter2"')
    for what in ("check", "apply"):
        response = await api.post(f"{CONFIG}/{what}", content=text, headers=TOML)
        assert "env:NAME" in response.text
        assert "hunter2" not in response.text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("password", "env:DATABASE_URL"),
        ("password", "env:AWS_SECRET_ACCESS_KEY"),
        ("password", "file:/run/secrets/../../etc/passwd"),
        ("receipt_secret", "env:SMSGATEWAY_RECIPIENT_HASH_KEY"),
        ("receipt_secret", "file:/proc/self/environ"),
        ("tls", {"cert": "/etc/ssl/own.pem", "key": "/root/.ssh/id_rsa"}),
        ("callback_secret", "env:DATABASE_URL"),
    ],
)
async def test_a_reference_that_the_server_does_not_allow_is_refused_with_its_line(
    api: Api, key: str, value: str | dict[str, str]
) -> None:
    written = in_toml(value)
    if key == "callback_secret":
        text = f"{EXAMPLE}\n[accounts.acme]\n{key} = {written}\n"
    elif key == "password":
        text = EXAMPLE.replace('"env:SMSGATEWAY_SECRET_PRIMARY"', written)
    else:
        text = EXAMPLE.replace("\n[[routes]]", f"{key} = {written}\n[[routes]]")
    response = await api.post(f"{CONFIG}/apply", content=text, headers=TOML)
    assert (response.status_code, slug_of(response)) == (422, "invalid-configuration")
    (error,) = response.json()["errors"]
    assert "the server allows only" in error["detail"] or "of the gateway itself" in error["detail"]
    assert "SMSGATEWAY_ALLOWED_SECRET_" in error["detail"]
    assert text.splitlines()[error["line"] - 1].startswith(key)
    checked = (await api.post(f"{CONFIG}/check", content=text, headers=TOML)).json()
    assert [mistake["detail"] for mistake in checked["mistakes"]] == [error["detail"]]
    assert (await api.get(CONFIG)).json()["version"] == 1


def in_toml(value: str | dict[str, str]) -> str:
    """A value in TOML."""
    if isinstance(value, str):
        return f'"{value}"'
    return "{ " + ", ".join(f'{name} = "{text}"' for name, text in value.items()) + " }"


async def test_a_version_that_was_applied_before_stays_in_force_whatever_it_refers_to(
    api: Api,
) -> None:
    text = EXAMPLE.replace("SMSGATEWAY_SECRET_PRIMARY", "PRIMARY_PASSWORD")
    async with api.services.database.begin() as connection:
        version, _ = await configurations.add(connection, text, source="api", applied_by="key_1")
    assert await api.services.configurations.refresh()
    assert api.services.configurations.version == version


async def test_an_admin_of_an_account_neither_reads_nor_changes_the_configuration(
    api: Api,
) -> None:
    made = await api.post(
        "/api/v1/keys", json={"name": "shop", "environment": "live", "scopes": ["admin"]}
    )
    admin = made.json()["key"]
    for response in (
        await api.get(CONFIG, key=admin),
        await api.post(f"{CONFIG}/check", content=EXAMPLE, headers=TOML, key=admin),
        await api.post(f"{CONFIG}/apply", content=EXAMPLE, headers=TOML, key=admin),
    ):
        assert (response.status_code, slug_of(response)) == (403, "operator-key-needed")
        assert "use an operator's key" in response.json()["detail"]
    for scopes in (["config:manage"], ["admin", "config:manage"]):
        wanted = {"name": "shop", "environment": "live", "scopes": scopes}
        response = await api.post("/api/v1/keys", json=wanted, key=admin)
        assert (response.status_code, slug_of(response)) == (422, "invalid-request")


@pytest.mark.parametrize("by_file", [False, True])
async def test_a_password_that_smpp_cannot_carry_is_refused_where_it_can_be_read(
    api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by_file: bool
) -> None:
    text, secret = EXAMPLE, "twelve-chars"
    if by_file:
        file = tmp_path / "password"
        file.write_text(f"{secret}\n")
        text = EXAMPLE.replace("env:SMSGATEWAY_SECRET_PRIMARY", f"file:{file}")
    else:
        monkeypatch.setenv("SMSGATEWAY_SECRET_PRIMARY", secret)
    checked = (await api.post(f"{CONFIG}/check", content=text, headers=TOML)).json()
    (mistake,) = checked["mistakes"]
    assert (mistake["line"], mistake["path"]) == (5, "providers.primary.password")
    assert "at most 8 octets" in mistake["detail"]
    applied = await api.post(f"{CONFIG}/apply", content=text, headers=TOML)
    assert (applied.status_code, slug_of(applied)) == (422, "invalid-configuration")
    assert secret not in f"{checked}{applied.text}"
    assert "12" not in mistake["detail"].replace(str(tmp_path), "")


async def test_a_password_that_only_the_workers_can_read_is_no_mistake(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SMSGATEWAY_SECRET_PRIMARY", raising=False)
    checked = await api.post(f"{CONFIG}/check", content=EXAMPLE, headers=TOML)
    assert (checked.json()["ok"], checked.json()["mistakes"]) == (True, [])


async def test_senders_that_no_message_can_have_are_refused(api: Api) -> None:
    match = 'match = { senders = ["ACME", "12"] }'
    text = f"""{EXAMPLE}{match}

[accounts.shop]
senders = ["ACME", "+447700900123", "*", "TwelveLetters"]

[modes.alert]
senders = "Größe"
"""
    checked = (await api.post(f"{CONFIG}/check", content=text, headers=TOML)).json()
    found = {mistake["path"]: mistake["detail"] for mistake in checked["mistakes"]}
    assert set(found) == {
        "accounts.shop.senders[3]",
        "modes.alert.senders[0]",
        "routes[0].match.senders[1]",
    }
    assert "at most 11 characters" in found["accounts.shop.senders[3]"]
    assert "TwelveLetters" not in str(found)


async def test_what_is_no_toml_is_refused(api: Api) -> None:
    for content, headers, slug in [
        (b"\xff", TOML, "malformed-request"),
        (b"{}", {"content-type": "application/json"}, "unsupported-media-type"),
        (b"[[", TOML, "invalid-configuration"),
        (b"a = '\0'", TOML, "invalid-configuration"),
        (b"", TOML, "invalid-configuration"),
        (b"#" * 9000, TOML, "body-too-large"),
    ]:
        response = await api.post(f"{CONFIG}/apply", content=content, headers=headers)
        assert slug_of(response) == slug


async def test_before_the_first_configuration_there_is_none_to_read(unconfigured: Api) -> None:
    response = await unconfigured.get(CONFIG)
    assert (response.status_code, slug_of(response)) == (503, "no-configuration")


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
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)
