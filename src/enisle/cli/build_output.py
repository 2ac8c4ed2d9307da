"""``enisle build --output``: the files of the result as a directory or a tar, or the image as an archive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from enisle.archive.reader import TarReader
from enisle.cli.archive_output import open_output, write_all
from enisle.cli.flags import UsageError
from enisle.cli.unpacking import Source, unpack
from enisle.errors import Invalid
from enisle.sdk.client import Client

_KINDS = ("local", "tar", "docker", "oci", "image")
_USAGE = "it is DIRECTORY, - or type=local|tar|docker|oci|image[,dest=PATH][,tar=false]"


class Output(NamedTuple):
    """``kind``: local (a directory), tar, docker (an archive that ``load`` takes), oci (the same archive, which is an
    OCI image layout), image (it stays in the engine).

    ``path`` "-": standard output. ``unpacked``: a directory instead of an archive.
    """

    kind: str
    path: str
    unpacked: bool = False

    @property
    def needs_name(self) -> bool:
        """Whether the image itself is what is wanted."""
        return self.kind in ("docker", "oci", "image")


def parse(text: str) -> Output:
    """What follows --output."""
    if "=" not in text:
        return Output("tar", "-") if text == "-" else Output("local", text, unpacked=True)
    fields = dict(item.partition("=")[::2] for item in text.split(","))
    kind, path = fields.pop("type", ""), fields.pop("dest", "")
    archive = fields.pop("tar", "true").lower()
    if fields or kind not in _KINDS or archive not in ("true", "false") or (archive == "false" and kind != "oci"):
        raise UsageError(f"invalid --output {text!r}: {_USAGE}")
    if kind == "docker" and not path:
        kind = "image"
    unpacked = kind == "local" or archive == "false"
    if unpacked and path in ("", "-"):
        raise UsageError(f"invalid --output {text!r}: type={kind} needs dest=DIRECTORY")
    return Output(kind, path or "-", unpacked)


def deliver(client: Client, output: Output, image: str, names: tuple[str, ...]) -> None:
    """Put the image's files where they are wanted."""
    if output.kind == "image":
        return
    opened = client.images.open_save(names or (image,)) if output.needs_name else client.images.open_files(image)
    with opened as exchange:
        if output.unpacked:
            _unpack(iter(exchange), output.path)
        else:
            with open_output(output.path) as descriptor:
                write_all(exchange, descriptor)


def _unpack(pieces: Iterator[bytes], directory: str) -> None:
    """Unpack into a directory, made if need be. Everything is ours unless we are root."""
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise Invalid(f"{directory} is no directory to write to: {error.strerror}.") from error
    owner = None if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    unpack(TarReader(Source(pieces)), directory, owner=owner, what="The output")
