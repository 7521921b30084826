"""Secrets come from where their references lead, as far as the server allows it."""

import os
import socket
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.secrets import FOLDERS_SETTING, NO_SECRETS, VARIABLES_SETTING, AllowedSecrets
from settings.secrets import SecretMissing, SecretNotAllowed, check_key_file, resolve_secret
from settings.settings import Settings, load_settings, variable_of

NAME = "SMSGATEWAY_SECRET_CARRIER"
VARIABLES = AllowedSecrets(("SMSGATEWAY_SECRET_",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "secrets"
    made.mkdir()
    return made


@pytest.fixture
def allowed(folder: Path) -> AllowedSecrets:
    return AllowedSecrets(("SMSGATEWAY_SECRET_",), (str(folder),))


def test_a_secret_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv(NAME, "hunter2")
    assert resolve_secret(f"env:{NAME}", VARIABLES).get_secret_value() == "hunter2"


def test_a_secret_comes_from_a_file_without_its_line_end(folder, allowed):
    file = folder / "password"
    file.write_text(" hunter2 \n")
    assert resolve_secret(f"file:{file}", allowed).get_secret_value() == " hunter2 "


def test_a_rotated_secret_is_found_at_the_next_use(folder, allowed):
    file = folder / "password"
    file.write_text("old")
    resolve_secret(f"file:{file}", allowed)
    file.write_text("new")
    assert resolve_secret(f"file:{file}", allowed).get_secret_value() == "new"


def test_a_secret_shows_stars(monkeypatch):
    monkeypatch.setenv(NAME, "hunter2")
    secret = resolve_secret(f"env:{NAME}", VARIABLES)
    assert "hunter2" not in f"{secret} {secret!r}"


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("env:SMSGATEWAY_SECRET_X", "the environment variable is not set"),
        ("file:/nowhere/x", "cannot be read: No such file"),
        ("vault:secret/sms", "not supported yet"),
        ("aws-sm:sms", "not supported yet"),
    ],
)
def test_a_reference_that_leads_nowhere_says_what_to_do(reference, says):
    allowed = AllowedSecrets(("SMSGATEWAY_SECRET_",), ("/nowhere",))
    with pytest.raises(SecretMissing, match=says):
        resolve_secret(reference, allowed)


def test_an_empty_secret_is_none(monkeypatch):
    monkeypatch.setenv(NAME, "")
    with pytest.raises(SecretMissing, match="is empty"):
        resolve_secret(f"env:{NAME}", VARIABLES)


def test_a_file_that_is_no_text_is_no_secret(folder, allowed):
    file = folder / "x"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SecretMissing, match="not text"):
        resolve_secret(f"file:{file}", allowed)


def test_a_large_file_is_no_secret(folder, allowed):
    file = folder / "x"
    file.write_text("a" * 70_000)
    with pytest.raises(SecretMissing, match="larger than 64 KiB"):
        resolve_secret(f"file:{file}", allowed)


def test_a_literal_is_taken_only_where_it_may_be_and_not_repeated():
    literal = resolve_secret("simulate", NO_SECRETS, literal_allowed=True)
    assert literal.get_secret_value() == "simulate"
    with pytest.raises(SecretMissing) as refused:
        resolve_secret("hunter2", VARIABLES)
    assert "hunter2" not in str(refused.value)


# What is not allowed

DEFAULTS = load_settings(database_url="postgresql://", recipient_hash_key="k" * 32).allowed_secrets


@pytest.mark.parametrize(
    "name", ["PATH", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "smsgateway_secret_x"]
)
def test_other_variables_of_the_process_are_not_read(monkeypatch, name):
    monkeypatch.setenv(name, "hunter2")
    with pytest.raises(SecretNotAllowed, match="begin with: SMSGATEWAY_SECRET_") as refused:
        resolve_secret(f"env:{name}", DEFAULTS)
    assert VARIABLES_SETTING in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_settings_of_the_gateway_are_not_read_even_if_every_prefix_is_allowed(monkeypatch):
    everything = string.ascii_letters + "_"
    monkeypatch.setenv("SMSGATEWAY_ALLOWED_SECRET_VARIABLES", ", ".join(everything))
    allowed = load_settings(
        database_url="postgresql://", recipient_hash_key="k" * 32
    ).allowed_secrets
    monkeypatch.setenv("OTHER", "seen")
    assert resolve_secret("env:OTHER", allowed).get_secret_value() == "seen"
    names = [variable_of(name, field) for name, field in Settings.model_fields.items()]
    assert "DATABASE_URL" in names
    for name in [*names, "DATABASE_URL_FILE", "TEMPORAL_API_KEY_FILE"]:
        monkeypatch.setenv(name, "hunter2")
        with pytest.raises(SecretNotAllowed, match="setting of the gateway"):
            resolve_secret(f"env:{name}", allowed)


