"""Secrets come from where their references lead."""

import pytest

from settings.secrets import SecretMissing, resolve_secret


def test_a_secret_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("CARRIER_PASSWORD", "hunter2")
    assert resolve_secret("env:CARRIER_PASSWORD").get_secret_value() == "hunter2"


def test_a_secret_comes_from_a_file_without_its_line_end(tmp_path):
    file = tmp_path / "password"
    file.write_text(" hunter2 \n")
    assert resolve_secret(f"file:{file}").get_secret_value() == " hunter2 "


def test_a_rotated_secret_is_found_at_the_next_use(tmp_path):
    file = tmp_path / "password"
    file.write_text("old")
    resolve_secret(f"file:{file}")
    file.write_text("new")
    assert resolve_secret(f"file:{file}").get_secret_value() == "new"


def test_a_secret_shows_stars(monkeypatch):
    monkeypatch.setenv("CARRIER_PASSWORD", "hunter2")
    secret = resolve_secret("env:CARRIER_PASSWORD")
    assert "hunter2" not in f"{secret} {secret!r}"


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("env:NOT_SET_ANYWHERE", "set the environment variable NOT_SET_ANYWHERE"),
        ("file:/nowhere/x", "cannot be read: No such file"),
        ("vault:secret/sms", "not supported yet"),
        ("aws-sm:sms", "not supported yet"),
    ],
)
def test_a_reference_that_leads_nowhere_says_what_to_do(reference, says):
    with pytest.raises(SecretMissing, match=says):
        resolve_secret(reference)


def test_an_empty_secret_is_none(monkeypatch):
    monkeypatch.setenv("CARRIER_PASSWORD", "")
    with pytest.raises(SecretMissing, match="is empty"):
        resolve_secret("env:CARRIER_PASSWORD")


def test_a_file_that_is_no_text_is_no_secret(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SecretMissing, match="not text"):
        resolve_secret(f"file:{file}")


def test_a_large_file_is_no_secret(tmp_path):
    file = tmp_path / "x"
    file.write_text("a" * 70_000)
    with pytest.raises(SecretMissing, match="larger than 64 KiB"):
        resolve_secret(f"file:{file}")


def test_a_literal_is_taken_only_where_it_may_be_and_not_repeated():
    assert resolve_secret("simulate", literal_allowed=True).get_secret_value() == "simulate"
    with pytest.raises(SecretMissing) as refused:
        resolve_secret("hunter2")
    assert "hunter2" not in str(refused.value)
