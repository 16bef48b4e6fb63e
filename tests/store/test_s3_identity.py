"""Messages name the credentials in use, and no secret of them."""

import pytest

from wavmill.pipeline.store.s3_identity import access_key

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG"}


@pytest.fixture(autouse=True)
def no_credentials(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_a_key_is_named_by_its_ends_and_its_place(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    assert access_key() == "as AKIA...MPLE (env)"


def test_no_credentials_are_said_to_be_none():
    assert access_key() == "without credentials"


def test_a_profile_that_does_not_exist_is_named(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "elsewhere")
    assert access_key().startswith("without credentials: ") and "elsewhere" in access_key()
