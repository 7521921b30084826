"""The tables of commands and TLVs, against the order of the specification and against smpplib."""

import pytest
from smpplib import command as smpplib_command
from smpplib.consts import OPTIONAL_PARAMS

from smpp.bodies import BODIES
from smpp.commands import Command
from smpp.tlvs import Tag, TlvType

# Where smpplib differs from the specification.
DIFFERENT = {
    Tag.DELIVERY_FAILURE_REASON,  # 5.3.2.33: one octet, a text there
    Tag.ITS_SESSION_INFO,  # 5.3.2.43: two octets, a number there
    Tag.MESSAGE_PAYLOAD,  # 5.3.2.32: 64 KiB, 260 octets there
    Tag.NETWORK_ERROR_CODE,  # 5.3.2.31: three octets, in two of its commands a text
    Tag.SOURCE_TELEMATICS_ID,  # 5.3.2.8: one octet, two there
    Tag.USSD_SERVICE_OP,  # 5.3.2.44: one octet, a number there
}


def smpplibs_sizes(tag: Tag) -> set[tuple[int, int]]:
    """The least and most octets of a TLV in each command of smpplib that has it."""
    found = set()
    for declared in vars(smpplib_command).values():
        params = getattr(declared, "params", None)
        param = params.get(tag.name.lower()) if isinstance(params, dict) else None
        if param is not None:
            size = getattr(param, "size", None)
            if size is None and not hasattr(param, "max"):
                size = 0  # a flag
            least = size if size is not None else getattr(param, "min", None)
            found.add((least, size if size is not None else param.max))
    return found


def test_every_command_has_its_fields():
    assert set(BODIES) == set(Command)


def test_every_tlv_of_the_specification_is_in_the_table_once():
    assert {tag.name.lower() for tag in Tag} == set(OPTIONAL_PARAMS)
    assert sorted(int(tag.section.rpartition(".")[2]) for tag in Tag) == list(range(1, 45))


@pytest.mark.parametrize("tag", sorted(set(Tag) - DIFFERENT))
def test_a_tlv_has_the_size_that_smpplib_gives_it(tag):
    expected = tag.value_type
    sizes = smpplibs_sizes(tag)
    if tag in {Tag.SET_DPF, Tag.SOURCE_ADDR_SUBUNIT}:  # in no command, or in one with two octets
        assert not sizes or (expected.least, expected.most) in sizes
        return
    assert {most for _, most in sizes} == {expected.most}
    assert {least for least, _ in sizes} <= {expected.least, None}


def test_a_value_fits_its_type_by_its_number_of_octets():
    assert Tag.SAR_MSG_REF_NUM.value_type.fits(b"\0\x01")
    assert not Tag.SAR_MSG_REF_NUM.value_type.fits(b"\x01")
    assert Tag.RECEIPTED_MESSAGE_ID.value_type.fits(b"x" * 64 + b"\0")
    assert not Tag.RECEIPTED_MESSAGE_ID.value_type.fits(b"x" * 65 + b"\0")
    assert Tag.ALERT_ON_MESSAGE_DELIVERY.value_type == TlvType("octet string", 0, 0)
