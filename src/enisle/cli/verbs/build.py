"""``enisle build``: an image from a Dockerfile, its commands behind either wall."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from enisle.cli import build_output, progress, values
from enisle.cli.archive_output import open_input
from enisle.cli.build_context import packed
from enisle.cli.command import Command, Context, Failed, warn
from enisle.cli.flags import Options, UsageError, many, option, switch
from enisle.cli.human import bytes_text, size
from enisle.cli.listing import filters
from enisle.errors import EnisleError, Invalid
from enisle.sdk.credentials import CredentialFile

_REMOTE = ("http://", "https://", "git://", "ssh://", "git@", "github.com/")


def build(context: Context, options: Options, arguments: list[str]) -> None:
    """Send the context, show what is built, print the image's id if asked to be quiet."""
    place = arguments[0]
    query = _query(options)
    outputs = [build_output.parse(text) for text in options.output]
    secrets = dict(_secret(text) for text in options.secret)
    ssh = dict(_agent(text, context.client.address.path) for text in options.ssh)
    contexts, directories = _named_contexts(options.build_context, place)
    # What goes to standard output is to stand there alone.
    quiet = options.quiet or any(output.path == "-" and output.kind != "image" for output in outputs)
    with open_input("-" if place == "-" else "/dev/null") as stdin:
        body, extra = _body(place, options, stdin, directories)
        exchange = context.client.builds.open_build(
            body if isinstance(body, bytes) or options.quiet else progress.counted(body, "Sending the build context"),
            options=query | extra,
            secrets=secrets,
            ssh=ssh,
            contexts=contexts,
            keep=not outputs or any(output.needs_name for output in outputs),
            credentials=CredentialFile().every(),
        )
        with exchange:
            image = _follow(exchange.objects(), quiet=quiet)
    for output in outputs:
        build_output.deliver(context.client, output, image, tuple(options.tag))
    if options.quiet and not outputs:
        print(image)
    if options.iidfile:
        with open(options.iidfile, "w", encoding="ascii") as file:
            file.write(image)


def _named_contexts(texts: list[str], place: str) -> tuple[dict[str, str], dict[str, str]]:
    """--build-context NAME=VALUE: what each name is for the daemon, and directories to be sent, by where they lie."""
    contexts: dict[str, str] = {}
    directories: dict[str, str] = {}
    for number, text in enumerate(texts):
        name, _, value = text.partition("=")
        if not name or not value:
            raise UsageError(f"invalid --build-context {text!r}: it is NAME=VALUE")
        if value.startswith(("docker-image://", *_REMOTE)):
            contexts[name] = value
            continue
        if place == "-" or place.startswith(_REMOTE):
            raise Invalid(f"--build-context {text}: a directory can be sent only together with another one")
        inside = f".enisle-context-{os.urandom(6).hex()}-{number}"
        contexts[name], directories[inside] = f"input:{inside}", value
    return contexts, directories


def _follow(objects: Iterable[Mapping[str, Any]], *, quiet: bool) -> str:
    """Show the build; the image's id. Failed with the exit code of a command that failed."""
    code = 0

    def watched() -> Iterator[Mapping[str, Any]]:
        nonlocal code
        for item in objects:
            code = int((item.get("errorDetail") or {}).get("code") or 0)
            yield item

    try:
        made = progress.follow(watched(), quiet=quiet)
    except EnisleError as error:
        if not code:
            raise
        warn(f"enisle: {error}")
        raise Failed(code) from error
    return str(made[-1]["ID"]) if made else ""


