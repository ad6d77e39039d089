"""Who may ask: host names against DNS rebinding, origins against foreign pages, and a token where one is set.

A page of another site can send requests to a service on this machine. It reads no answers, since none carries CORS
headers, but it could make the service work or write; therefore every request that changes something must come from
the service's own page or from a program. By DNS rebinding such a page could also make its own name point here, so
that the browser takes both for one site; therefore only known names are answered. An address instead of a name
cannot be rebound.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lentigo.core.errors import ConfigError
from lentigo.deploy.limits import Refused

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

LOCAL_HOSTS = ("localhost",)
COOKIE = "lentigo"
MIN_TOKEN_CHARACTERS = 16
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_HOST = re.compile(r"(\[(?P<address>[0-9a-fA-F:.]+)\]|(?P<name>[a-zA-Z0-9._-]+))(:[0-9]{1,5})?")
"""A Host header is a name or address with or without a port, and nothing else: no path, no user."""


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one service: names that it answers to beside addresses, its token, and paths that need none."""

    hosts: frozenset[str]
    token: str | None
    open_paths: Collection[str]

    @classmethod
    def make(cls, *, hosts: Iterable[str], token: str | None, open_paths: Collection[str]) -> Access:
        """Check the token and add this machine's own names.

        Raises:
            ConfigError: for a token that could be guessed or cannot be sent.
        """
        if token is not None and (len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable()):
            raise ConfigError(
                f"expected a token of {MIN_TOKEN_CHARACTERS} ASCII characters or more",
                'Make one: python -c "import secrets; print(secrets.token_urlsafe())"',
            )
        names = {name.lower().rstrip(".") for name in (*LOCAL_HOSTS, *hosts)}
        return cls(frozenset(names), token, open_paths)

    def check(self, request: HTTPConnection, method: str) -> None:
        """Raise Refused (400 host, 403 origin, 401 token) where the request may not be answered."""
        host = request.headers.get("host", "")
        if not self.knows(host):
            raise Refused(
                400,
                "this service does not answer to the host name of the request",
                "Use its address, or start it with --allow-host NAME.",
            )
        if method not in SAFE_METHODS and not from_own_page(request, host):
            raise Refused(403, "the request comes from a page of another site", "Use the service's own page.")
        # Not `request.url`, which is put together from the Host header.
        if self.token is not None and request.scope["path"] not in self.open_paths and not self.has_token(request):
            raise Refused(
                401,
                "this service needs its token",
                "Send it as `Authorization: Bearer TOKEN`, or open the page once with ?token=TOKEN.",
                {"www-authenticate": "Bearer"},
            )

    def knows(self, host: str) -> bool:
        """Whether a Host header names this service: an IP address or a known name, with or without a port."""
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        try:
            ipaddress.ip_address(found["address"] or found["name"])
        except ValueError:
            return (found["name"] or "").lower().rstrip(".") in self.hosts
        return True

    def has_token(self, request: HTTPConnection) -> bool:
        """Whether the header or the cookie carries the token."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip()):
            return True
        return _equal(request.cookies.get(COOKIE, ""), self.cookie())

    def is_token(self, given: str) -> bool:
        """Whether this is the token, in a time that does not tell how much of it is right."""
        return self.token is not None and _equal(given, self.token)

    def cookie(self) -> str:
        """What browsers keep: made from the token, since other services on the same host get it to see."""
        return hmac.new((self.token or "").encode(), b"lentigo page", "sha256").hexdigest()


def from_own_page(request: HTTPConnection, host: str) -> bool:
    """Whether a request comes from the service's own page, or from a program: browsers name the page's origin."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "none")
    return site in ("same-origin", "none") and (origin is None or origin.partition("://")[2].lower() == host.lower())


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())
