"""Where the daemon listens: unix:///path, tcp://host:port (with TLS when certificates are given)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from enisle.errors import Denied, EnisleError, Invalid, NotSupported, Unavailable

if TYPE_CHECKING:
    import ssl

DEFAULT = "unix:///run/enisle/enisle.sock"


class Address(NamedTuple):
    """``path`` of a unix socket, or ``host`` and ``port``; ``certificates`` is the directory of ca, cert and key."""

    text: str
    path: str = ""
    host: str = ""
    port: int = 0
    certificates: str = ""


def from_environment(environ: Mapping[str, str] = os.environ) -> Address:
    """The address that ENISLE_HOST, or else DOCKER_HOST, names; the default socket when neither does."""
    text = environ.get("ENISLE_HOST") or environ.get("DOCKER_HOST") or DEFAULT
    return parse(text, environ)


def parse(text: str, environ: Mapping[str, str] = os.environ) -> Address:
    """The address as written. Raises Invalid or NotSupported.

    DOCKER_TLS_VERIFY and DOCKER_CERT_PATH (or ENISLE_CERT_PATH) turn TLS on for tcp addresses, as for Docker's client.
    """
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = ("unix", text) if text.startswith(("/", ".")) else ("tcp", text)
    if scheme == "unix":
        return Address(text, path=rest or DEFAULT.partition("://")[2])
    if scheme not in ("tcp", "http", "https"):
        raise NotSupported(f"Host {text!r}: {scheme} addresses are not supported.", remedy="Use unix:// or tcp://.")
    host, _, port = rest.rstrip("/").rpartition(":")
    if not host or not port.isdigit():
        raise Invalid(f"Host {text!r} is not an address: expected tcp://HOST:PORT.")
    certificates = environ.get("ENISLE_CERT_PATH") or environ.get("DOCKER_CERT_PATH", "")
    if not certificates and (environ.get("DOCKER_TLS_VERIFY") or scheme == "https"):
        certificates = os.path.join(environ.get("HOME", "/root"), ".docker")
    return Address(text, host=host.strip("[]"), port=int(port), certificates=certificates)


def tls_context(address: Address) -> ssl.SSLContext:
    """Mutual TLS from ca.pem, cert.pem and key.pem of the certificates' directory."""
    import ssl

    files = [os.path.join(address.certificates, name) for name in ("ca.pem", "cert.pem", "key.pem")]
    try:
        context = ssl.create_default_context(cafile=files[0])
        context.load_cert_chain(files[1], files[2])
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"The certificates in {address.certificates} cannot be used: {error}.") from error
    return context


def connect(address: Address) -> socket.socket:
    """A blocking connection. Raises Unavailable or Denied in a sentence that says what to do."""
    try:
        if address.path:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(address.path)
            except BaseException:
                connection.close()
                raise
            return connection
        plain = socket.create_connection((address.host, address.port), timeout=10)
        plain.settimeout(None)
        if not address.certificates:
            return plain
        return tls_context(address).wrap_socket(plain, server_hostname=address.host)
    except OSError as error:
        raise connect_failure(address, error) from error


def connect_failure(address: Address, error: OSError) -> EnisleError:
    """The sentence for a connection that could not be made."""
    reason = error.strerror or str(error)
    if isinstance(error, PermissionError):
        return Denied(
            f"Permission denied on the daemon's socket {address.text}.",
            remedy="Use sudo, or join the group that owns the socket (usermod -aG enisle USER) and log in again.",
        )
    return Unavailable(
        f"Cannot connect to the Enisle daemon at {address.text} ({reason}).",
        remedy="Is it running? Start it with: systemctl start enisled",
    )
