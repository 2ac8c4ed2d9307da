"""Where the daemon listens: unix:///path, ssh://user@host, tcp://host:port (with TLS when certificates are given)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from enisle.errors import Denied, EnisleError, Invalid, NotSupported, Unavailable

if TYPE_CHECKING:
    import ssl

DEFAULT = "unix:///run/enisle/enisle.sock"
_UNITS = ("/etc/systemd/system/enisled.service", "/usr/lib/systemd/system/enisled.service")


class Address(NamedTuple):
    """``path`` of a unix socket, or ``host`` and ``port``; ``certificates`` is the directory of ca, cert and key.

    ``ssh`` is the command that connects its standard streams to the daemon.
    """

    text: str
    path: str = ""
    host: str = ""
    port: int = 0
    certificates: str = ""
    ssh: tuple[str, ...] = ()


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
    if scheme == "ssh":
        return Address(text, ssh=_ssh_command(text))
    if scheme not in ("tcp", "http", "https"):
        known = "Use unix://, ssh:// or tcp://."
        raise NotSupported(f"Host {text!r}: {scheme} addresses are not supported.", remedy=known)
    host, _, port = rest.rstrip("/").rpartition(":")
    if not host or not port.isdigit():
        raise Invalid(f"Host {text!r} is not an address: expected tcp://HOST:PORT.")
    certificates = environ.get("ENISLE_CERT_PATH") or environ.get("DOCKER_CERT_PATH", "")
    if not certificates and (environ.get("DOCKER_TLS_VERIFY") or scheme == "https"):
        certificates = os.path.join(environ.get("HOME", "/root"), ".docker")
    return Address(text, host=host.strip("[]"), port=int(port), certificates=certificates)


def _ssh_command(text: str) -> tuple[str, ...]:
    """For ssh://[USER@]HOST[:PORT]. The host comes after ``--``: a name that looks like an option is none."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        port, url = None, urlsplit("")
    if not url.hostname or url.path not in ("", "/") or url.query or url.fragment or url.password:
        raise Invalid(f"Host {text!r} is not an address: expected ssh://[USER@]HOST[:PORT].")
    user = ("-l", url.username) if url.username else ()
    at = ("-p", str(port)) if port else ()
    return ("ssh", "-T", "-o", "ConnectTimeout=30", *user, *at, "--", url.hostname, "enisle", "system", "dial-stdio")


def tls_context(address: Address) -> ssl.SSLContext:
    """Mutual TLS from ca.pem, cert.pem and key.pem of the certificates' directory."""
    import ssl

    files = [os.path.join(address.certificates, name) for name in ("ca.pem", "cert.pem", "key.pem")]
    try:
        context = ssl.create_default_context(cafile=files[0])
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # authorities made as Docker's guide says lack the key usage
        context.load_cert_chain(files[1], files[2])
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"The certificates in {address.certificates} cannot be used: {error}.") from error
    return context


def connect(address: Address) -> socket.socket:
    """A blocking connection: always a plain socket, so that it can be handed on and half closed.

    Raises Unavailable or Denied in a sentence that says what to do.
    """
    try:
        if address.path:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(address.path)
            except BaseException:
                connection.close()
                raise
            return connection
        if address.ssh:
            return _through_ssh(address.ssh)
        plain = socket.create_connection((address.host, address.port), timeout=10)
        if not address.certificates:
            plain.settimeout(None)
            return plain
        from enisle.sdk.tls import through_tls

        return through_tls(plain, tls_context(address), address.host)
    except OSError as error:
        raise connect_failure(address, error) from error


def _through_ssh(command: Sequence[str]) -> socket.socket:
    """One end of a socket pair; ssh has the other, and says on stderr what goes wrong."""
    import subprocess

    near, far = socket.socketpair()
    with far:
        try:
            # In a session of its own: Ctrl-C is for the workload and must not end the connection.
            subprocess.Popen(list(command), stdin=far.fileno(), stdout=far.fileno(), start_new_session=True)
        except FileNotFoundError:
            near.close()
            raise NotSupported("There is no ssh here.", remedy="Install openssh-client.") from None
        except BaseException:
            near.close()
            raise
    return near


def connect_failure(address: Address, error: OSError) -> EnisleError:
    """The sentence for a connection that could not be made."""
    reason = error.strerror or str(error)
    if isinstance(error, PermissionError):
        return Denied(
            f"Permission denied on the daemon's socket {address.text}.",
            remedy="Use sudo, or join the group that owns the socket (usermod -aG enisle USER) and log in again.",
        )
    return Unavailable(
        f"Cannot connect to the Enisle daemon at {address.text} ({reason}).", remedy=_how_to_start(address)
    )


def _how_to_start(address: Address) -> str:
    if not address.path:
        return "Is it running there, and listening on that address?"
    installed = any(os.path.exists(unit) for unit in _UNITS)
    return f"Is it running? Start it as root: {'systemctl start enisled' if installed else 'enisled'}"
