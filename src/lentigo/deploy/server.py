"""From an application to a running server: its port, its log and its end."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lentigo.core.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from fastapi import FastAPI

PACKAGES = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
KEEP_ALIVE_S = 15
SHUTDOWN_S = 10
BACKLOG = 256


def require_service() -> None:
    """Raise MissingExtraError where a package of the service is missing."""
    for module, package in PACKAGES.items():
        if find_spec(module) is None:
            raise MissingExtraError(package, "serve")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that browsers may already connect; port 0 takes a free one.

    Raises:
        ConfigError: where the port is taken, or the host is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError):
        raise ConfigError(f"{host} is no address of this machine", "Use --host 127.0.0.1.") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {(error.strerror or str(error)).lower()}",
            "Choose another --port (0 takes a free one), or stop the program that has it.",
        ) from None
    return listener


def page_url(listener: socket.socket) -> str:
    """The address that a browser on this machine opens."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_unspecified:
        return f"http://localhost:{port}/"
    return f"http://[{address}]:{port}/" if address.version == 6 else f"http://{address}:{port}/"


def is_local(listener: socket.socket) -> bool:
    """Whether only programs of this machine can connect."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def run_server(app: FastAPI, listener: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM; requests in work get `SHUTDOWN_S` to end. Logs one line a request to stderr."""
    import uvicorn

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("lentigo.service").setLevel(logging.INFO)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every malformed request
    config = uvicorn.Config(
        app,
        ws="none",
        log_config=None,
        access_log=False,  # it would log queries and paths as clients write them
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    # uvicorn ends in order and then raises the signal again, by which SIGTERM would end the process on the spot.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:  # raised again by uvicorn after its orderly end
        pass
    finally:
        listener.close()