def _body(
    place: str, options: Options, stdin: Iterator[bytes], others: Mapping[str, str]
) -> tuple[bytes | Iterator[bytes], dict[str, Any]]:
    """What is sent, and the parameters that say what it is."""
    if place.startswith(_REMOTE):
        return b"", {"remote": place, "dockerfile": options.file or None}
    if place == "-":
        return stdin, {"dockerfile": options.file or None}
    dockerfile = options.file or ""
    if dockerfile == "-":
        name = f".dockerfile.{os.urandom(6).hex()}"
        return packed(place, name, (name, sys.stdin.buffer.read()), others), {"dockerfile": name}
    inside = os.path.relpath(os.path.realpath(dockerfile), os.path.realpath(place)) if dockerfile else "Dockerfile"
    if inside.startswith(".."):
        name = f".dockerfile.{os.urandom(6).hex()}"
        return packed(place, name, (name, _read(dockerfile)), others), {"dockerfile": name}
    return packed(place, inside, None, others), {"dockerfile": inside if dockerfile else None}


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from error


def _query(options: Options) -> dict[str, Any]:
    arguments = dict(_argument(text) for text in options.build_arg)
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        arguments.setdefault("SOURCE_DATE_EPOCH", epoch)
    query: dict[str, Any] = {
        "t": tuple(options.tag) or None,
        "target": options.target or None,
        "buildargs": arguments or None,
        "labels": values.pairs(options.label) or None,
        "nocache": options.no_cache or None,
        "pull": options.pull or None,
        "squash": options.squash or None,
        "rm": options.rm,
        "forcerm": options.force_rm or None,
        "platform": options.platform or None,
        "isolation": "vm" if options.vm else options.isolation or None,
        "networkmode": options.network or None,
        "extrahosts": ",".join(options.add_host) or None,
        "cachefrom": [_cache_source(text) for text in options.cache_from] or None,
        "memory": options.memory,
        "memswap": options.memory_swap,
        "cpushares": options.cpu_shares,
        "cpuperiod": options.cpu_period,
        "cpuquota": options.cpu_quota,
        "cpusetcpus": options.cpuset_cpus or None,
        "cpusetmems": options.cpuset_mems or None,
        "shmsize": options.shm_size,
        "ulimits": options.ulimit or None,
        "securityopt": options.security_opt or None,
        "cgroupparent": options.cgroup_parent or None,
    }
    return query


def _cache_source(text: str) -> str:
    """An image, or "type=registry,ref=IMAGE"."""
    if "=" not in text:
        return text
    fields = dict(item.partition("=")[::2] for item in text.split(","))
    if fields.get("type") != "registry" or not fields.get("ref"):
        raise UsageError(f"invalid --cache-from {text!r}: it is an image, or type=registry,ref=IMAGE")
    return fields["ref"]


def _argument(text: str) -> tuple[str, str | None]:
    """NAME=VALUE; a NAME alone has the value it has here, if any."""
    name, equals, value = text.partition("=")
    return name, value if equals else os.environ.get(name)


def _secret(text: str) -> tuple[str, bytes]:
    """ "id=NAME[,src=FILE|,env=VARIABLE]"; an id alone names a variable or else a file."""
    fields = dict(item.partition("=")[::2] for item in text.split(","))
    identity = fields.get("id", "")
    if not identity:
        raise UsageError(f"invalid --secret {text!r}: it is id=NAME[,src=FILE|,env=VARIABLE]")
    source = fields.get("src") or fields.get("source")
    variable = fields.get("env") or ("" if source else identity)
    if variable and variable in os.environ:
        return identity, os.environ[variable].encode("utf-8", "surrogateescape")
    if fields.get("env"):
        raise Invalid(f"secret {identity}: the variable {variable} is not set")
    return identity, _read(os.path.expanduser(source or identity))


def _agent(text: str, socket: str) -> tuple[str, str]:
    """ "NAME[=SOCKET]" """
    name, _, path = text.partition("=")
    path = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise Invalid("--ssh: no agent runs here.", remedy="Start one (ssh-agent), or give its socket: NAME=PATH.")
    if not socket:
        raise Invalid("--ssh needs a daemon on this host: an agent's socket is not sent over a network")
    return name or "default", os.path.realpath(path)


def prune(context: Context, options: Options, arguments: list[str]) -> None:
    """Remove what earlier builds have left for later ones."""
    gone = context.client.builds.prune(
        everything=options.all, filters=filters(options.filter), keep_bytes=options.keep_storage or 0
    )
    print(f"Total reclaimed space: {bytes_text(gone.get('SpaceReclaimed', 0))}")


