"""API keys: made once, shown once, kept as hashes. Secrets come from the environment and the data folder only.

A key has 256 random bits, so a plain SHA-256 is a safe hash: there is nothing to guess.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import InvalidConfig, StoreError
from service.data_dir import write_private

STORE_PASSWORD = "COLOQ_STORE_PASSWORD"
"""Environment variable with the password of `store.url`."""
ADMIN_KEY_HASH = "COLOQ_ADMIN_KEY_HASH"
"""Environment variable that replaces the admin key's hash in the data folder."""
ADMIN_HASH_NAME = "admin_key.sha256"

_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. The plain text exists only here."""

    plain: str = field(repr=False)
    hash: str


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the environment holds for the node."""

    store_password: str | None = field(default=None, repr=False)
    admin_key_hash: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Secrets":
        """Read the node's secrets; an empty variable counts as unset.

        Raises:
            InvalidConfig: the admin key's hash is not one.
        """
        admin_hash = environment.get(ADMIN_KEY_HASH) or None
        if admin_hash is not None and not _HASH.fullmatch(admin_hash):
            raise InvalidConfig(ADMIN_KEY_HASH, "must be `sha256:` and 64 hex digits, got something else")
        return cls(store_password=environment.get(STORE_PASSWORD) or None, admin_key_hash=admin_hash)


@dataclass(frozen=True, slots=True)
class AdminKey:
    """The key of the admin routes. ``plain`` is known only at the start that made it."""

    hash: str
    plain: str | None = field(default=None, repr=False)

    def matches(self, key: str) -> bool:
        """True when ``key`` is the admin key; takes the same time whatever differs."""
        return hmac.compare_digest(hash_key(key), self.hash)


def new_key(owner: str) -> NewKey:
    """Make a key: ``clq_<owner>_`` and 43 URL-safe characters (256 bits)."""
    plain = f"clq_{owner}_{secrets.token_urlsafe(_KEY_BYTES)}"
    return NewKey(plain=plain, hash=hash_key(plain))


def hash_key(key: str) -> str:
    """``sha256:`` and the hex digest, as it stands in the configuration."""
    return f"sha256:{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()}"


def admin_key(data_dir: Path, override_hash: str | None = None) -> AdminKey:
    """The admin key: from the environment, else from the data folder, else made now and written there (its hash).

    Raises:
        StoreError: the hash's file cannot be read or written, or holds something else.
    """
    if override_hash is not None:
        return AdminKey(hash=override_hash)
    path = data_dir / ADMIN_HASH_NAME
    try:
        if path.exists():
            return AdminKey(hash=_read_hash(path))
        key = new_key("admin")
        write_private(path, f"{key.hash}\n")
    except OSError as error:
        raise StoreError(f"the admin key's hash {path} cannot be used: {error.strerror}") from error
    return AdminKey(hash=key.hash, plain=key.plain)


def _read_hash(path: Path) -> str:
    content = path.read_text(encoding="utf-8", errors="replace").strip()
    if not _HASH.fullmatch(content):
        raise StoreError(f"{path} must hold `sha256:` and 64 hex digits; delete it to have a new admin key made")
    return content
