"""Which storage options are secrets, by their names: what may not be written into a plain file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ckptstore.storage.shown import without_secrets

__all__ = ["credential_in"]

_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_SECRET_WORDS = frozenset({"key", "keys", "auth", "sas", "pass", "pwd"})
# Also where names run together: ``apikey``, ``accessToken``.
_SECRET_PARTS = re.compile(
    "secret|token|passw|passphrase|credential|(?:api|access|account|private|customer)key"
    "|connectionstring|authorization|cookie"
)
# The name of a file that holds a secret is none, nor is that of a key that never leaves a service.
_HARMLESS_ENDS = ("file", "filename", "path", "kmskeyid")


def credential_in(options: Mapping[str, Any]) -> str | None:
    """Return the name of an option that is a secret or holds one; None where there is none.

    Args:
        options: by name; what is nested in them is looked at too, and named with dots:
            ``client_kwargs.aws_session_token``. A URL with a user, a password or a query counts
            as a secret.
    """
    for name, value in options.items():
        if _is_secret(str(name)):
            return str(name)
        inside = _inside(value)
        if inside is not None:
            return f"{name}.{inside}" if inside else str(name)
    return None


def _is_secret(name: str) -> bool:
    together = re.sub(r"[^a-z0-9]", "", name.lower())
    if together.endswith(_HARMLESS_ENDS):
        return False
    words = {word.lower() for word in _WORDS.findall(name)}
    return bool(words & _SECRET_WORDS) or _SECRET_PARTS.search(together) is not None


def _inside(value: object) -> str | None:
    """Return the name of a secret within a value: empty where it is the value itself."""
    if isinstance(value, str):
        return "" if "://" in value and without_secrets(value) != value else None
    if isinstance(value, Mapping):
        return credential_in(value)
    if isinstance(value, Iterable):
        return next((found for found in map(_inside, value) if found is not None), None)
    return None
