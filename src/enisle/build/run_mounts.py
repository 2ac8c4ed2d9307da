"""RUN --mount: what each kind becomes on the instance that a RUN is."""

from __future__ import annotations

import asyncio
import hashlib
import os
import posixpath
import re
import secrets
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path as FilePath
from typing import NamedTuple

from enisle.archive.entry import FileKind
from enisle.build.agents import relayed
from enisle.build.caches import CacheMounts, Sharing
from enisle.build.layer_plan import LayerPlan, Planned, threaded
from enisle.build.layer_tree import LayerTree
from enisle.build.options import BuildOptions
from enisle.build.sources import found
from enisle.build.tree import EmptyTree, Node, Path, Tree
from enisle.cleanup import to_the_end
from enisle.contracts import ImageStep
from enisle.engine.images import Images
from enisle.errors import Exhausted, Invalid
from enisle.formats.dockerfile.instructions import RunMount
from enisle.model.image import ImageConfig
from enisle.model.instance import Mount, MountKind
from enisle.model.numbers import decimal

_SIZE = re.compile(r"(\d+)([kmgt]?)b?", re.IGNORECASE)
SCRIPTS = "/dev/pipes"
"""Where scripts that are written in the Dockerfile are: below /dev, so that no layer sees them."""

_SECRET_DIRECTORY = "/run/secrets"
_SSH_SOCKET = "/run/buildkit/ssh_agent"
_KEYS = {
    "bind": {"target", "source", "from", "rw"},
    "cache": {"id", "target", "ro", "sharing", "from", "source", "mode", "uid", "gid", "rw"},
    "tmpfs": {"target", "size"},
    "secret": {"id", "target", "required", "mode", "uid", "gid", "env"},
    "ssh": {"id", "target", "required", "mode", "uid", "gid"},
}
_SAME = {"dst": "target", "destination": "target", "src": "source", "readonly": "ro", "readwrite": "rw"}


@dataclass(kw_only=True)
class Mounted:
    """What a RUN is started with. ``keys`` go into its cache key. ``env_files``: variables to be read from files."""

    mounts: list[Mount] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    env_files: dict[str, str] = field(default_factory=dict)
    environment: list[str] = field(default_factory=list)


class _Wanted(NamedTuple):
    """A cache that a RUN will have."""

    identity: str
    sharing: Sharing
    mode: int
    owner: tuple[int, int]
    mount: Mount
    base: tuple[LayerPlan, str] | None  # what a new one begins with, and its name in the plan


