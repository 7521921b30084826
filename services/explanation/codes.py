"""What the code of a provider means, by the type of the provider."""

from domain.provider_codes import CodeMeaning
from domain.provider_codes.smpp import receipt_meaning, response_meaning
from services.explanation.known import Known


def response_code(known: Known, provider: str | None, code: str) -> CodeMeaning | None:
    """What the code of a response stands for; None if that is not known."""
    return _of_table(known, provider, code) or response_meaning(code)


def receipt_code(known: Known, provider: str | None, code: str) -> CodeMeaning | None:
    """What the code of a negative receipt stands for; None if that is not known."""
    own = _of_table(known, provider, code)
    if own is not None or known.codes.get(provider or ""):
        return own
    return receipt_meaning(code)  # codes of GSM, which providers with a table do not use


def _of_table(known: Known, provider: str | None, code: str) -> CodeMeaning | None:
    found = known.codes.get(provider or "", {}).get(code)
    return None if found is None else CodeMeaning("", found.meaning)
