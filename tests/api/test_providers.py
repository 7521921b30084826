"""Providers over HTTP: who is declared, who is up, what came of the last hour."""

from datetime import UTC, datetime, timedelta

import pytest

from domain.binds import BindError, BindFailure
from domain.configuration import Environment
from domain.rates import NO_DEMAND, RateDemand
from store import providers as store
from store.providers import Heartbeat
from tests.api.conftest import Api, slug_of

pytestmark = pytest.mark.stack

PROVIDERS = "/api/v1/providers"
BOTH = ["chunks", "providers"]


async def test_providers_are_up_while_a_living_worker_has_a_bind(api: Api) -> None:
    async with api.services.database.begin() as connection:
        for name, binds, state in (("primary", 2, "up"), ("backup", 0, "down")):
            store.record_heartbeat(
                connection,
                Heartbeat(name, "worker/1", BOTH, binds, binds, state, polls=BOTH),
            )
    primary, backup = sorted(
        (await api.get(PROVIDERS)).json()["items"], key=lambda p: str(p["name"]), reverse=True
    )
    assert (primary["name"], primary["state"], primary["binds_up"]) == ("primary", "up", 2)
    assert (backup["name"], backup["state"], backup["workers"]) == ("backup", "down", 1)
    assert (primary["type"], primary["environment"], primary["rate"]) == ("simulator", "live", None)
    assert primary["recent"]["attempts"] == 0
    assert (primary["up_for"], backup["up_for"]) == (["chunks", "providers"], [])
    assert (primary["last_bind_error"], backup["last_bind_error"]) == (None, None)


async def test_a_provider_that_is_polled_for_one_role_only_is_not_up(api: Api) -> None:
    async with api.services.database.begin() as connection:
        store.record_heartbeat(
            connection, Heartbeat("primary", "a/1", ["chunks"], 1, 1, "up", polls=["chunks"])
        )
        store.record_heartbeat(
            connection, Heartbeat("primary", "b/2", ["providers"], 0, 0, "down", polls=[])
        )
    primary = (await api.get(f"{PROVIDERS}/primary")).json()
    assert (primary["state"], primary["up_for"], primary["workers"]) == ("partial", ["chunks"], 2)


async def test_the_reason_why_a_session_is_not_bound_is_shown(api: Api) -> None:
    error = BindError(BindFailure.BIND_REFUSED, "ESME_RINVPASWD", "transceiver")
    async with api.services.database.begin() as connection:
        heartbeat = Heartbeat("primary", "a/1", BOTH, 1, 0, "down", [], last_bind_error=error)
        store.record_heartbeat(connection, heartbeat)
    shown = (await api.get(f"{PROVIDERS}/primary")).json()["last_bind_error"]
    assert (shown["reason"], shown["code"], shown["session"]) == (
        "bind_refused",
        "ESME_RINVPASWD",
        "transceiver",
    )
    assert "refused the bind (ESME_RINVPASWD)" in shown["detail"]
    assert "password" in shown["detail"]
    await api.execute("UPDATE provider_workers SET heartbeat_at = now() - interval '1 minute'")
    silent = (await api.get(f"{PROVIDERS}/primary")).json()
    assert (silent["last_bind_error"], silent["bind_errors"]) == (None, [])
    assert "No worker process serves it" in silent["detail"]


async def test_the_errors_of_all_workers_are_shown_and_those_that_last_come_first(api: Api) -> None:
    at = datetime(2026, 11, 5, 3, 0, tzinfo=UTC)
    refused = BindError(BindFailure.BIND_REFUSED, "ESME_RALYBND", "transceiver", at=at)
    later = at + timedelta(minutes=5)
    past = BindError(BindFailure.TIMEOUT, "TimeoutError", "transceiver", at=later, ended_at=later)
    missing = BindError(BindFailure.SECRET_MISSING, subject='the secret "env:X" is missing', at=at)
    reported = {"a/1": past, "b/2": refused, "c/3": refused, "d/4": missing}
    async with api.services.database.begin() as connection:
        for worker, error in reported.items():
            heartbeat = Heartbeat(
                "primary", worker, [], 0, 0, "down", polls=[], last_bind_error=error
            )
            store.record_heartbeat(connection, heartbeat)
    shown = (await api.get(f"{PROVIDERS}/primary")).json()
    assert [(e["reason"], e["workers"], e["is_current"]) for e in shown["bind_errors"]] == [
        ("bind_refused", 2, True),
        ("secret_missing", 1, True),
        ("timeout", 1, False),
    ]
    assert shown["last_bind_error"]["reason"] == "bind_refused"
    assert shown["last_bind_error"]["at"] == "2026-11-05T03:00:00Z"
    assert shown["detail"] == shown["last_bind_error"]["detail"]


async def test_an_error_stays_as_a_past_one_when_the_session_is_bound_again(api: Api) -> None:
    at = datetime.now(UTC)
    error = BindError(BindFailure.HOST_NOT_FOUND, "gaierror", "transceiver", at=at, ended_at=at)
    async with api.services.database.begin() as connection:
        heartbeat = Heartbeat(
            "primary",
            "a/1",
            ["providers", "chunks"],
            1,
            1,
            "up",
            polls=["providers", "chunks"],
            last_bind_error=error,
        )
        store.record_heartbeat(connection, heartbeat)
    shown = (await api.get(f"{PROVIDERS}/primary")).json()
    assert (shown["state"], shown["detail"]) == ("up", None)
    assert (shown["last_bind_error"]["reason"], shown["last_bind_error"]["is_current"]) == (
        "host_not_found",
        False,
    )
    assert shown["last_bind_error"]["detail"].endswith("It is bound now.")


async def test_a_provider_that_throttles_shows_how_much_of_its_rate_is_used(api: Api) -> None:
    async with api.services.database.begin() as connection:
        for worker, ratio in (("worker/1", 1.0), ("worker/2", 0.25)):
            heartbeat = Heartbeat("primary", worker, BOTH, 1, 1, "up", BOTH, rate_ratio=ratio)
            store.record_heartbeat(connection, heartbeat)
    shown = {p["name"]: p["rate_ratio"] for p in (await api.get(PROVIDERS)).json()["items"]}
    assert shown == {"primary": 0.25, "backup": 1}


async def test_the_share_and_the_demand_of_each_worker_are_shown(api: Api) -> None:
    shares = (
        ("b/2", ["providers"], 5.0, RateDemand(1.5, 1.0, is_limited=False), 1),
        ("a/1", ["chunks"], 195.0, RateDemand(310.0, 0.0, is_limited=True), 1),
        ("c/3", ["chunks"], 0.0, NO_DEMAND, 0),  # holds no bind
    )
    async with api.services.database.begin() as connection:
        for worker, roles, share, demand, binds in shares:
            store.record_heartbeat(
                connection,
                Heartbeat(
                    *("primary", worker, roles, binds, binds, "up", roles),
                    rate_share=share,
                    demand=demand,
                ),
            )
    shown = (await api.get(f"{PROVIDERS}/primary")).json()["rate_shares"]
    assert shown == [
        {"roles": ["chunks"], "share": 195.0, "demand": 310.0, "critical_demand": 0.0},
        {"roles": ["providers"], "share": 5.0, "demand": 1.5, "critical_demand": 1.0},
    ]
    assert (await api.get(f"{PROVIDERS}/backup")).json()["rate_shares"] == []


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
        response = await api.get(f"{PROVIDERS}/{name}", key=key)
        assert (response.status_code, slug_of(response)) == (404, "not-found")