class RunMounts:
    """Makes the mounts of one RUN; all of it is gone when the context ends. ``tree_of``: the tree of a ``from``."""

    def __init__(
        self,
        images: Images,
        caches: CacheMounts,
        options: BuildOptions,
        directory: FilePath,
        tree_of: Callable[[str], Awaitable[Tree]],
    ) -> None:
        self._images = images
        self._caches = caches
        self._options = options
        self._directory = directory
        self._tree_of = tree_of
        self._stack = AsyncExitStack()
        self._agents = 0
        self._wanted: list[_Wanted] = []
        self._sockets: list[tuple[str, int, tuple[int, int], str]] = []
        self._pending: list[tuple[LayerPlan, str, Mount]] = []
        self.result = Mounted()

    async def __aenter__(self) -> RunMounts:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def check(self, mounts: list[RunMount], *, working_dir: str, expand: Callable[[str], str]) -> None:
        """Find what each mount names, and the keys; nothing is made yet. Raises Invalid."""
        for mount in mounts:
            options = _options(mount, expand)
            self.result.keys.append(_key(mount.kind, options))
            target = _target(mount.kind, options, working_dir)
            await getattr(self, f"_{mount.kind}")(options, target)

    @property
    def targets(self) -> list[str]:
        """Where something is mounted."""
        return [mount.target for mount in self.result.mounts]

    def add_scripts(self, scripts: dict[str, str]) -> None:
        """Show files that are to be executed."""
        if not scripts:
            return
        directory = self._fresh()
        directory.mkdir(mode=0o755)
        self._stack.callback(directory.rmdir)
        for name, text in scripts.items():
            path = directory / name
            path.write_text(text, encoding="utf-8", errors="surrogateescape")
            path.chmod(0o755)
            self._stack.callback(path.unlink)
        self.result.mounts.append(Mount(kind=MountKind.BIND, target=SCRIPTS, source=str(directory), read_only=True))

    def _fresh(self) -> FilePath:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._directory / secrets.token_hex(8)

    async def make(self) -> None:
        """Take the caches, and make what binds show: a layer of their own, that nobody else's files can be in."""
        await self._lease()
        await self._relay()
        for plan, name, mount in self._pending:
            source = await self._stack.enter_async_context(self._unpacked(plan, name))
            self.result.mounts.append(replace(mount, source=str(source)))

    @asynccontextmanager
    async def _unpacked(self, plan: LayerPlan, name: str) -> AsyncIterator[FilePath]:
        step = ImageStep(config=ImageConfig(), created_by="mount")
        image = await self._images.extend(None, threaded(plan.pieces()), step)
        self._images.hold(image)
        try:
            yield (await self._images.layers(image))[0] / name
        finally:
            self._images.release(image)
            await to_the_end(self._images.discard(image))

    async def _bind(self, options: dict[str, str], target: str) -> None:
        tree = await self._tree_of(options.get("from", ""))
        if isinstance(tree, LayerTree) and not _flag(options, "rw") and self._options.runtime != "vm":
            direct = await asyncio.to_thread(_direct, tree, options.get("source", "/"), target)
            if direct is not None:
                key, mount = direct
                self.result.keys.append(key)
                self.result.mounts.append(mount)
                return
        plan, name, digest = await asyncio.to_thread(_planned, tree, options.get("source", "/"))
        self.result.keys.append(digest)
        mount = Mount(kind=MountKind.BIND, target=target, source="", read_only=not _flag(options, "rw"))
        self._pending.append((plan, name, mount))

    async def _cache(self, options: dict[str, str], target: str) -> None:
        try:
            sharing = Sharing(options.get("sharing", "shared"))
        except ValueError:
            raise Invalid(f"unsupported sharing value {options['sharing']!r}") from None
        mode = _octal(options.get("mode", "0755"))
        owner = (_id(options.get("uid", "0")), _id(options.get("gid", "0")))
        mount = Mount(kind=MountKind.BIND, target=target, source="", read_only=_flag(options, "ro"))
        identity, base = options.get("id", target), None
        if options.get("from"):
            tree = await self._tree_of(options["from"])
            plan, name, digest = await asyncio.to_thread(_planned, tree, options.get("source", "/"))
            if plan.kind_at((name.encode(),)) is not FileKind.DIRECTORY:
                raise Invalid(f"a cache begins with a directory, which {options['source']} is not")
            self.result.keys.append(digest)
            identity, base = f"{identity} from {digest}", (plan, name)
        elif options.get("source"):
            raise Invalid("RUN --mount=type=cache with source= needs from=")
        self._wanted.append(_Wanted(identity, sharing, mode, owner, mount, base))

    async def _lease(self) -> None:
        """Take the caches: in one order for all, and each once, so that RUNs never wait for each other in a circle."""
        taken: dict[tuple[str, Sharing], FilePath] = {}
        locked = {one.identity for one in self._wanted if one.sharing is Sharing.LOCKED}
        for one in sorted(self._wanted, key=lambda one: one.identity):
            sharing = Sharing.LOCKED if one.identity in locked else one.sharing
            key = (one.identity, sharing)
            if key not in taken:
                fill = partial(self._fill, *one.base) if one.base is not None else None
                lease = self._caches.leased(one.identity, sharing, mode=one.mode, owner=one.owner, fill=fill)
                taken[key] = await self._stack.enter_async_context(lease)
            self.result.mounts.append(replace(one.mount, source=str(taken[key])))

    async def _fill(self, plan: LayerPlan, name: str, path: FilePath) -> None:
        """A new cache: a copy of a directory."""
        async with self._unpacked(plan, name) as source:
            copying = await asyncio.create_subprocess_exec(
                "cp", "-a", "--", source, path, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            try:
                _, said = await copying.communicate()
            except asyncio.CancelledError:
                copying.kill()
                await copying.wait()
                raise
        if copying.returncode:
            raise Exhausted(f"a cache cannot be filled: {said.decode('utf-8', 'replace').strip()[-300:]}")

    async def _tmpfs(self, options: dict[str, str], target: str) -> None:
        size = _bytes(options["size"]) if "size" in options else 0
        self.result.mounts.append(
            Mount(kind=MountKind.TMPFS, target=target, tmpfs_size_bytes=size, options=("exec", "suid", "dev"))
        )

    async def _secret(self, options: dict[str, str], target: str) -> None:
        name = options.get("id") or posixpath.basename(options.get("target", ""))
        if not name:
            raise Invalid("RUN --mount=type=secret needs an id")
        data = self._options.secrets.get(name)
        if data is None and self._options.client is not None:
            data = await self._options.client.secret(name)
        if data is None:
            if _flag(options, "required"):
                raise Invalid(f"secret {name}: not found. Give it with: enisle build --secret id={name},src=FILE")
            return
        owner = (_id(options.get("uid", "0")), _id(options.get("gid", "0")))
        path = self._write(data, _octal(options.get("mode", "0400")), owner)
        if "env" in options:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", options["env"]):
                raise Invalid(f"invalid environment variable {options['env']!r} of a secret")
            self.result.env_files[options["env"]] = target
        self.result.mounts.append(Mount(kind=MountKind.BIND, target=target, source=str(path), read_only=True))

    def _write(self, data: bytes, mode: int, owner: tuple[int, int]) -> FilePath:
        """A file on the run directory, which is memory where systems are set up as usual."""
        path = self._fresh()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._stack.callback(path.unlink)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
        return path

    async def _ssh(self, options: dict[str, str], target: str) -> None:
        name = options.get("id", "default")
        socket = self._options.ssh.get(name)
        if socket is None and self._options.client is not None:
            socket = await self._options.client.agent(name)
        if socket is None:
            if _flag(options, "required"):
                raise Invalid(f"ssh agent {name}: not found. Give it with: enisle build --ssh {name}")
            return
        if "target" not in options:
            target = f"{_SSH_SOCKET}.{self._agents}"
            self._agents += 1
        owner = (_id(options.get("uid", "0")), _id(options.get("gid", "0")))
        mode = _octal(options.get("mode", "0600"))
        self.result.environment.append(f"SSH_AUTH_SOCK={target}")
        self._sockets.append((socket, mode, owner, target))

    async def _relay(self) -> None:
        for socket, mode, owner, target in self._sockets:
            path = self._fresh()
            await self._stack.enter_async_context(relayed(socket, path, mode=mode, owner=owner))
            self.result.mounts.append(Mount(kind=MountKind.BIND, target=target, source=str(path)))


def _planned(tree: Tree, source: str) -> tuple[LayerPlan, str, str]:
    """A file or directory of a tree as a layer of its own, its name there, and a digest of what it is."""
    [(_, place, node)] = found(tree, source, what="RUN --mount", pattern=False)
    name = f"m-{secrets.token_hex(16)}"
    plan = LayerPlan(EmptyTree(), now_ns=0)
    top = (name.encode(),)
    if node.is_directory:
        plan.directory(top, owner=(node.uid, node.gid), mode=node.mode, mtime_ns=node.mtime_ns)
        for path, one in tree.walk(place):
            inside = (*top, *path[len(place) :])
            if one.is_directory:
                plan.directory(inside, owner=(one.uid, one.gid), mode=one.mode, mtime_ns=one.mtime_ns)
            else:
                plan.put(inside, _file(tree, path, one))
    else:
        plan.put(top, _file(tree, place, node))
    return plan, name, plan.digest(under=top)


def _file(tree: Tree, path: Path, node: Node) -> Planned:
    return Planned(node=node, tree=tree, source=path, xattrs=tuple(sorted(tree.xattrs(path, node).items())))


def _direct(tree: LayerTree, source: str, target: str) -> tuple[str, Mount] | None:
    """The key, and a mount of an image's own files, for a directory that one layer holds or that is the whole image.

    Read-only, and for containers only: a guest is kept from a layer that images share by more than a mount's flag.
    """
    [(_, place, node)] = found(tree, source, what="RUN --mount", pattern=False)
    places = tree.places(place) if node.is_directory else []
    key = f"layers {[str(one) for one in places]}"  # whose names are digests of all that is in and below them
    if len(places) == 1:
        return key, Mount(kind=MountKind.BIND, target=target, source=str(places[0]), read_only=True)
    if places and not place:
        return key, Mount(kind=MountKind.IMAGE, target=target, source=tree.image, read_only=True)
    return None


def _options(mount: RunMount, expand: Callable[[str], str]) -> dict[str, str]:
    options = {_SAME.get(key, key): expand(value) for key, value in mount.options.items()}
    if mount.kind == "bind" and "ro" in options:
        options = {"rw": "false" if _flag(options, "ro") else "true"} | options
        del options["ro"]
    unknown = sorted(set(options) - _KEYS[mount.kind])
    if unknown:
        raise Invalid(f"unexpected key '{unknown[0]}' for mount type '{mount.kind}'")
    return options


def _key(kind: str, options: dict[str, str]) -> str:
    return kind + "".join(f",{name}={value}" for name, value in sorted(options.items()))


def _target(kind: str, options: dict[str, str], working_dir: str) -> str:
    target = options.get("target", "")
    if not target and kind == "secret":
        name = options.get("id", "")
        if "env" in options:
            name = f"enisle-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        target = f"{_SECRET_DIRECTORY}/{posixpath.basename(name)}"
    if not target and kind != "ssh":
        raise Invalid(f"RUN --mount=type={kind} needs a target")
    return posixpath.normpath("/" + posixpath.join(working_dir or "/", target).lstrip("/"))


def _flag(options: dict[str, str], name: str) -> bool:
    text = options.get(name, "false").lower()
    if text not in ("true", "false", "1", "0", ""):
        raise Invalid(f"invalid value for {name}: {text}")
    return text in ("true", "1", "")


def _octal(text: str) -> int:
    if not re.fullmatch(r"[0-7]{1,5}", text) or int(text, 8) > 0o7777:
        raise Invalid(f"invalid mode {text!r}: it is an octal number")
    return int(text, 8)


def _id(text: str) -> int:
    number = decimal(text)
    if number is None or number >= (1 << 32) - 1:
        raise Invalid(f"invalid user or group id {text[:40]!r}: it is a number")
    return number


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Invalid(f"invalid size {text!r}")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2].lower()]
