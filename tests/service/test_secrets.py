"""API keys and the admin key."""

import hashlib
import re
from pathlib import Path

import pytest

from agent.errors import InvalidConfig, StoreError
from service.secrets import ADMIN_KEY_HASH, STORE_PASSWORD, Secrets, admin_key, hash_key, new_key


def test_key_names_its_owner_and_has_256_bits() -> None:
    """A key is `clq_<owner>_` and 43 URL-safe characters (ceil(256 / 6) = 43), another one each time."""
    key = new_key("acme")
    assert re.fullmatch(r"clq_acme_[A-Za-z0-9_-]{43}", key.plain)
    assert key.hash == "sha256:" + hashlib.sha256(key.plain.encode()).hexdigest()
    assert new_key("acme").plain != key.plain


def test_plain_key_is_not_in_its_repr() -> None:
    """A key that reaches a log by way of its object does not show itself."""
    key = new_key("acme")
    assert key.plain not in repr(key)


def test_admin_key_is_made_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    """The first start makes the admin key and tells it; later starts know its hash, in a file of mode 0600."""
    first = admin_key(tmp_path)
    again = admin_key(tmp_path)
    file = tmp_path / "admin_key.sha256"
    assert first.plain is not None
    assert again.plain is None
    assert again.matches(first.plain)
    assert not again.matches(first.plain + "x")
    assert file.stat().st_mode & 0o777 == 0o600
    assert first.plain not in file.read_text()
    assert [item.name for item in tmp_path.iterdir()] == ["admin_key.sha256"]


def test_admin_key_from_the_environment_goes_first(tmp_path: Path) -> None:
    """A hash from the environment replaces the one in the folder, and nothing is written."""
    assert admin_key(tmp_path, hash_key("mine")).matches("mine")
    assert list(tmp_path.iterdir()) == []


def test_damaged_admin_hash_is_refused(tmp_path: Path) -> None:
    """A hash's file with anything else in it is refused; a new key is not made behind the operator's back."""
    (tmp_path / "admin_key.sha256").write_text("nonsense")
    with pytest.raises(StoreError, match="must hold `sha256:` and 64 hex digits"):
        admin_key(tmp_path)


def test_secrets_come_from_the_environment() -> None:
    """Both secrets are read by name, an empty one counts as unset, and neither shows in the repr."""
    secrets = Secrets.from_environment({STORE_PASSWORD: "hunter2", ADMIN_KEY_HASH: hash_key("mine")})
    assert (secrets.store_password, secrets.admin_key_hash) == ("hunter2", hash_key("mine"))
    assert "hunter2" not in repr(secrets)
    assert Secrets.from_environment({STORE_PASSWORD: ""}) == Secrets()
    with pytest.raises(InvalidConfig) as caught:
        Secrets.from_environment({ADMIN_KEY_HASH: "plain-key"})
    assert str(caught.value) == "COLOQ_ADMIN_KEY_HASH: must be `sha256:` and 64 hex digits, got something else"
