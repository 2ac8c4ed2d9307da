"""Images made in memory, a registry that behaves as told, and the real docker-registry on loopback."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import os
import socket
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import zstandard
from aiohttp import web

from enisle.formats.oci import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer_tar(files: dict[str, bytes]) -> bytes:
    """A layer of files; a name that ends in a slash is a directory."""
    sink = BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mode = 0o755 if name.endswith("/") else 0o644
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    return sink.getvalue()


def compress(data: bytes, kind: str) -> bytes:
    if kind == "gzip":
        return gzip.compress(data, 1, mtime=0)
    if kind == "zstd":
        return zstandard.ZstdCompressor().compress(data)
    return data


@dataclass
class MadeImage:
    """An image as bytes: blobs by digest, and its manifest."""

    blobs: dict[str, bytes]
    manifest: bytes
    media_type: str
    config: bytes
    layers: list[str]

    @property
    def id(self) -> str:
        return digest_of(self.config)

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)


def make_image(
    layers: list[dict[str, bytes]],
    *,
    compression: str = "gzip",
    docker: bool = False,
    architecture: str = "amd64",
    config: dict[str, Any] | None = None,
) -> MadeImage:
    tars = [layer_tar(files) for files in layers]
    document = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": config or {"Cmd": ["sh"]},
            "history": [{"created_by": f"layer {n}"} for n in range(len(tars))],
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
        }
    ).encode()
    packed = [compress(tar, compression) for tar in tars]
    suffix = {"gzip": ".gzip" if docker else "+gzip", "zstd": "+zstd", "": ""}[compression]
    layer_type = (DOCKER_LAYER if docker else OCI_LAYER) + suffix
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": descriptor(document, DOCKER_CONFIG if docker else OCI_CONFIG),
            "layers": [descriptor(blob, layer_type) for blob in packed],
        }
    ).encode()
    blobs = {digest_of(blob): blob for blob in (document, *packed)}
    return MadeImage(blobs, manifest, media_type, document, [digest_of(blob) for blob in packed])


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


def make_index(images: dict[str, MadeImage]) -> bytes:
    """An index of images by platform ("linux/arm64")."""
    children = []
    for platform, image in images.items():
        os_name, architecture = platform.split("/")
        children.append(
            descriptor(image.manifest, image.media_type, platform={"os": os_name, "architecture": architecture})
        )
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}).encode()


Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


@dataclass
class FakeRegistry:
    """Serves what it is given. ``behave`` sees every request first and may answer it."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    behave: Behaviour | None = None
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    host: str = ""

    def add(self, image: MadeImage, tag: str = "latest") -> None:
        self.blobs |= image.blobs
        self.manifests[tag] = self.manifests[image.digest] = (image.manifest, image.media_type)

    def add_index(self, images: dict[str, MadeImage], tag: str = "latest") -> str:
        for image in images.values():
            self.add(image, image.digest)
        index = make_index(images)
        self.manifests[tag] = self.manifests[digest_of(index)] = (index, OCI_INDEX)
        return digest_of(index)

    def count(self, part: str) -> int:
        return sum(part in path for _, path, _ in self.requests)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs, dict(request.headers)))
        if self.behave is not None and (answer := await self.behave(request)) is not None:
            return answer
        parts = request.path.split("/")
        if parts[-2:-1] == ["manifests"] and parts[-1] in self.manifests:
            data, media_type = self.manifests[parts[-1]]
            return web.Response(body=data, headers={"Content-Type": media_type})
        if parts[-2:-1] == ["blobs"] and parts[-1] in self.blobs:
            return ranged(request, self.blobs[parts[-1]])
        if request.path == "/v2/":
            return web.json_response({})
        return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "not known"}]}, status=404)


def ranged(request: web.Request, data: bytes) -> web.Response:
    header = request.headers.get("Range", "")
    if not header:
        return web.Response(body=data)
    begin = int(header.removeprefix("bytes=").split("-")[0])
    headers = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"}
    return web.Response(body=data[begin:], status=206, headers=headers)


async def hang_up_after(request: web.Request, data: bytes, count: int) -> web.StreamResponse:
    """Promise all of ``data``, send ``count`` bytes, and break the connection."""
    response = web.StreamResponse(headers={"Content-Length": str(len(data))})
    await response.prepare(request)
    await response.write(data[:count])
    assert request.transport is not None
    request.transport.abort()
    return response


