"""References to secrets and key files, checked by what the server allows."""

from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from domain.secrets import AllowedSecrets, checked_secret_reference

ALLOWED_SECRETS = "allowed_secrets"
"""Key of pydantic's validation context under which the server's `AllowedSecrets` are found; without
them, references are checked by their form alone."""


def _allowed(info: ValidationInfo) -> AllowedSecrets | None:
    return info.context.get(ALLOWED_SECRETS) if info.context else None


def allowed_reference(reference: str, info: ValidationInfo) -> str:
    checked_secret_reference(reference)
    allowed = _allowed(info)
    sentence = allowed.refusal(reference) if allowed else None
    if sentence:
        raise ValueError(sentence)
    return reference


def _allowed_key_file(path: str, info: ValidationInfo) -> str:
    allowed = _allowed(info)
    sentence = allowed.file_refusal(path) if allowed else None
    if sentence:
        raise ValueError(sentence)
    return path


SecretReference = Annotated[str, AfterValidator(allowed_reference)]
"""Where a secret is found, such as "env:NAME"; `settings.secrets` resolves it at use."""

AllowedKeyFile = Annotated[str, AfterValidator(_allowed_key_file)]
"""Path of a private key, in a folder that the server allows."""
