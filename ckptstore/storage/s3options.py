"""What the user configured for S3: storage options, variables and files, brought together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ckptstore.storage.shown import secrets_in

__all__ = ["AWS", "attempts", "named", "option_names", "prepared", "public", "secrets_of"]

AWS = "https://s3.amazonaws.com"

_SETTINGS = {
    "max_pool_connections": 32,
    "connect_timeout": 5,
    "read_timeout": 30,
}
_SECRET_VARIABLES = frozenset(
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
)


def option_names() -> frozenset[str]:
    """Return the names of the options that s3fs takes, and botocore's session behind it."""
    import inspect

    try:
        from botocore.session import Session
        from fsspec.dircache import DirCache
        from s3fs import S3FileSystem
    except ImportError:
        return frozenset()  # Whoever connects says so.
    takers = [S3FileSystem, *S3FileSystem.__mro__[1:-1], DirCache, Session]
    taken = {name for taker in takers for name in inspect.signature(taker.__init__).parameters}
    return frozenset(taken - {"self", "args", "kwargs"} | {"skip_instance_cache"})


def prepared(options: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return the arguments of s3fs' filesystem, and the endpoint where one is named."""
    import fsspec

    merged: dict[str, Any] = {**fsspec.config.conf.get("s3", {}), **options}
    inner = merged.get("client_kwargs") or {}
    endpoint = (
        merged.get("endpoint_url")
        or inner.get("endpoint_url")
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or _configured_endpoint(merged.get("profile"))
    )
    settings: dict[str, Any] = dict(_SETTINGS)
    host = urlsplit(endpoint or AWS).hostname or ""
    if not host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        # Many servers that are not AWS' refuse the checksums that botocore adds by itself.
        settings["request_checksum_calculation"] = "when_required"
        settings["response_checksum_validation"] = "when_required"
    merged["config_kwargs"] = {**settings, **(merged.get("config_kwargs") or {})}
    merged.update(use_listings_cache=False, skip_instance_cache=True, asynchronous=False)
    return merged, endpoint


def named(arguments: Mapping[str, Any], endpoint: str | None) -> dict[str, Any]:
    """Return prepared arguments as options that name the endpoint, whoever had named it."""
    options = {**arguments, "config_kwargs": dict(arguments["config_kwargs"])}
    if endpoint and not (arguments.get("client_kwargs") or {}).get("endpoint_url"):
        options["endpoint_url"] = endpoint
    return options


def attempts(retries: Mapping[str, Any] | None) -> int | None:
    """Return how often a request is to be tried: botocore's setting or its variable; else None."""
    if retries and "total_max_attempts" in retries:
        return int(retries["total_max_attempts"])
    if retries and "max_attempts" in retries:
        return int(retries["max_attempts"]) + 1
    told = os.environ.get("AWS_MAX_ATTEMPTS", "")
    return int(told) if told.isdecimal() and int(told) else None


def _configured_endpoint(profile: str | None) -> str | None:
    """Return the endpoint that the AWS configuration file names, if any."""
    import botocore.exceptions
    import botocore.session

    session = botocore.session.Session(profile=profile)
    try:
        scoped = session.get_scoped_config()
        services = session.full_config.get("services", {}).get(scoped.get("services"), {})
    except botocore.exceptions.BotoCoreError:
        return None  # The request will say what is wrong with it.
    found = services.get("s3", {}).get("endpoint_url") or scoped.get("endpoint_url")
    return str(found) if found else None


def secrets_of(arguments: Mapping[str, Any], endpoint: str | None) -> tuple[str, ...]:
    """Return what nobody may see of options and variables; the settings of a client are none."""
    settings = {"proxies": arguments["config_kwargs"].get("proxies") or {}}
    variables = {
        name: value
        for name, value in os.environ.items()
        if name in _SECRET_VARIABLES or name.lower().endswith("_proxy")
    }
    return secrets_in(
        {**arguments, "config_kwargs": settings, "endpoint_url": endpoint or "", **variables}
    )


def public(endpoint: str) -> str:
    """Return an endpoint without what nobody may see."""
    parts = urlsplit(endpoint)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
