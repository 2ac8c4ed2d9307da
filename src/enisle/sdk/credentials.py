"""Credentials for registries, as Docker's client keeps them in ~/.docker/config.json."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from enisle.errors import Invalid, NotFound, Unavailable

DOCKER_HUB = "https://index.docker.io/v1/"
_HUB_NAMES = frozenset({"", "docker.io", "index.docker.io", "registry-1.docker.io"})
_TOKEN_USER = "<token>"  # what credential helpers answer as user name for an identity token
_HELPER_TIMEOUT_S = 30


class Credentials(NamedTuple):
    """For one registry. All empty: anonymous."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""

    def fields(self) -> dict[str, str]:
        """As Docker's AuthConfig."""
        named = {
            "username": self.username,
            "password": self.password,
            "identitytoken": self.identity_token,
            "registrytoken": self.registry_token,
            "serveraddress": self.server,
        }
        return {name: value for name, value in named.items() if value}

    def header(self) -> str:
        """The value of X-Registry-Auth."""
        return base64.urlsafe_b64encode(json.dumps(self.fields()).encode()).decode()


def registry_of(reference: str) -> str:
    """The key in config.json for the registry that an image's name points to."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return server_key(first)
    return DOCKER_HUB


def server_key(server: str) -> str:
    """A registry as config.json names it: its host, or Docker Hub's old address."""
    host = server.partition("://")[2] or server
    host = host.rstrip("/").removesuffix("/v1").removesuffix("/v2")
    return DOCKER_HUB if host in _HUB_NAMES else host


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The file, whether it is there or not; DOCKER_CONFIG names another directory."""
    directory = environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME") or "/root", ".docker")
    return Path(directory) / "config.json"


class CredentialFile:
    """config.json: credentials in the file itself, or in helper programs that it names."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or config_path()

    def find(self, server: str) -> Credentials | None:
        """The credentials for a registry (a key as of ``server_key``); None when there are none."""
        config = self._read()
        if helper := self._helper(config, server):
            return _ask_helper(helper, server)
        for key, entry in self._section(config, "auths").items():
            if server_key(key) == server and isinstance(entry, dict):
                return _from_entry(entry, server)
        return None

    def every(self) -> dict[str, Credentials]:
        """The credentials of all registries that the file names, helpers' included."""
        config = self._read()
        servers = dict.fromkeys(
            map(server_key, [*self._section(config, "auths"), *self._section(config, "credHelpers")])
        )
        return {server: found for server in servers if (found := self.find(server)) is not None}

    def store(self, credentials: Credentials) -> str:
        """Keep them for their server; says where: the name of the helper, or the file."""
        config = self._read()
        if helper := self._helper(config, credentials.server):
            secret = credentials.identity_token or credentials.password
            user = _TOKEN_USER if credentials.identity_token else credentials.username
            _run_helper(
                helper, "store", json.dumps({"ServerURL": credentials.server, "Username": user, "Secret": secret})
            )
            return f"docker-credential-{helper}"
        entry: dict[str, str] = {}
        if credentials.username:
            pair = f"{credentials.username}:{'' if credentials.identity_token else credentials.password}"
            entry["auth"] = base64.b64encode(pair.encode()).decode()
        if credentials.identity_token:
            entry["identitytoken"] = credentials.identity_token
        config["auths"] = {**self._section(config, "auths"), credentials.server: entry}
        self._write(config)
        return str(self.path)

    def erase(self, server: str) -> bool:
        """Forget them; whether there were any."""
        config = self._read()
        if helper := self._helper(config, server):
            known = _ask_helper(helper, server) is not None
            if known:
                _run_helper(helper, "erase", server)
            return known
        keys = [key for key in self._section(config, "auths") if server_key(key) == server]
        for key in keys:
            del config["auths"][key]
        if keys:
            self._write(config)
        return bool(keys)

    def _helper(self, config: dict[str, Any], server: str) -> str:
        chosen = self._section(config, "credHelpers").get(server) or config.get("credsStore") or ""
        return str(chosen)

    def _section(self, config: dict[str, Any], name: str) -> dict[str, Any]:
        section = config.get(name) or {}
        if not isinstance(section, dict):
            raise Invalid(f'"{name}" in {self.path} is not a JSON object.')
        return section

    def _read(self) -> dict[str, Any]:
        try:
            config = json.loads(self.path.read_text() or "{}")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise Invalid(f"{self.path} cannot be read as JSON: {error}.") from error
        if not isinstance(config, dict):
            raise Invalid(f"{self.path} does not hold a JSON object.")
        return config

    def _write(self, config: dict[str, Any]) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A link (dotfiles kept elsewhere) stays a link: the file it points to is replaced.
        target = Path(os.path.realpath(self.path))
        temporary = target.with_name(f"{target.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(config, file, indent="\t")
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def for_image(reference: str) -> Credentials | None:
    """The stored credentials for the registry that an image's name points to."""
    return CredentialFile().find(registry_of(reference))


def _from_entry(entry: dict[str, Any], server: str) -> Credentials | None:
    username, password = str(entry.get("username", "")), str(entry.get("password", ""))
    if encoded := entry.get("auth"):
        try:
            username, _, password = base64.b64decode(str(encoded), validate=True).decode().rstrip("\0").partition(":")
        except ValueError as error:
            raise Invalid(f"The stored credentials for {server} are not base64.", remedy="Log in again.") from error
    found = Credentials(
        username=username,
        password=password,
        identity_token=str(entry.get("identitytoken", "")),
        registry_token=str(entry.get("registrytoken", "")),
        server=server,
    )
    return found if found != Credentials(server=server) else None


def _ask_helper(helper: str, server: str) -> Credentials | None:
    try:
        answer = json.loads(_run_helper(helper, "get", server))
    except NotFound:
        return None
    except ValueError as error:
        raise Unavailable(f"docker-credential-{helper} answered no JSON.") from error
    if not isinstance(answer, dict):
        raise Unavailable(f"docker-credential-{helper} answered no JSON object.")
    username, secret = str(answer.get("Username", "")), str(answer.get("Secret", ""))
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret, server=server)
    return Credentials(username=username, password=secret, server=server)


def _run_helper(helper: str, verb: str, text: str) -> str:
    """Run docker-credential-<helper>. NotFound when it knows no credentials for the server."""
    import subprocess

    program = f"docker-credential-{helper}"
    if "/" in helper:
        raise Invalid(f"The credential helper {helper!r} is not a program's name.")
    try:
        done = subprocess.run(
            [program, verb], input=text, capture_output=True, text=True, timeout=_HELPER_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise NotFound(f"The credential helper {program} is not installed.") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"The credential helper {program} failed: {error}.") from error
    if done.returncode:
        reason = (done.stdout or done.stderr).strip()
        if "not found" in reason.lower():
            raise NotFound(reason)
        raise Unavailable(f"The credential helper {program} failed: {reason}")
    return done.stdout
