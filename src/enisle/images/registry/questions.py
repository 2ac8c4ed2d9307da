"""What can be asked of a registry without pulling anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from enisle.contracts import RegistryAuth
from enisle.errors import EnisleError, Invalid, Unauthenticated, Unavailable
from enisle.formats.oci import Index, parse_manifest
from enisle.formats.oci_config import parse_config
from enisle.formats.reference import DEFAULT_DOMAIN, Reference, is_domain
from enisle.images.registry.client import Repository
from enisle.images.registry.endpoints import RegistrySettings, host_of
from enisle.images.registry.transport import Transport
from enisle.model.image import Descriptor, Platform

Answer = TypeVar("Answer")

_HUB_NAMES = ("", "docker.io", "index.docker.io", "registry-1.docker.io")


async def check_login(settings: RegistrySettings, auth: RegistryAuth) -> None:
    """Whether the registry at ``auth.server`` takes the credentials. Unauthenticated when it refuses them."""
    server = auth.server.removeprefix("https://").removeprefix("http://").partition("/")[0]
    if server and not is_domain(server):
        raise Invalid(f'invalid registry host "{server[:100]}"')
    host = host_of(DEFAULT_DOMAIN if server in _HUB_NAMES else server)
    async with (
        Transport(host, settings, auth) as transport,
        transport.request("GET", transport.base / "v2" / "", tries=1) as response,
    ):
        if response.status in (401, 403):
            raise Unauthenticated(f"login attempt to {transport.base}/v2/ failed with status: {response.status}")
        if response.status != 200:
            raise Unavailable(f"registry {host}: it answered the login with status {response.status}")


async def list_tags(settings: RegistrySettings, reference: Reference, auth: RegistryAuth | None) -> list[str]:
    """The tags of a repository."""
    return await _ask(settings, reference, auth, Repository.tags)


async def look_up(
    settings: RegistrySettings, reference: Reference, auth: RegistryAuth | None
) -> tuple[Descriptor, list[Platform]]:
    """What a registry has under a name: its manifest or index, and for which platforms."""

    async def ask(repository: Repository) -> tuple[Descriptor, list[Platform]]:
        document = await repository.manifest(reference.digest or reference.tag)
        found = parse_manifest(document.data, document.media_type)
        if isinstance(found, Index):
            platforms = [entry.platform for entry in found.manifests if entry.platform is not None]
        else:
            platforms = [parse_config(await repository.small_blob(found.config)).platform]
        descriptor = Descriptor(media_type=document.media_type, digest=document.digest, size=len(document.data))
        return descriptor, platforms

    return await _ask(settings, reference, auth, ask)


async def _ask(
    settings: RegistrySettings,
    reference: Reference,
    auth: RegistryAuth | None,
    question: Callable[[Repository], Awaitable[Answer]],
) -> Answer:
    """Mirrors are asked first, without credentials, as when pulling."""
    for mirror in settings.mirrors.get(reference.domain, ()):
        host = mirror.removeprefix("https://").removeprefix("http://").rstrip("/")
        try:
            async with Transport(host, settings, None) as transport:
                return await question(Repository(transport, reference))
        except EnisleError:
            continue
    async with Transport(host_of(reference.domain), settings, auth) as transport:
        return await question(Repository(transport, reference))
