"""What a configuration declares and SMPP cannot carry."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from domain.callbacks.signatures import secret_of
from domain.secrets import AllowedSecrets
from settings.configuration_checks import (
    missing_public_url,
    protocol_mistakes,
    unreadable_secrets,
)
from settings.configuration_file import Mistake, parse_configuration

TEXT = """
[providers.primary]
type = "smpp"
host = "smsc.example.net"
system_id = "acme"
password = "file:{file}"

[[routes]]
providers = ["primary"]
"""

SIGNING = """
[providers.primary]
type = "simulator"
receipt_secret = "{reference}"

[[routes]]
providers = ["primary"]

[accounts.shop]
callback_secret = "{reference}"
"""


def mistakes(file: Path, allowed: AllowedSecrets) -> list[Mistake]:
    text = TEXT.format(file=file)
    return protocol_mistakes(text, parse_configuration(text), allowed)


@pytest.mark.parametrize("secret", [b"twelve-chars", b"\xc3\xbcml\xc3\xa4ut_8"])
def test_a_password_in_a_file_has_at_most_eight_octets(tmp_path: Path, secret: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(secret + b"\n")
    (mistake,) = mistakes(file, AllowedSecrets(folders=(str(tmp_path),)))
    assert (mistake.line, mistake.path) == (6, "providers.primary.password")
    assert "at most 8 octets" in mistake.sentence
    assert secret.decode() not in mistake.sentence


def test_a_password_that_fits_or_is_not_there_is_no_mistake(
    tmp_path: Path,
) -> None:
    file, allowed = tmp_path / "password", AllowedSecrets(folders=(str(tmp_path),))
    assert not mistakes(file, allowed)
    file.write_text("8_octets\n")
    assert not mistakes(file, allowed)


def made_empty(file: Path) -> None:
    file.touch()


def made_too_long(file: Path) -> None:
    file.write_text("x" * 70_000)


def made_of_other_octets(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")


def made_a_pipe(file: Path) -> None:
    os.mkfifo(file)


def made_a_folder(file: Path) -> None:
    file.mkdir()


def made_a_link_out(file: Path) -> None:
    file.symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    "make",
    [
        made_empty,
        made_too_long,
        made_of_other_octets,
        made_a_pipe,
        made_a_folder,
        made_a_link_out,
    ],
)
def test_a_secret_file_that_can_be_seen_to_be_unusable_is_a_mistake(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    file = tmp_path / "secret"
    make(file)
    (mistake,) = mistakes(file, AllowedSecrets(folders=(str(tmp_path),)))
    assert (mistake.line, mistake.path) == (6, "providers.primary.password")
    assert str(file) in mistake.sentence


@pytest.mark.parametrize(
    ("secret", "fits"),
    [("abc", False), ("whsec_", False), ("whsec_é", False), (secret_of(bytes(32)), True)],
)
def test_signing_secrets_have_their_form(
    monkeypatch: pytest.MonkeyPatch, secret: str, fits: bool
) -> None:
    monkeypatch.setenv("SMSGATEWAY_SECRET_SIGNS", secret)
    text = SIGNING.format(reference="env:SMSGATEWAY_SECRET_SIGNS")
    found = protocol_mistakes(
        text, parse_configuration(text), AllowedSecrets(variables=("SMSGATEWAY_SECRET_",))
    )
    wrong = [] if fits else ["providers.primary.receipt_secret", "accounts.shop.callback_secret"]
    assert [mistake.path for mistake in found] == wrong
    for mistake in found:
        assert "whsec_" in mistake.sentence
        assert "é" not in mistake.sentence


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_here_is_no_mistake(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("SMSGATEWAY_SECRET_SIGNS", raising=False)
    if value is not None:
        monkeypatch.setenv("SMSGATEWAY_SECRET_SIGNS", value)
    text = SIGNING.format(reference="env:SMSGATEWAY_SECRET_SIGNS")
    allowed = AllowedSecrets(variables=("SMSGATEWAY_SECRET_",))
    assert not protocol_mistakes(text, parse_configuration(text), allowed)


OVER_HTTP = """
[providers.twilio]
type = "twilio"
account_sid = "AC72d1371c17149d439536b3216fdaeeb9"
auth_token = "env:SMSGATEWAY_SECRET_THAT_IS_NOT_THERE"

[providers.primary]
type = "simulator"

[[routes]]
providers = ["twilio", "primary"]
"""


def test_the_api_needs_the_secrets_of_a_provider_whose_receipts_come_over_http() -> None:
    allowed = AllowedSecrets(variables=("SMSGATEWAY_SECRET_",))
    (warning,) = unreadable_secrets(OVER_HTTP, parse_configuration(OVER_HTTP), allowed)
    assert (warning.line, warning.path) == (5, "providers.twilio.auth_token")
    assert "the API needs all secrets of the provider to verify its receipts" in warning.sentence
    silent = OVER_HTTP.replace("[providers.primary]", "receipts = false\n[providers.primary]")
    (warning,) = unreadable_secrets(silent, parse_configuration(silent), allowed)
    assert "verifies" not in warning.sentence


def test_receipts_over_http_need_a_public_address() -> None:
    (warning,) = missing_public_url(OVER_HTTP, parse_configuration(OVER_HTTP))
    assert (warning.line, warning.path) == (2, "providers.twilio")
    assert "set SMSGATEWAY_PUBLIC_URL in every process, or receipts = false" in warning.sentence
    silent = OVER_HTTP.replace("[providers.primary]", "receipts = false\n[providers.primary]")
    assert missing_public_url(silent, parse_configuration(silent)) == []