@asynccontextmanager
async def serving(registry: FakeRegistry) -> AsyncIterator[FakeRegistry]:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{tail:.*}", registry.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    registry.host = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield registry
    finally:
        await runner.cleanup()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def docker_registry(directory: Path, auth: str = "") -> AsyncIterator[str]:
    """The real thing; its host and port. ``auth``: lines for the auth section of its configuration."""
    directory.mkdir(exist_ok=True)
    host = f"127.0.0.1:{free_port()}"
    config = directory / "config.yml"
    config.write_text(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n"
        f"storage:\n  filesystem:\n    rootdirectory: {directory}/data\n  delete:\n    enabled: true\n"
        f"http:\n  addr: {host}\n{auth}"
    )
    process = await asyncio.create_subprocess_exec(
        "docker-registry", "serve", str(config), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
    )  # fmt: skip
    try:
        await _answers(host, process)
        yield host
    finally:
        process.kill()
        await process.wait()


async def _answers(host: str, process: asyncio.subprocess.Process) -> None:
    """Until it accepts connections."""
    name, _, port = host.partition(":")
    for _ in range(400):
        assert process.returncode is None, "docker-registry ended"
        try:
            _, writer = await asyncio.open_connection(name, int(port))
        except OSError:
            await asyncio.sleep(0.025)
            continue
        writer.close()
        return
    raise AssertionError("docker-registry does not answer")


def htpasswd_auth(directory: Path, user: str, password: str) -> str:
    """Basic authentication for docker-registry."""
    directory.mkdir(exist_ok=True)
    line = subprocess.run(["htpasswd", "-Bbn", user, password], check=True, capture_output=True).stdout
    (directory / "htpasswd").write_bytes(line)
    return f"auth:\n  htpasswd:\n    realm: test\n    path: {directory}/htpasswd\n"


class TokenServer(FakeRegistry):
    """Issues the tokens that docker-registry believes, to those who know the password."""

    def __init__(self, directory: Path, user: str, password: str) -> None:
        super().__init__()
        directory.mkdir(exist_ok=True)
        self._key, self._certificate = directory / "key.pem", directory / "cert.pem"
        self._basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
             "-keyout", str(self._key), "-out", str(self._certificate)],
            check=True, capture_output=True,
        )  # fmt: skip

    def auth(self) -> str:
        return (
            f"auth:\n  token:\n    realm: http://{self.host}/token\n    service: test\n    issuer: test\n"
            f"    rootcertbundle: {self._certificate}\n"
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs, dict(request.headers)))
        if request.headers.get("Authorization") != self._basic:
            return web.Response(status=401)
        access = []
        for scope in request.query.getall("scope", []):
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        return web.json_response({"token": self._token(access), "expires_in": 300})

    def _token(self, access: list[dict[str, Any]]) -> str:
        now = int(time.time())
        der = "".join(self._certificate.read_text().splitlines()[1:-1])
        header = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        claims = {
            "iss": "test", "sub": "me", "aud": "test", "exp": now + 300, "nbf": now - 10, "iat": now,
            "jti": str(now), "access": access,
        }  # fmt: skip
        body = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(claims).encode())}"
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(self._key)],
            input=body.encode(),
            check=True,
            capture_output=True,
        )
        return f"{body}.{_b64(signed.stdout)}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Messages(list[dict[str, Any]]):
    """Progress as it came."""

    def __call__(self, message: dict[str, Any]) -> None:
        self.append(message)

    def statuses(self, layer: str = "") -> list[str]:
        """Statuses of one id, each once, in order."""
        return list(dict.fromkeys(m["status"] for m in self if "status" in m and m.get("id", "") == layer))


async def pieces(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def run(command: list[str]) -> bytes:
    """A program's output; it has to succeed."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode(errors="replace")
    return output


def make_attestation(image: MadeImage) -> tuple[MadeImage, dict[str, Any]]:
    """What BuildKit says of an image, and the entry for it in an index."""
    statement = json.dumps({"predicateType": "https://slsa.dev/provenance/v0.2", "subject": image.digest}).encode()
    config = json.dumps(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(statement)]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(config, OCI_CONFIG),
            "layers": [descriptor(statement, "application/vnd.in-toto+json")],
        }
    ).encode()
    made = MadeImage({digest_of(one): one for one in (config, statement)}, manifest, OCI_MANIFEST, config, [])
    entry = descriptor(
        manifest,
        OCI_MANIFEST,
        platform={"os": "unknown", "architecture": "unknown"},
        annotations={
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image.digest,
        },
    )
    return made, entry
