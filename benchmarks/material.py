"""What the data rows move: an image of this machine's own files, as an archive and in a registry, and files to copy."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_SOURCES = ("/usr/lib", "/usr/share", "/usr/bin")
_LARGEST_FILE_BYTES = 32 << 20
_REPOSITORY = "bench/image"
_PORT = 5055
REGISTRY = f"127.0.0.1:{_PORT}"
REMOTE = f"{REGISTRY}/{_REPOSITORY}:latest"
LARGE = "bench/large:latest"


@dataclass(frozen=True, kw_only=True)
class Material:
    """``registry``: the storage of a registry that has :data:`REMOTE`. ``archive``: holds :data:`LARGE`.

    ``file``: one of 100 MB. ``tree``: 10,000 files of 1 KiB in 100 directories.
    """

    registry: Path
    archive: Path
    file: Path
    tree: Path


def make_material(directory: Path, *, pulled_mb: int = 500, archived_mb: int = 1000) -> Material:
    """Make everything, or take what an earlier run has left in the directory."""
    material = Material(
        registry=directory / "registry",
        archive=directory / "large.tar",
        file=directory / "file",
        tree=directory / "tree",
    )
    if (directory / "complete").exists():
        return material
    directory.mkdir(parents=True, exist_ok=True)
    layers = list(_layers(5, pulled_mb << 20))
    with registry(material.registry):
        _push(layers)
    _write_archive(material.archive, [*layers, *_layers(5, (archived_mb - pulled_mb) << 20, skip=pulled_mb << 20)])
    material.file.write_bytes(os.urandom(100 << 20))
    for number in range(10_000):
        path = material.tree / f"d{number // 100}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d\n" % number * 200)
    (directory / "complete").touch()
    return material


def _files(skip: int) -> Iterator[Path]:
    """Regular files of this machine in a fixed order, after so many bytes of them."""
    for source in _SOURCES:
        for top, directories, names in os.walk(source):
            directories.sort()
            for name in sorted(names):
                path = Path(top, name)
                status = path.lstat()
                if path.is_symlink() or not path.is_file() or status.st_size > _LARGEST_FILE_BYTES:
                    continue
                if skip > 0:
                    skip -= status.st_size
                    continue
                yield path


def _layers(count: int, total: int, *, skip: int = 0) -> Iterator[bytes]:
    """Tar archives of that many bytes together."""
    files = _files(skip)
    for _ in range(count):
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w") as tar:
            for path in files:
                with suppress(OSError):
                    tar.add(path, recursive=False)
                if sink.tell() >= total // count:
                    break
        yield sink.getvalue()


def _config(layers: list[bytes]) -> bytes:
    digests = [_digest(layer) for layer in layers]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": digests},
        "history": [{"created_by": "bench"} for _ in digests],
    }
    return json.dumps(document).encode()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _write_archive(path: Path, layers: list[bytes]) -> None:
    """A docker-archive with plain layers, as dockerd writes it."""
    config = _config(layers)
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    entry = {"Config": "config.json", "RepoTags": [LARGE], "Layers": names}
    members = [*zip(names, layers, strict=True), ("config.json", config)]
    members.append(("manifest.json", json.dumps([entry]).encode()))
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _push(layers: list[bytes]) -> None:
    config = _config(layers)
    blobs = [gzip.compress(layer, 6, mtime=0) for layer in layers]
    kind = "application/vnd.docker."
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind + "distribution.manifest.v2+json",
        "config": _descriptor(kind + "container.image.v1+json", config),
        "layers": [_descriptor(kind + "image.rootfs.diff.tar.gzip", blob) for blob in blobs],
    }
    for blob in (*blobs, config):
        location = _request("POST", f"/v2/{_REPOSITORY}/blobs/uploads/", b"", "")
        _request("PUT", f"{location}&digest={_digest(blob)}", blob, "application/octet-stream")
    _request("PUT", f"/v2/{_REPOSITORY}/manifests/latest", json.dumps(manifest).encode(), str(manifest["mediaType"]))


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _request(method: str, path: str, body: bytes, media_type: str) -> str:
    """One request to the registry; the Location of its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", _PORT, timeout=60)
    connection.request(method, path.removeprefix(f"http://{REGISTRY}"), body, {"Content-Type": media_type})
    response = connection.getresponse()
    said = response.read()
    connection.close()
    if response.status >= 300:
        raise RuntimeError(f"the registry answers {response.status}: {said[:300]!r}")
    return response.headers.get("Location", "")


@contextmanager
def registry(storage: Path, enter: tuple[str, ...] = ()) -> Iterator[None]:
    """docker-registry over that storage. ``enter``: the beginning of a command that runs it in another namespace."""
    storage.mkdir(parents=True, exist_ok=True)
    config = storage / "config.yml"
    config.write_text(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n"
        f"storage:\n  filesystem:\n    rootdirectory: {storage}/data\nhttp:\n  addr: {REGISTRY}\n"
    )
    process = subprocess.Popen(
        [*enter, "docker-registry", "serve", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
    )
    try:
        _wait_for(process.pid)
        yield
    finally:
        process.kill()
        process.wait()


def _wait_for(pid: int) -> None:
    """Until it listens, in whatever network namespace it is."""
    wanted = f":{_PORT:04X} 00000000:0000 0A"
    deadline = time.monotonic() + 20
    while wanted not in Path(f"/proc/{pid}/net/tcp").read_text():
        if time.monotonic() > deadline:
            raise RuntimeError("docker-registry does not listen")
        time.sleep(0.02)
