"""How long the receipt of an attempt is waited for, as a configuration and a request say."""

from datetime import UTC, datetime, timedelta

import pytest

from domain.configuration import Configuration
from domain.modes import MODE_POLICIES, Mode
from services.routes import receipt_by, unknown_until

NOW = datetime(2026, 5, 1, 3, 0, tzinfo=UTC)
SMPP = {"type": "simulator", "port": 2775}


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def waits(
    mode: Mode,
    *,
    requested: float | None = None,
    alternatives: int = 1,
    validity: timedelta | None = None,
    modes: dict[str, dict[str, str]] | None = None,
    **provider: str,
) -> float:
    """Seconds for which the receipt of an attempt is waited for."""
    configuration = Configuration.model_validate(
        {
            "providers": {"primary": SMPP | provider},
            "routes": [{"providers": ["primary"]}],
            "modes": modes or {},
        }
    )
    valid_until = NOW + (validity or configuration.mode_policy(mode).validity)
    by = receipt_by(
        configuration,
        "primary",
        mode,
        None if requested is None else seconds(requested),
        valid_until,
        NOW,
        alternatives=alternatives,
    )
    return (by - NOW).total_seconds()


@pytest.mark.parametrize("mode", [Mode.ALERT, Mode.VERIFICATION])
def test_by_default_a_message_that_must_arrive_goes_on_after_a_minute(mode):
    assert waits(mode) == 60


@pytest.mark.parametrize("mode", [Mode.TRANSACTIONAL, Mode.TWO_WAY, Mode.PROMOTIONAL])
def test_by_default_any_other_message_waits_for_its_receipt_while_it_is_valid(mode):
    validity = MODE_POLICIES[mode].validity.total_seconds()
    assert waits(mode) == validity + 60


def test_the_configuration_says_it_by_mode_and_a_request_says_it_for_its_message():
    by_mode = {"alert": {"receipt_deadline": "20s"}}
    assert waits(Mode.ALERT, modes=by_mode) == 20
    assert waits(Mode.VERIFICATION, modes=by_mode) == 60
    assert waits(Mode.ALERT, modes=by_mode, requested=300) == 300
    assert waits(Mode.TRANSACTIONAL, requested=300) == 300
    assert waits(Mode.TRANSACTIONAL, modes={"transactional": {"receipt_deadline": "10m"}}) == 600


def test_a_provider_that_is_quicker_than_its_mode_makes_the_wait_shorter():
    assert waits(Mode.ALERT, receipt_deadline="3s") == 3
    assert waits(Mode.TRANSACTIONAL, receipt_deadline="3s") == 24 * 3600 + 60


def test_a_mode_that_only_the_configuration_makes_go_on_waits_as_its_provider_says():
    by_mode = {"transactional": {"missing_receipt": "next_route"}}
    assert waits(Mode.TRANSACTIONAL, modes=by_mode) == 1800


def test_the_last_provider_has_all_of_the_validity():
    assert waits(Mode.VERIFICATION, alternatives=0) == 660


def test_a_deadline_never_takes_the_chance_of_the_next_route():
    assert waits(Mode.VERIFICATION, requested=3600) == 540
    assert waits(Mode.ALERT, validity=seconds(20)) == 10


def test_an_unknown_outcome_waits_as_its_provider_says():
    configuration = Configuration.model_validate(
        {
            "providers": {"primary": SMPP | {"receipt_deadline": "5m"}},
            "routes": [{"providers": ["primary"]}],
        }
    )
    assert unknown_until(configuration, "primary", NOW) == NOW + timedelta(minutes=5)
    assert unknown_until(configuration, "removed", NOW) == NOW + timedelta(minutes=30)
