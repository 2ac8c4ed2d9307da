"""``enisle login`` and ``enisle logout``."""

from __future__ import annotations

import getpass
import sys

from enisle.cli.command import Command, Context, warn
from enisle.cli.flags import Options, UsageError, option, switch
from enisle.errors import Invalid
from enisle.sdk.credentials import DOCKER_HUB, CredentialFile, Credentials, server_key


def login(context: Context, options: Options, arguments: list[str]) -> None:
    """Have the daemon try credentials at a registry, and keep them."""
    server = server_key(arguments[0]) if arguments else DOCKER_HUB
    stored = CredentialFile()
    known = stored.find(server)
    username = options.username or (known.username if known and not options.password_stdin else "")
    if options.password_stdin:
        if options.password:
            raise UsageError("--password and --password-stdin are mutually exclusive")
        if not options.username:
            raise UsageError("Must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\r\n")
    elif options.password:
        warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
        password = options.password
    else:
        username, password = _ask(username, server)
    if not username or not password:
        raise Invalid("username and password are required")
    credentials = Credentials(username=username, password=password, server=server)
    answer = context.client.system.login(credentials)
    if token := answer.get("IdentityToken"):
        credentials = credentials._replace(identity_token=str(token), password="")
    where = stored.store(credentials)
    if where == str(stored.path):
        warn(f"WARNING! Your credentials are stored unencrypted in '{where}'.")
    print(answer.get("Status") or "Login Succeeded")


def _ask(username: str, server: str) -> tuple[str, str]:
    if not sys.stdin.isatty():
        raise Invalid("Cannot perform an interactive login from a non TTY device", remedy="Use --password-stdin.")
    print(f"Log in to {server}.")
    try:
        name = input(f"Username ({username}): " if username else "Username: ").strip() or username
        return name, getpass.getpass("Password: ")
    except EOFError:
        raise Invalid("no credentials were given") from None


def logout(context: Context, options: Options, arguments: list[str]) -> None:
    """Forget the credentials for a registry."""
    server = server_key(arguments[0]) if arguments else DOCKER_HUB
    if CredentialFile().erase(server):
        print(f"Removing login credentials for {server}")
    else:
        print(f"Not logged in to {server}")


LOGIN = Command(
    summary="Keep credentials for a registry",
    usage="[OPTIONS] [SERVER]",
    run=login,
    flags=(
        option("password", "p", "string", "Password"),
        switch("password-stdin", "", "Read the password from standard input"),
        option("username", "u", "string", "User name"),
    ),
    most=1,
    long="Credentials are kept where Docker's client keeps them: in ~/.docker/config.json or its credential helper.",
)
LOGOUT = Command("Forget the credentials for a registry", "[SERVER]", logout, most=1)
