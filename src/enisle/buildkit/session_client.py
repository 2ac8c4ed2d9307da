"""What a build asks its client for, over the client's session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from secrets import token_hex
from urllib.parse import urlsplit

from enisle.build.archive_tree import ArchiveTree
from enisle.build.client import Client
from enisle.build.tree import Tree
from enisle.buildkit.filesync import Wanted, received
from enisle.buildkit.grpc import CallFailed, Code
from enisle.buildkit.session_messages import (
    AgentRequest,
    Bytes,
    CredentialsRequest,
    CredentialsResponse,
    Empty,
    SecretRequest,
    SecretResponse,
)
from enisle.buildkit.sessions import Session, deadline
from enisle.contracts import RegistryAuth
from enisle.errors import Invalid
from enisle.formats import dockerignore

_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
_CHECK_AGENT = "/moby.sshforward.v1.SSH/CheckAgent"
_FORWARD_AGENT = "/moby.sshforward.v1.SSH/ForwardAgent"
_CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
_UPLOAD = "/moby.upload.v1.Upload/Pull"
_SECRET_LIMIT_BYTES = 500 << 10  # as BuildKit has it
_IGNORE_LIMIT_BYTES = 16 << 20
_ANSWER_S = 60.0
_CHUNK = 32 << 10
_HUB, _HUB_HOST = "docker.io", "registry-1.docker.io"


class SessionClient(Client):
    """The client of one build. ``directory``: where its agents' sockets lie, for us alone. Close it at the end."""

    def __init__(self, session: Session, directory: Path) -> None:
        self.session = session
        self._directory = directory
        self._stack = AsyncExitStack()
        self._agents: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> SessionClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def secret(self, name: str) -> bytes | None:
        if not self.session.offers(_SECRET):
            return None
        try:
            async with deadline(_ANSWER_S, f"secret {name}"):
                answer = await self.session.call(_SECRET, SecretRequest(id=name), SecretResponse)
        except CallFailed as failure:
            if failure.code in (Code.NOT_FOUND, Code.UNIMPLEMENTED):
                return None
            raise Invalid(f"secret {name}: {failure.message}") from failure
        if len(answer.data) > _SECRET_LIMIT_BYTES:
            raise Invalid(f"secret {name}: larger than the limit of {_SECRET_LIMIT_BYTES} bytes")
        return answer.data

    async def credentials(self, registry: str) -> RegistryAuth | None:
        if not self.session.offers(_CREDENTIALS):
            return None
        host = _HUB_HOST if registry == _HUB else registry
        try:
            async with deadline(_ANSWER_S, f"credentials for {registry}"):
                found = await self.session.call(_CREDENTIALS, CredentialsRequest(host=host), CredentialsResponse)
        except CallFailed as failure:
            raise Invalid(f"credentials for {registry}: {failure.message}") from failure
        if not found.secret:
            return None
        if not found.username:
            return RegistryAuth(identity_token=found.secret, server=registry)
        return RegistryAuth(username=found.username, password=found.secret, server=registry)

    # --- SSH agents ---

    async def agent(self, name: str) -> str | None:
        if not self.session.offers(_FORWARD_AGENT):
            return None
        async with self._lock:
            if name not in self._agents:
                try:
                    async with deadline(_ANSWER_S, f"ssh agent {name}"):
                        await self.session.call(_CHECK_AGENT, AgentRequest(id=name), Empty)
                except CallFailed:
                    return None
                self._agents[name] = await self._listen(name)
            return self._agents[name]

    async def _listen(self, name: str) -> str:
        """A socket whose connections lead to the client's agent."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / f"agent-{token_hex(8)}"
        running: set[asyncio.Task[None]] = set()

        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._forward(name, reader, writer))
            running.add(task)
            task.add_done_callback(running.discard)

        async def close() -> None:
            server.close()
            for task in list(running):
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            path.unlink(missing_ok=True)

        server = await asyncio.start_unix_server(serve, path)
        self._stack.push_async_callback(close)
        return str(path)

    async def _forward(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def there() -> None:
            while data := await reader.read(_CHUNK):
                await calling.send(Bytes(data=data))
            await calling.end()

        with suppress(CallFailed, OSError):
            try:
                async with self.session.calling(_FORWARD_AGENT, [("buildkit.ssh.id", name)]) as calling:
                    sending = asyncio.create_task(there())
                    try:
                        async for piece in calling.messages(Bytes):
                            writer.write(piece.data)
                            await writer.drain()
                    finally:
                        sending.cancel()
                        await asyncio.gather(sending, return_exceptions=True)
            finally:
                writer.close()

    # --- files ---

    def files(self, name: str, directory: Path) -> AbstractAsyncContextManager[Tree]:
        return self._named(name, directory)

    @asynccontextmanager
    async def _named(self, name: str, directory: Path) -> AsyncIterator[Tree]:
        """All of a directory but what its own .dockerignore says."""
        async with received(self.session, Wanted(name=name, paths=(".dockerignore",)), directory) as ignoring:
            excluded = exclusions(ignoring, ".dockerignore")
        async with received(self.session, Wanted(name=name, excluded=excluded or ()), directory) as tree:
            yield tree

    async def upload(self, url: str) -> AsyncIterator[bytes]:
        """What the client has at a URL of its own: a tar that was piped into it."""
        parts = urlsplit(url)
        metadata = [("urlpath", parts.path), ("urlhost", parts.netloc)]
        try:
            async with self.session.calling(_UPLOAD, metadata) as calling:
                async for piece in calling.messages(Bytes):
                    yield piece.data
        except CallFailed as failure:
            raise Invalid(f"the build context cannot be read: {failure.message}") from failure


def exclusions(tree: ArchiveTree, name: str) -> list[str] | None:
    """The patterns in a file of a tree; None when there is no such file. Raises Invalid for malformed ones."""
    data = tree.read((name.encode("utf-8", "surrogateescape"),), limit=_IGNORE_LIMIT_BYTES)
    if data is None:
        return None
    return dockerignore.lines(data.decode("utf-8", "surrogateescape"))
