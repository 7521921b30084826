"""The description of behaviour: its table, its files, its words."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from simulator.behaviour import (
    TEST_NUMBERS,
    Behaviour,
    Dialect,
    Response,
    Setup,
    is_documented,
    meaning_of,
)
from simulator.twilio_behaviour import TWILIO_NUMBERS

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "simulator.md"


def test_every_test_number_stands_in_the_documentation_with_its_meaning():
    rows = {
        cells[1].strip(" `"): (cells[2].strip(), cells[3].strip())
        for line in DOCUMENTATION.read_text(encoding="utf-8").splitlines()
        if (cells := line.split("|"))[0] == "" and len(cells) == 5
    }
    documented = {number: row for number, row in rows.items() if number.startswith("+4477009000")}
    assert documented == {
        f"+4477009000{digits}": (number.meaning, TWILIO_NUMBERS[digits].meaning)
        for digits, number in TEST_NUMBERS.items()
    }


def test_the_documentations_file_can_be_read(tmp_path):
    text = DOCUMENTATION.read_text(encoding="utf-8")
    file = tmp_path / "smsc.toml"
    [example] = [block for block in text.split("```toml\n")[1:] if "[dialect]" in block]
    file.write_text(example.split("```")[0], encoding="utf-8")
    setup = Setup.read(file)
    assert setup.default.latency == 0.02
    assert setup.numbers["+447700900500"].response is Response.REFUSE
    assert setup.dialect.id_in_response == "hex"


@pytest.mark.parametrize(
    ("status", "code"), [("ESME_RTHROTTLED", 0x58), ("0x58", 0x58), (88, 0x58), ("1040", 0x410)]
)
def test_a_status_is_written_by_name_or_number(status, code):
    assert Behaviour(response="refuse", status=status).status == code


@pytest.mark.parametrize("status", ["ESME_ROK", "RTHROTTLED", 0, -1, 2**32, "", None, 1.5])
def test_what_is_no_refusal_is_no_status(status):
    with pytest.raises(ValidationError):
        Behaviour(response="refuse", status=status)


def test_receipts_must_name_their_message_somehow():
    with pytest.raises(ValidationError, match="receipt_tlvs"):
        Dialect(receipt_tlvs=False, receipt_text=False)


def test_a_mistaken_file_is_not_read(tmp_path):
    file = tmp_path / "smsc.toml"
    for text in ("default = 1", "[default]\nlatncy = 1", "= x"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r".+"):
            Setup.read(file)


@pytest.mark.parametrize(
    ("number", "digits"),
    [
        ("+447700900045", "45"),
        ("447700900045", "45"),
        ("+12015550145", "45"),
        ("+33639980045", "45"),
        ("+447700900145", None),
        ("+33639980145", None),
        ("+12015550045", None),
        ("+447700900099", None),
        ("12345", None),
        ("", None),
    ],
)
def test_three_ranges_are_steered_by_their_last_digits(number, digits):
    assert meaning_of(number, TEST_NUMBERS) is (TEST_NUMBERS[digits] if digits else None)


@pytest.mark.parametrize(
    ("number", "documented"),
    [
        ("+447700900000", True),
        ("+447700900999", True),
        ("+447700901000", False),
        ("+44770090000", False),
        ("+12015550100", True),
        ("+12015550199", True),
        ("+12015550200", False),
        ("+33639980000", True),
        ("+33639989999", True),
        ("+33639970000", False),
    ],
)
def test_the_documented_numbers_are_the_regulators_own(number, documented):
    assert is_documented(number) is documented
