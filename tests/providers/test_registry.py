"""Types of providers: the built-in ones, and those that other packages add by an entry point."""

from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from domain.configuration import Configuration, ProviderConfiguration
from domain.configuration.providers.types import BUILT_IN_TYPES, PROVIDER_TYPES
from domain.modes import Priority
from domain.receipt_tokens import ReceiptTokens
from domain.secrets import AllowedSecrets
from providers.base import Outbound, ProviderSinks
from providers.registry import ProviderTypes
from settings.configuration_checks import protocol_mistakes
from settings.configuration_file import ConfigurationMistakes, parse_configuration
from settings.secrets import SecretAbsent, SecretNotAllowed
from tests.fakes.line_provider import LineConfiguration, LineProvider
from tests.fakes.packages import install_entry_points

TEXT = """\
[providers.lines]
type = "lines"
port = 4000
token = "env:SMSGATEWAY_SECRET_LINES"

[[routes]]
providers = ["lines"]
"""
ALLOWED = AllowedSecrets(("SMSGATEWAY_SECRET_",))


@pytest.fixture
def types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProviderTypes:
    install_entry_points(
        tmp_path,
        monkeypatch,
        {"smsgateway.providers": {"lines": "tests.fakes.line_provider:LINES"}},
    )
    return ProviderTypes.installed()


async def _sink(_: object) -> None:
    pass


def mistakes_in(text: str, types: Mapping[str, type[ProviderConfiguration]]) -> list[str]:
    with pytest.raises(ConfigurationMistakes) as refused:
        parse_configuration(text, ALLOWED, types)
    return [str(mistake) for mistake in refused.value.mistakes]


def test_without_other_packages_there_are_the_built_in_types():
    assert ProviderTypes.installed().configurations == BUILT_IN_TYPES


def test_a_section_is_read_by_the_class_of_its_type(types):
    configuration = parse_configuration(TEXT, ALLOWED, types.configurations)
    declared = configuration.providers["lines"]
    assert type(declared) is LineConfiguration
    assert (declared.port, declared.window) == (4000, 100)


def test_a_type_that_is_not_installed_is_refused_by_one_sentence_that_names_those_that_are(types):
    (sentence,) = mistakes_in(TEXT, BUILT_IN_TYPES)
    assert sentence == f"line 2: providers.lines.type: it must be one of {listed(BUILT_IN_TYPES)}"
    (sentence,) = mistakes_in(TEXT.replace('"lines"', '"line"', 1), types.configurations)
    assert sentence == (
        f"line 2: providers.lines.type: it must be one of {listed(types.configurations)}; "
        'did you mean "lines"?'
    )


def listed(types) -> str:
    *others, last = [f"'{name}'" for name in sorted(types)]
    return f"{', '.join(others)} or {last}"


def test_a_mistake_in_the_section_of_another_type_has_its_line_and_a_suggestion(types):
    known = types.configurations
    assert mistakes_in(TEXT.replace("port", "prot"), known) == [
        "line 1: providers.lines.port: it is missing",
        'line 3: providers.lines.prot: there is no such key; did you mean "port"?',
    ]
    (sentence,) = mistakes_in(TEXT.replace("env:SMSGATEWAY_SECRET_LINES", "env:PATH"), known)
    assert "the server allows only environment variables" in sentence


def test_a_section_without_a_type_is_for_smpp():
    text = TEXT.replace('type = "lines"\n', 'host = "smsc.example.net"\nsystem_id = "acme"\n')
    text = text.replace("token", "password")
    declared = parse_configuration(text).providers["lines"]
    assert declared.type == "smpp"


def test_a_configuration_with_another_type_survives_being_stored(types):
    stored = parse_configuration(TEXT, ALLOWED, types.configurations)
    read = Configuration.model_validate_json(
        stored.model_dump_json(), context={PROVIDER_TYPES: types.configurations}
    )
    assert read == stored


def test_the_secrets_of_another_type_are_checked_and_given_to_its_adapter(types, monkeypatch):
    configuration = parse_configuration(TEXT, ALLOWED, types.configurations)
    monkeypatch.setenv("SMSGATEWAY_SECRET_LINES", "two words")
    (mistake,) = protocol_mistakes(TEXT, configuration, ALLOWED)
    assert mistake.path == "providers.lines.token"
    assert mistake.sentence.endswith("a token has no blanks")


async def test_an_adapter_is_built_with_its_secrets_or_not_at_all(types, monkeypatch):
    declared = parse_configuration(TEXT, ALLOWED, types.configurations).providers["lines"]
    with pytest.raises(SecretAbsent, match="SMSGATEWAY_SECRET_LINES"):
        types.build("lines", declared, ALLOWED, ProviderSinks(_sink))
    monkeypatch.setenv("SMSGATEWAY_SECRET_LINES", "swordfish")
    with pytest.raises(SecretNotAllowed):
        types.build("lines", declared, AllowedSecrets(), ProviderSinks(_sink))
    provider = types.build("lines", declared, ALLOWED, ProviderSinks(_sink))
    assert isinstance(provider, LineProvider)
    assert provider._token == "swordfish"


@pytest.mark.parametrize(
    ("name", "object_", "reason"),
    [
        ("broken", "tests.fakes.no_such_module:TYPE", "failed"),
        ("broken", "tests.fakes.line_provider:LineProvider", "no_provider_type"),
        ("smpp", "tests.fakes.line_provider:LINES", "built_in_type"),
    ],
)
def test_a_type_that_cannot_be_used_is_logged_and_left_out(
    tmp_path, monkeypatch, name, object_, reason
):
    install_entry_points(tmp_path, monkeypatch, {"smsgateway.providers": {name: object_}})
    with capture_logs() as logs:
        assert ProviderTypes.installed().configurations == BUILT_IN_TYPES
    (entry,) = logs
    assert (entry["event"], entry["provider_type"]) == ("provider_type_not_loaded", name)
    assert entry["reason"] == reason


def test_what_an_adapter_is_given_shows_no_token_no_parameter_and_nothing_of_people():
    outbound = Outbound(
        message_id=UUID(int=7),
        attempt=1,
        sender="ACME",
        recipient="+447700900123",
        text="Hello Ann",
        reference=1,
        valid_until=None,
        priority=Priority.NORMAL,
        receipt_token=ReceiptTokens(b"k" * 32).token(UUID(int=7), 1),
        country="GB",
        parameters={"template_id": "1107"},
    )
    shown = repr(outbound)
    hidden = (outbound.receipt_token, "1107", "+447700900123", "Hello Ann", "ACME")
    assert [each for each in hidden if each in shown] == []
