"""Requests about instances (Docker: containers)."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from enisle.errors import Unavailable
from enisle.sdk.request import Body, Reply, Request, as_json, nothing, segment

if TYPE_CHECKING:
    from enisle.sdk.types import (
        Change,
        Created,
        InstanceDetails,
        InstanceSummary,
        PathStat,
        Processes,
        Pruned,
        Waited,
    )

Filters = dict[str, list[str]]


def _path(ref: str, verb: str = "") -> str:
    return f"/containers/{segment(ref)}" + (f"/{verb}" if verb else "")


def list_all(
    *, everything: bool = False, limit: int = 0, size: bool = False, filters: Filters | None = None
) -> Request[list[InstanceSummary]]:
    """Running instances, or all with ``everything``; ``limit`` 0 is no limit; ``size`` costs a walk of their files."""
    query = {"all": everything or None, "limit": limit or None, "size": size or None, "filters": filters or None}
    return Request("GET", "/containers/json", query=query, parse=as_json)


def get(ref: str, *, size: bool = False) -> Request[InstanceDetails]:
    """Everything about one instance, by name, id or unique prefix of an id."""
    return Request("GET", _path(ref, "json"), query={"size": size or None}, parse=as_json)


def create(body: dict[str, Any], *, name: str = "", platform: str = "") -> Request[Created]:
    """A new instance, not started. ``body``: Config with HostConfig and NetworkingConfig, as Docker has them;
    ``HostConfig.Runtime`` "vm" chooses the VM wall."""
    query = {"name": name or None, "platform": platform or None}
    return Request("POST", "/containers/create", query=query, json_body=body, parse=as_json)


def start(ref: str, *, detach_keys: str = "") -> Request[None]:
    """Start it. Raises NotModified when it runs."""
    return Request("POST", _path(ref, "start"), query={"detachKeys": detach_keys or None}, parse=nothing)


def stop(ref: str, *, timeout_s: int | None = None, signal: str = "") -> Request[None]:
    """Ask it to end, kill it after ``timeout_s`` (None: its own setting, -1: never). NotModified when it has ended."""
    return Request("POST", _path(ref, "stop"), query={"t": timeout_s, "signal": signal or None}, parse=nothing)


def restart(ref: str, *, timeout_s: int | None = None, signal: str = "") -> Request[None]:
    """Stop, then start."""
    return Request("POST", _path(ref, "restart"), query={"t": timeout_s, "signal": signal or None}, parse=nothing)


def kill(ref: str, *, signal: str = "") -> Request[None]:
    """Send a signal, by name or number; KILL when none is named."""
    return Request("POST", _path(ref, "kill"), query={"signal": signal or None}, parse=nothing)


def pause(ref: str) -> Request[None]:
    """Freeze it."""
    return Request("POST", _path(ref, "pause"), parse=nothing)


def unpause(ref: str) -> Request[None]:
    """Let it go on."""
    return Request("POST", _path(ref, "unpause"), parse=nothing)


def remove(ref: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> Request[None]:
    """Remove it; ``force`` kills it first, ``volumes`` takes its anonymous volumes along."""
    query = {"force": force or None, "v": volumes or None, "link": link or None}
    return Request("DELETE", _path(ref), query=query, parse=nothing)


def rename(ref: str, name: str) -> Request[None]:
    """Give it another name."""
    return Request("POST", _path(ref, "rename"), query={"name": name}, parse=nothing)


def update(ref: str, changes: dict[str, Any]) -> Request[Created]:
    """Change limits or the restart policy while it runs; ``changes`` in the fields of HostConfig. Answers Warnings."""
    return Request("POST", _path(ref, "update"), json_body=changes, parse=as_json)


def resize(ref: str, *, rows: int, columns: int) -> Request[None]:
    """Tell its terminal its size."""
    return Request("POST", _path(ref, "resize"), query={"h": rows, "w": columns}, parse=nothing)


def top(ref: str, *, ps_args: str = "") -> Request[Processes]:
    """Its processes, as ps with these arguments shows them."""
    return Request("GET", _path(ref, "top"), query={"ps_args": ps_args or None}, parse=as_json)


def changes(ref: str) -> Request[list[Change] | None]:
    """Paths that differ from its image."""
    return Request("GET", _path(ref, "changes"), parse=as_json)


def prune(*, filters: Filters | None = None) -> Request[Pruned]:
    """Remove all that do not run."""
    return Request("POST", "/containers/prune", query={"filters": filters or None}, parse=as_json)


def wait(ref: str, *, condition: str = "") -> Request[Waited]:
    """Its exit code, once ``condition`` (not-running, next-exit, removed) holds. The head comes at once."""
    return Request("POST", _path(ref, "wait"), query={"condition": condition or None}, parse=as_json)


def attach(
    ref: str, *, stdin: bool, stdout: bool, stderr: bool, logs: bool = False, detach_keys: str = ""
) -> Request[None]:
    """A bare stream to and from its main process; framed unless it has a terminal."""
    streams = {"stdin": stdin or None, "stdout": stdout or None, "stderr": stderr or None}
    query = {"stream": True, **streams, "logs": logs or None, "detachKeys": detach_keys or None}
    return Request("POST", _path(ref, "attach"), query=query, parse=nothing)


def logs(
    ref: str,
    *,
    stdout: bool = True,
    stderr: bool = True,
    follow: bool = False,
    timestamps: bool = False,
    details: bool = False,
    since: str = "",
    until: str = "",
    tail: str = "all",
) -> Request[bytes]:
    """What it has written; framed unless it has a terminal. ``since`` and ``until`` in seconds with a fraction."""
    query = {
        "stdout": stdout or None,
        "stderr": stderr or None,
        "follow": follow or None,
        "timestamps": timestamps or None,
        "details": details or None,
        "since": since or None,
        "until": until or None,
        "tail": tail,
    }
    return Request("GET", _path(ref, "logs"), query=query, parse=_body)


def stats(ref: str, *, stream: bool = True) -> Request[dict[str, Any]]:
    """What it uses now, about once a second while ``stream``; the rates need two samples, so a single one takes 1 s."""
    return Request("GET", _path(ref, "stats"), query={"stream": stream}, parse=as_json)


def stats_once(ref: str) -> Request[dict[str, Any]]:
    """What it uses now, at once and without the previous sample."""
    return Request("GET", _path(ref, "stats"), query={"stream": False, "one-shot": True}, parse=as_json)


def stat(ref: str, path: str) -> Request[PathStat]:
    """What is at a path inside. Raises NotFound."""
    return Request("HEAD", _path(ref, "archive"), query={"path": path}, parse=path_stat)


def archive(ref: str, path: str) -> Request[bytes]:
    """A tar of the file or tree at a path inside; the head says what it is (``path_stat``)."""
    return Request("GET", _path(ref, "archive"), query={"path": path}, parse=_body)


def put(
    ref: str, path: str, body: Body, *, no_overwrite_dir_non_dir: bool = False, copy_uid_gid: bool = False
) -> Request[None]:
    """Unpack a tar into the directory at a path inside."""
    query = {
        "path": path,
        "noOverwriteDirNonDir": no_overwrite_dir_non_dir or None,
        "copyUIDGID": copy_uid_gid or None,
    }
    headers = {"Content-Type": "application/x-tar"}
    return Request("PUT", _path(ref, "archive"), query=query, headers=headers, body=body, parse=nothing)


def export(ref: str) -> Request[bytes]:
    """A tar of its whole root file system."""
    return Request("GET", _path(ref, "export"), parse=_body)


def commit(
    ref: str,
    *,
    repository: str = "",
    tag: str = "",
    author: str = "",
    message: str = "",
    changes: tuple[str, ...] = (),
    pause: bool = True,
) -> Request[Created]:
    """A new image from it. ``changes`` are Dockerfile instructions."""
    query = {
        "container": ref,
        "repo": repository or None,
        "tag": tag or None,
        "author": author or None,
        "comment": message or None,
        "changes": changes or None,
        "pause": pause,
    }
    return Request("POST", "/commit", query=query, json_body={}, parse=as_json)


def path_stat(reply: Reply) -> PathStat:
    """The answer's X-Docker-Container-Path-Stat header, decoded."""
    try:
        value: PathStat = json.loads(base64.b64decode(reply.headers["x-docker-container-path-stat"]))
    except (KeyError, ValueError) as error:
        raise Unavailable("The server's answer does not say what is at the path.") from error
    return value


def _body(reply: Reply) -> bytes:
    return reply.body
