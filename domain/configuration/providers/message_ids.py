"""The forms in which an SMSC writes its message ids, and the one form in which they are stored."""

from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256

from pydantic import Field, StrictBool

from domain.configuration.declared import Declared


class MessageIdForm(StrEnum):
    """How an SMSC writes a message id; many answer in one base and send receipts in another."""

    AS_IS = "as_is"
    HEX = "hex"
    DECIMAL = "decimal"


_BASES: Mapping[MessageIdForm, int] = {MessageIdForm.HEX: 16, MessageIdForm.DECIMAL: 10}

LONGEST_MESSAGE_ID = 65
"""Characters of an id as it is stored and compared; SMPP itself has 64 (3.4, 5.2.23)."""
_KEPT_OF_A_LONGER_ID = 32


class MessageIdForms(Declared):
    """The forms of the id in `submit_sm_resp`, and in the text and the TLV of receipts."""

    response: MessageIdForm = Field(
        MessageIdForm.AS_IS, description="base of the id in submit_sm_resp"
    )
    receipt: MessageIdForm = Field(
        MessageIdForm.AS_IS, description="base of the id in the text of receipts"
    )
    tlv: MessageIdForm | None = Field(
        None,
        description="base of the id in receipted_message_id; by default the one of the two that "
        "agrees with the text, else that of `receipt`",
    )
    case_sensitive: StrictBool = Field(
        False, description="whether ids that differ only in upper and lower case are different ids"
    )

    def of_response(self, written: str) -> str:
        """The id in a submit_sm_resp, in the one form that ids are stored and compared in.

        Hexadecimal and decimal ids become decimal without zeros in front; in other ids, capitals
        become small letters where there are no small ones. An id of more than 65 characters is
        its beginning and a hash. An id that is empty stays empty.
        """
        return self._canonical(written, self.response)

    def of_receipt(self, in_text: str, in_tlv: str = "") -> str:
        """The id of a receipt in that form; empty where the receipt has none.

        An SMSC may write its id in one base in the text, and in another one in the TLV.
        """
        if self.tlv is not None and in_tlv:
            return self._canonical(in_tlv, self.tlv)
        from_text = self._canonical(in_text, self.receipt)
        if not in_tlv or in_tlv == in_text:
            return from_text
        if from_text == self._canonical(in_tlv, self.response):
            return from_text
        return self._canonical(in_tlv, self.receipt)

    def _canonical(self, written: str, form: MessageIdForm) -> str:
        number = None if form is MessageIdForm.AS_IS else _number(written, form)
        if number is None and form is MessageIdForm.DECIMAL and self._has_hex:
            number = _number(written, MessageIdForm.HEX)  # its letters show that it is hexadecimal
        if number is not None:
            written = str(number)
        elif written.isupper() and not self.case_sensitive:
            written = written.lower()
        if len(written) <= LONGEST_MESSAGE_ID:
            return written
        digest = sha256(written.encode("utf-8", "replace")).hexdigest()
        return f"{written[:_KEPT_OF_A_LONGER_ID]}~{digest[:_KEPT_OF_A_LONGER_ID]}"

    @property
    def _has_hex(self) -> bool:
        return MessageIdForm.HEX in {self.response, self.receipt, self.tlv}


def _number(written: str, form: MessageIdForm) -> int | None:
    if not written.isalnum():
        return None
    try:
        return int(written, _BASES[form])
    except ValueError:
        return None
