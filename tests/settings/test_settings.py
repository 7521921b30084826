"""The environment variables, and what is said when they are wrong."""

import os

import pytest

from settings.settings import LogFormat, Settings, SettingsMistakes, load_settings

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SMSGATEWAY_", "TEMPORAL_", "DATABASE_URL")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", "postgresql://sms:hunter2@db/sms")
    monkeypatch.setenv("SMSGATEWAY_RECIPIENT_HASH_KEY", KEY)
    return monkeypatch


def sentences() -> list[str]:
    with pytest.raises(SettingsMistakes) as refused:
        load_settings()
    return list(refused.value.sentences)


def test_database_and_hash_key_are_enough():
    settings = load_settings()
    assert settings.database_url.get_secret_value() == "postgresql://sms:hunter2@db/sms"
    assert settings.temporal_address == "127.0.0.1:7233"
    assert settings.otlp_endpoint is None


def test_conventional_names_keep_their_names_and_ours_have_a_prefix(environment):
    environment.setenv("TEMPORAL_NAMESPACE", "sms")
    environment.setenv("SMSGATEWAY_API_PORT", "9000")
    environment.setenv("SMSGATEWAY_LOG_FORMAT", "console")
    environment.setenv("SMSGATEWAY_SHUTDOWN_GRACE", "3s")
    settings = load_settings()
    assert (settings.temporal_namespace, settings.api_port) == ("sms", 9000)
    assert settings.log_format is LogFormat.CONSOLE
    assert settings.shutdown_grace.total_seconds() == 3


def test_what_is_given_in_code_stands_above_the_environment(environment):
    environment.setenv("SMSGATEWAY_API_PORT", "9000")
    assert load_settings(api_port=9001, temporal_address="t:1").api_port == 9001


def test_all_missing_settings_are_reported_at_once(environment):
    environment.delenv("DATABASE_URL")
    environment.delenv("SMSGATEWAY_RECIPIENT_HASH_KEY")
    database, key = sentences()
    assert database.startswith("DATABASE_URL (or DATABASE_URL_FILE) is not set.")
    assert key.startswith("SMSGATEWAY_RECIPIENT_HASH_KEY (or")


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("DATABASE_URL", "mysql://hunter2@db", "postgresql://user"),
        ("SMSGATEWAY_RECIPIENT_HASH_KEY", "hunter2", "openssl rand -hex 32"),
        ("SMSGATEWAY_API_PORT", "hunter2", "whole number"),
        ("SMSGATEWAY_API_PORT", "70000", "at most 65535"),
        ("SMSGATEWAY_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("TEMPORAL_ADDRESS", "https://temporal:7233", "host:port"),
        ("SMSGATEWAY_OTLP_ENDPOINT", "collector:4318", "http://"),
        ("SMSGATEWAY_RETENTION", "6d", "at least 7d"),
        ("TEMPORAL_TLS", "maybe", "true or false"),
        ("TEMPORAL_TLS_SERVER_CA_CERT_PATH", "/nowhere/hunter2", "cannot be read: No such file"),
        ("SMSGATEWAY_SHUTDOWN_GRACE", "soon", '"30s"'),
    ],
)
def test_a_wrong_value_is_explained_and_not_repeated(environment, variable, value, says):
    environment.setenv(variable, value)
    (sentence,) = sentences()
    assert sentence.startswith(f"{variable}: ")
    assert says in sentence
    assert "hunter2" not in sentence


@pytest.mark.parametrize("given", ["CERT", "KEY"])
def test_half_of_a_client_certificate_is_refused(environment, tmp_path, given):
    file = tmp_path / "half.pem"
    file.write_text("-----BEGIN")
    environment.setenv(f"TEMPORAL_TLS_CLIENT_{given}_PATH", str(file))
    (sentence,) = sentences()
    assert "belong together: set both or neither" in sentence


@pytest.mark.parametrize(
    "variable",
    [
        "TEMPORAL_TLS",
        "TEMPORAL_API_KEY",
        "TEMPORAL_TLS_SERVER_NAME",
        "TEMPORAL_TLS_SERVER_CA_CERT_PATH",
    ],
)
def test_every_setting_about_tls_switches_it_on(environment, tmp_path, variable):
    file = tmp_path / "ca.pem"
    file.write_text("-----BEGIN")
    assert not load_settings().uses_tls_for_temporal
    environment.setenv(variable, "true" if variable == "TEMPORAL_TLS" else str(file))
    assert load_settings().uses_tls_for_temporal


def test_an_empty_variable_counts_as_not_set(environment):
    environment.setenv("SMSGATEWAY_API_PORT", "")
    assert load_settings().api_port == 8080


@pytest.mark.parametrize("variable", ["DATABASE_URL", "SMSGATEWAY_RECIPIENT_HASH_KEY"])
def test_a_secret_may_come_from_a_file(environment, tmp_path, variable):
    value = os.environ[variable]
    environment.delenv(variable)
    (tmp_path / "secret").write_text(value + "\n")
    environment.setenv(f"{variable}_FILE", str(tmp_path / "secret"))
    loaded = load_settings()
    assert value in {
        loaded.database_url.get_secret_value(),
        loaded.recipient_hash_key.get_secret_value(),
    }


def test_a_secret_from_two_places_is_refused(environment):
    environment.setenv("DATABASE_URL_FILE", "/run/secrets/database")
    assert sentences() == ["Both DATABASE_URL and DATABASE_URL_FILE are set: unset one of them."]


def test_a_secret_file_that_is_not_there_is_named(environment):
    environment.delenv("DATABASE_URL")
    environment.setenv("DATABASE_URL_FILE", "/nowhere/database")
    (sentence,) = sentences()
    assert sentence.startswith("DATABASE_URL_FILE: ")
    assert "No such file" in sentence


def test_only_secrets_may_come_from_files(environment, tmp_path):
    (tmp_path / "port").write_text("9000")
    environment.setenv("SMSGATEWAY_API_PORT_FILE", str(tmp_path / "port"))
    assert load_settings().api_port == 8080


def test_settings_show_no_secrets():
    assert "hunter2" not in repr(load_settings())
    assert KEY not in str(load_settings())


def test_every_setting_is_described():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