def test_no_setting_of_the_gateway_begins_like_the_names_that_are_allowed_by_default():
    names = {variable_of(name, field) for name, field in Settings.model_fields.items()}
    assert [name for name in names if name.startswith(DEFAULTS.variables)] == []


@pytest.mark.parametrize(
    "path",
    ["/etc/hostname", "/proc/self/environ", "{folder}/../outside", "{folder}s", "{folder}x/y", "/"],
)
def test_files_outside_of_the_allowed_folders_are_not_read(folder, allowed, path):
    (folder.parent / "outside").write_text("hunter2")
    with pytest.raises(SecretNotAllowed, match="secret files below") as refused:
        resolve_secret(f"file:{path.format(folder=folder)}", allowed)
    assert FOLDERS_SETTING in str(refused.value)
    assert "hunter2" not in str(refused.value)


@given(st.lists(st.sampled_from(["..", ".", "", "a", "link", "file"]), min_size=1, max_size=6))
def test_no_path_leads_out_of_the_allowed_folder(tmp_path_factory, parts):
    root = tmp_path_factory.mktemp("root")
    inside, outside = root / "inside", root / "outside"
    (inside / "a").mkdir(parents=True)
    (outside / "a").mkdir(parents=True)
    for place in (root, outside, outside / "a"):
        (place / "file").write_text("hunter2")
    for place in (inside, inside / "a"):
        (place / "file").write_text("allowed")
        (place / "link").symlink_to(outside)
    try:
        secret = resolve_secret(
            "/".join([f"file:{inside}", *parts]), AllowedSecrets(folders=(str(inside),))
        )
    except SecretMissing:
        return
    assert secret.get_secret_value() == "allowed"


def test_symbolic_links_are_followed_within_the_folder_and_not_out_of_it(folder, allowed):
    # As Kubernetes mounts secrets: name → ..data/name, ..data → a folder with a date.
    (folder / "..2026_11_28").mkdir()
    (folder / "..2026_11_28" / "primary").write_text("hunter2")
    (folder / "..data").symlink_to("..2026_11_28")
    (folder / "primary").symlink_to("..data/primary")
    assert resolve_secret(f"file:{folder}/primary", allowed).get_secret_value() == "hunter2"
    (folder / "out").symlink_to("/etc/hostname")
    (folder / "far").symlink_to("/etc")
    for path in ("out", "far/hostname"):
        with pytest.raises(SecretNotAllowed):
            resolve_secret(f"file:{folder}/{path}", allowed)
        with pytest.raises(SecretNotAllowed):
            check_key_file(f"{folder}/{path}", allowed)
    check_key_file(f"{folder}/primary", allowed)


def test_an_allowed_folder_may_itself_be_a_symbolic_link(folder, tmp_path):
    (folder / "primary").write_text("hunter2")
    link = tmp_path / "link"
    link.symlink_to(folder)
    allowed = AllowedSecrets(folders=(str(link),))
    assert resolve_secret(f"file:{link}/primary", allowed).get_secret_value() == "hunter2"


def test_files_of_the_settings_are_not_read_though_they_are_in_an_allowed_folder(
    folder, monkeypatch
):
    for name in ("database_url", "key.pem", "primary"):
        (folder / name).write_text("postgresql://")
    os.link(folder / "database_url", folder / "hard-link")
    monkeypatch.setenv("DATABASE_URL_FILE", str(folder / "database_url"))
    for variable in ("TEMPORAL_TLS_CLIENT_KEY_PATH", "TEMPORAL_TLS_CLIENT_CERT_PATH"):
        monkeypatch.setenv(variable, str(folder / "key.pem"))
    monkeypatch.setenv("SMSGATEWAY_ALLOWED_SECRET_FOLDERS", str(folder))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    allowed = load_settings(recipient_hash_key="k" * 32).allowed_secrets
    assert resolve_secret(f"file:{folder}/primary", allowed)
    for name in ("database_url", "hard-link", "key.pem"):
        with pytest.raises(SecretNotAllowed, match="own settings"):
            resolve_secret(f"file:{folder}/{name}", allowed)


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(folder, allowed):
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        for name in ("pipe", "folder", "socket"):
            with pytest.raises(SecretMissing, match="cannot be read"):
                resolve_secret(f"file:{folder}/{name}", allowed)


def test_without_an_allow_list_no_reference_is_resolved(monkeypatch, folder):
    monkeypatch.setenv(NAME, "hunter2")
    for reference in (f"env:{NAME}", f"file:{folder}/x"):
        with pytest.raises(SecretNotAllowed):
            resolve_secret(reference, NO_SECRETS)