BUILD = Command(
    summary="Build an image from a Dockerfile",
    usage="[OPTIONS] PATH|URL|-",
    run=build,
    flags=(
        many("add-host", "", "HOST:IP", "Add a line to /etc/hosts of every RUN"),
        many("build-arg", "", "NAME[=VALUE]", "Set an ARG of the Dockerfile"),
        many(
            "build-context", "", "NAME=VALUE", "What FROM NAME and --from=NAME mean: docker-image://…, URL, directory"
        ),
        many("cache-from", "", "image", "Trust an image to give results of steps it was made by"),
        option("cgroup-parent", "", "string", "Parent cgroup of every RUN"),
        switch("compress", "", "Accepted: a context on this host is faster as it is", hidden=True),
        option("cpu-period", "", "µs", "CFS period", convert=values.whole),
        option("cpu-quota", "", "µs", "CFS quota", convert=values.whole),
        option("cpu-shares", "c", "int", "CPU shares (relative weight)", convert=values.whole),
        option("cpuset-cpus", "", "list", "CPUs a RUN may use"),
        option("cpuset-mems", "", "list", "Memory nodes a RUN may use"),
        switch("disable-content-trust", "", "Skip image verification", default=True, hidden=True),
        option("file", "f", "file", "The Dockerfile (default: PATH/Dockerfile; -: standard input)", completes="file"),
        switch("force-rm", "", "Accepted: what a failed RUN leaves is always removed", hidden=True),
        option("iidfile", "", "file", "Write the image's id to a file", completes="file"),
        option("isolation", "", "string", "Wall of every RUN: container, vm", choices=("container", "vm")),
        many("label", "", "KEY[=VALUE]", "Set a label of the image"),
        option("memory", "m", "bytes", "Memory limit of every RUN", convert=size),
        option("memory-swap", "", "bytes", "Limit of memory and swap; -1: unlimited", convert=values.swap),
        option("network", "", "mode", "Network of every RUN: default, none, host or a name", completes="network"),
        switch("no-cache", "", "Carry out every step anew"),
        many("output", "o", "DEST", "Files of the result: DIRECTORY, - (a tar) or type=local|tar|docker|oci,dest=PATH"),
        option("platform", "", "string", "Platform (os/arch[/variant])"),
        switch("pull", "", "Ask the registry for newer base images"),
        switch("quiet", "q", "Print the image's id only"),
        switch("rm", "", "Remove what a RUN ran in", default=True, hidden=True),
        many("secret", "", "id=NAME[,src=FILE]", "A secret for RUN --mount=type=secret"),
        many("security-opt", "", "option", "Security options of every RUN"),
        option("shm-size", "", "bytes", "Size of /dev/shm", convert=size),
        switch("squash", "", "Make all new layers one"),
        many("ssh", "", "NAME[=SOCKET]", "An SSH agent for RUN --mount=type=ssh"),
        many("tag", "t", "NAME[:TAG]", "Name the image"),
        option("target", "", "stage", "Build this stage, and what it needs"),
        many("ulimit", "", "NAME=SOFT[:HARD]", "Resource limits of processes", convert=values.ulimit),
        switch("vm", "", "Run every RUN in a virtual machine: a stranger's Dockerfile never meets this host's kernel"),
    ),
    least=1,
    most=1,
    completes="file",
    examples=("enisle build -t app .", "enisle build --vm https://github.com/somebody/something.git#main:app"),
)
PRUNE = Command(
    summary="Remove what builds keep: results of steps, and caches",
    usage="[OPTIONS]",
    run=prune,
    flags=(
        switch("all", "a", "Forget also what images share"),
        many("filter", "", "NAME=VALUE", "Only what matches (until=24h, type=exec.cachemount, id=, inuse=, shared=)"),
        switch("force", "f", "Do not ask", hidden=True),
        option("keep-storage", "", "bytes", "Stop when no more than this is left", convert=size),
    ),
    most=0,
)
