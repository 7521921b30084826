"""Routes that no message takes."""

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from domain.configuration import Configuration, Environment
from domain.configuration.routing_key import RoutingKey
from domain.modes import Mode
from domain.shadowed_routes import shadowed_routes

PROVIDERS: dict[str, Any] = {
    "live": {"type": "simulator"},
    "test": {"type": "simulator", "environment": "test"},
}


def configured(*routes: dict[str, Any]) -> Configuration:
    declared = [{"providers": ["live", "test"]} | route for route in routes]
    return Configuration.model_validate({"providers": PROVIDERS, "routes": declared})


def hidden(*routes: dict[str, Any]) -> list[tuple[int, tuple[int, ...]]]:
    return list(shadowed_routes(configured(*routes)))


def test_a_route_behind_one_for_everything_is_hidden() -> None:
    assert hidden({}, {"match": {"countries": ["US"]}}) == [(1, (0,))]


def test_routes_for_different_messages_hide_nothing() -> None:
    assert hidden({"match": {"countries": ["US"]}}, {"match": {"countries": ["CA"]}}, {}) == []


def test_a_route_can_be_hidden_by_several_together() -> None:
    routes = [{"match": {"countries": [country]}} for country in ("US", "CA")]
    assert hidden(*routes, {"match": {"countries": ["CA", "US"]}}) == [(2, (0, 1))]
    modes = [{"match": {"modes": [mode.value]}} for mode in Mode]
    assert hidden(*modes, {}) == [(len(modes), tuple(range(len(modes))))]


def test_all_named_values_together_are_not_everything() -> None:
    assert hidden({"match": {"countries": ["US"]}}, {"match": {"countries": ["CA"]}}, {}) == []


def test_a_route_for_the_other_environment_hides_nothing() -> None:
    assert hidden({"providers": ["test"]}, {}) == []
    assert hidden({"providers": ["test"]}, {"providers": ["live"]}, {}) == [(2, (0, 1))]
    assert hidden(
        {"match": {"environment": "live"}, "providers": ["live"]}, {"providers": ["live"]}
    ) == [(1, (0,))]


COUNTRIES = ("US", "CA", "DE")
SENDERS = ("A", "B", "C")
MATCH = st.fixed_dictionaries(
    {},
    optional={
        "countries": st.lists(st.sampled_from(COUNTRIES[:2]), unique=True),
        "senders": st.lists(st.sampled_from(SENDERS[:2]), unique=True),
        "modes": st.lists(st.sampled_from([mode.value for mode in Mode]), unique=True),
    },
)
ROUTE = st.fixed_dictionaries(
    {
        "match": MATCH,
        "providers": st.sampled_from([["live"], ["test"], ["live", "test"]]),
    }
)


@given(st.lists(ROUTE, min_size=1, max_size=6))
def test_a_route_is_hidden_exactly_if_no_message_takes_it(routes: list[dict[str, Any]]) -> None:
    configuration = configured(*routes)
    taken = set()
    for country, sender, mode, environment in itertools.product(
        COUNTRIES, SENDERS, Mode, Environment
    ):
        found = configuration.route_for(
            RoutingKey(
                environment=environment,
                country=country,
                mode=mode,
                sender=sender,
                network="unknown",
                account_id="shop",
            )
        )
        taken |= {found[0]} if found else set()
    expected = set(range(len(routes))) - taken
    assert {number for number, _ in shadowed_routes(configuration)} == expected
