"""Git repositories as trees: cloned by git(1) as a user without rights, never checked out with hooks or filters."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path as FilePath
from urllib.parse import urlsplit

from enisle.archive.beneath import remove, remove_tree
from enisle.archive.pack import pack
from enisle.build.archive_tree import ArchiveTree
from enisle.build.tree import split
from enisle.cleanup import to_the_end
from enisle.errors import Invalid, NotSupported

_NOBODY = 65534
_PREFIX = "enisle-git-"  # in the system's directory for such: nobody cannot enter ours
_DROP_RIGHTS = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--no-new-privs", "--")
_TIMEOUT_S = 600.0
_PROTOCOLS = "http:https:git:ssh"
_SCP_LIKE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^:].*")
_HOSTS = ("github.com/", "gitlab.com/", "bitbucket.org/")
_COMMIT = re.compile(r"[0-9a-f]{4,64}")
_OPTIONS = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.symlinks=true"),
    *("-c", "protocol.ext.allow=never", "-c", "protocol.file.allow=never", "-c", "submodule.recurse=false"),
    *("-c", "credential.helper=", "-c", "core.askPass=/bin/false", "-c", "advice.detachedHead=false"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Repository:
    """``ref`` "": the default branch. ``subdirectory``: what of it is wanted."""

    url: str
    ref: str = ""
    subdirectory: str = ""


def parse(text: str) -> Repository | None:
    """A git URL with its ``#ref:subdirectory``; None when the text is none. Invalid for one that is not to be used."""
    url, _, fragment = text.partition("#")
    if url.startswith(_HOSTS):
        url = f"https://{url}"
    path = url.partition("?")[0]
    is_git = url.startswith(("git://", "ssh://")) or _SCP_LIKE.fullmatch(url) is not None
    over_http = url.startswith(("http://", "https://")) and path.rstrip("/").endswith(".git")
    if not (is_git or over_http or text.startswith(_HOSTS)):
        return None
    ref, _, subdirectory = fragment.partition(":")
    if url.startswith("-") or ref.startswith("-") or "\0" in text or "\n" in text or "::" in url:
        raise Invalid(f"invalid git reference: {text[:200]}")
    if ".." in subdirectory.split("/"):
        raise Invalid(f"invalid git subdirectory: {subdirectory[:200]} leads out of the repository")
    return Repository(url=url, ref=ref, subdirectory=subdirectory)


@asynccontextmanager
async def cloned(repository: Repository, directory: FilePath, *, keep_git: bool = False) -> AsyncIterator[ArchiveTree]:
    """The files of a repository, as a tree whose archive lies in ``directory``. Invalid with what git says."""
    if shutil.which("git") is None:
        raise NotSupported("git is not installed on the daemon's host.", remedy="Install it: apt-get install git.")
    work = FilePath(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        os.chown(work, _NOBODY, _NOBODY)
        await _clone(repository, work)
        archive = directory / f"{work.name}.tar"
        await asyncio.to_thread(_pack, work / "tree", archive, repository.subdirectory, keep_git=keep_git)
    finally:
        await to_the_end(asyncio.to_thread(remove_tree, work))
    tree = ArchiveTree(archive)
    try:
        await asyncio.to_thread(tree.index)
        yield tree
    finally:
        tree.close()
        archive.unlink()


def sweep() -> None:
    """Remove what was being cloned by daemons that have died."""
    for path in FilePath(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = path.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not FilePath("/proc", pid).exists():
            with suppress(OSError):
                remove_tree(path)


def host_of(repository: Repository) -> str:
    """The host that a repository is fetched from."""
    if "://" in repository.url:
        return urlsplit(repository.url).hostname or ""
    return repository.url.partition("@")[2].partition(":")[0]


async def _clone(repository: Repository, work: FilePath) -> None:
    where = "tree"
    await _git(work, "init", "--quiet", "--template=", where)
    tree = work / where
    await _git(tree, "remote", "add", "--", "origin", repository.url)
    ref = repository.ref or "HEAD"
    wanted = "FETCH_HEAD"
    try:
        await _git(tree, "fetch", "--quiet", "--depth", "1", "--no-tags", "--", "origin", ref)
    except Invalid as error:
        if "shallow" in str(error):  # a server of plain files knows no depth
            await _git(tree, "fetch", "--quiet", "--no-tags", "--", "origin", ref)
        elif _COMMIT.fullmatch(ref):
            # Servers may refuse to give a commit by its number, and never know an abbreviated one: fetch all and look.
            await _git(tree, "fetch", "--quiet", "--tags", "origin")
            wanted = f"{ref}^{{commit}}"
        else:
            raise
    await _git(tree, "checkout", "--quiet", "--force", wanted, "--")
    if (tree / ".gitmodules").is_file():
        await _git(tree, "submodule", "update", "--init", "--recursive", "--depth", "1")


async def _git(directory: FilePath, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *_DROP_RIGHTS,
        "git",
        *_OPTIONS,
        *arguments,
        cwd=directory,
        env=_environment(directory),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    except TimeoutError as error:
        raise Invalid(f"git {arguments[0]} took longer than {_TIMEOUT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
    if process.returncode:
        raise Invalid(f"failed to fetch remote repository: {said.decode('utf-8', 'replace').strip()[-1000:]}")


def _environment(directory: FilePath) -> dict[str, str]:
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(directory),
        "LC_ALL": "C.UTF-8",
        "GIT_ALLOW_PROTOCOL": _PROTOCOLS,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new",
    }


def _pack(tree: FilePath, archive: FilePath, subdirectory: str, *, keep_git: bool) -> None:
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not keep_git:
            remove(root, b".git")
        inside = b"/".join(split(subdirectory)).decode("utf-8", "surrogateescape")
        with archive.open("xb") as file:
            pack(root, f"/{inside}/." if inside else "/.", file, shown_as=b".")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Invalid(f"the repository has no directory {subdirectory}") from error
    finally:
        os.close(root)
