"""Names and meanings of codes, for people."""

import pytest

from domain.provider_codes.smpp import SMPP_ERRORS, SMPP_STATUSES, receipt_meaning, response_meaning
from smpp.statuses import Status


def test_every_status_of_the_specification_has_its_name_and_a_meaning():
    named = {int(status): status.name for status in Status if status}
    assert {number: each.name for number, each in SMPP_STATUSES.items()} == named
    assert all(each.meaning for each in SMPP_STATUSES.values())


@pytest.mark.parametrize("status", SMPP_ERRORS)
def test_every_status_that_is_classified_is_explained(status):
    assert response_meaning(f"0x{status:08x}") is not None


@pytest.mark.parametrize("code", ["", "0x", "0xzz", "0x00000abc", "58", "429", "\u0663", "ESME"])
def test_a_code_that_nobody_knows_has_no_meaning(code):
    assert response_meaning(code) is None


@pytest.mark.parametrize("code", ["", "000", "999", "abc", "0x1b"])
def test_a_receipt_code_that_nobody_knows_has_no_meaning(code):
    assert receipt_meaning(code) is None


def test_the_code_of_a_receipt_is_explained_with_a_reservation():
    meaning = receipt_meaning("027")
    assert meaning is not None
    assert meaning.meaning == "absent subscriber, if the carrier uses the codes of GSM"
