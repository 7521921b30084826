"""Prices are exact, and no bad value of an adapter becomes one."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.money import CURRENCIES, Billed, Price, total
from domain.outcomes import OutcomeKind, PartOutcome

amounts = st.decimals(0, 10**9, allow_nan=False, allow_infinity=False, places=6).filter(
    lambda amount: amount < 10**9
)
currencies = st.sampled_from(sorted(CURRENCIES))


@given(amounts, currencies)
def test_a_price_is_what_was_written_and_nothing_is_rounded(amount, currency):
    price = Price.of(f"{amount:f}", currency)
    assert (price.amount, price.currency) == (amount, currency)
    assert str(price) == f"{amount:f} {currency}"


@pytest.mark.parametrize(
    "amount",
    [
        *("-0.01", "NaN", "sNaN", "Infinity", "-Infinity", "1000000000", "1e30", "0.0000000000001"),
        *("", " ", "abc", "1,5", "0x1", "1.2.3", "1/2"),
    ],
)
def test_an_amount_that_is_no_price_is_refused(amount):
    with pytest.raises(ValueError, match="price"):
        Price.of(amount, "USD")


@pytest.mark.parametrize("currency", ["", "usd", "US", "XXX", "XTS", "XAU", "BTC", "EURO", "€"])
def test_what_is_no_currency_of_a_country_is_refused(currency):
    with pytest.raises(ValueError, match="ISO 4217"):
        Price.of("1", currency)


@pytest.mark.parametrize("amount", [0.0075, 1, "1", None, True])
def test_an_amount_that_is_no_decimal_is_refused(amount):
    with pytest.raises(TypeError, match="Decimal"):
        Price(amount, "USD")


def test_nothing_costs_nothing():
    assert str(Price.of("0", "EUR")) == "0 EUR"


@pytest.mark.parametrize("segments", [-1, 1001, 10**9])
def test_an_outcome_with_an_impossible_number_of_segments_is_refused(segments):
    with pytest.raises(ValueError, match="segments"):
        PartOutcome(1, OutcomeKind.ACCEPTED, segments=segments)


@pytest.mark.parametrize("segments", [1.0, "1", True])
def test_an_outcome_whose_segments_are_no_whole_number_is_refused(segments):
    with pytest.raises(TypeError, match="segments"):
        PartOutcome(1, OutcomeKind.ACCEPTED, segments=segments)


@given(st.lists(st.tuples(st.none() | st.integers(0, 9), st.none() | amounts), max_size=5))
@example([(1, Decimal(999_999_999)), (1, Decimal(1))])
def test_the_total_of_parts_is_their_sum_unless_it_is_too_large_for_a_price(parts):
    billed = total([Billed(n, None if a is None else Price(a, "EUR")) for n, a in parts])
    segments = [n for n, _ in parts if n is not None]
    prices = [a for _, a in parts if a is not None]
    assert billed.segments == (sum(segments) if segments else None)
    expected = sum(prices) if prices and sum(prices) < 10**9 else None
    assert (billed.price.amount if billed.price else None) == expected


def test_prices_in_different_currencies_have_no_total():
    parts = [Billed(1, Price.of("1", "EUR")), Billed(1, Price.of("1", "USD"))]
    assert total(parts) == Billed(2, None)
