"""Money as exact amounts: a decimal number and a currency of ISO 4217."""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Final, Self

from domain.values import value

# ISO 4217, list one, as of 2026: the currencies of countries. Funds, metals and test codes are no prices.
_CODES: Final = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD
CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD
GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD
KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO
NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS
SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV
WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""
# Replaced in 2023 to 2026; carriers' systems may still report them.
_FORMER: Final = "ANG BGN CUC HRK SLL ZWL"
CURRENCIES: Final = frozenset({*_CODES.split(), *_FORMER.split()})

MOST_DECIMALS: Final = 12
_LARGEST: Final = Decimal(10) ** 9
"""No message costs as much: an amount that does is one in another unit."""


@value
class Price:
    """What something costs, exactly.

    Attributes:
        amount: at least 0, below 10⁹, with at most 12 decimals. A float is refused: it is not exact.
        currency: ISO 4217, in capitals.

    Raises:
        ValueError: the amount or the currency is something else.
        TypeError: the amount is no Decimal.
    """

    amount: Decimal
    currency: str

    def __post_init__(self) -> None:
        amount = self.amount
        if not isinstance(amount, Decimal):
            raise TypeError("the amount of a price is a Decimal: Price.of reads one from a text")
        if not amount.is_finite():
            raise ValueError("the amount of a price is a finite number")
        if amount.is_signed() and amount:
            raise ValueError("a price is not negative: drop the sign of a carrier that writes one")
        if amount >= _LARGEST:
            raise ValueError("the amount of a price is below 10⁹: is it in another unit?")
        exponent = amount.as_tuple().exponent
        if isinstance(exponent, int) and -exponent > MOST_DECIMALS:
            raise ValueError(f"the amount of a price has at most {MOST_DECIMALS} decimals")
        if self.currency not in CURRENCIES:
            raise ValueError("the currency of a price is a code of ISO 4217, in capitals")

    @classmethod
    def of(cls, amount: str, currency: str) -> Self:
        """A price from an amount as a text, such as "0.0075".

        Raises:
            ValueError: it is no price.
        """
        try:
            return cls(Decimal(amount), currency)
        except InvalidOperation:
            raise ValueError(
                'the amount of a price is a decimal number, such as "0.0075"'
            ) from None

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency}"


@value
class Billed:
    """What a provider says that it bills, as it reported it; None where it reported nothing."""

    segments: int | None = None
    price: Price | None = None


def total(parts: Sequence[Billed]) -> Billed:
    """What several parts are billed together.

    The price is None where parts have prices in different currencies, or where it is too large for one.
    """
    segments = [part.segments for part in parts if part.segments is not None]
    prices = [part.price for part in parts if part.price is not None]
    currencies = {price.currency for price in prices}
    price = None
    amount = sum((each.amount for each in prices), Decimal())
    if len(currencies) == 1 and amount < _LARGEST:
        price = Price(amount, currencies.pop())
    return Billed(sum(segments) if segments else None, price)
