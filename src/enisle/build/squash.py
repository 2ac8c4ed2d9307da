"""Many layers as one: what an image has over another, read from the unpacked layers."""

from __future__ import annotations

from collections.abc import Iterator

from enisle.archive.entry import Entry, FileKind
from enisle.archive.writer import TarWriter
from enisle.build.layer_plan import Sink
from enisle.build.tree import Node, Path, Tree


def merged(whole: Tree, base: Tree, own_layers: int) -> Iterator[bytes]:
    """A layer's tar with all that ``whole`` has over ``base``. ``own_layers``: how many of its layers base lacks."""
    sink = Sink()
    writer = TarWriter(sink)
    written: dict[object, bytes] = {}
    waiting: list[Path] = [()]
    while waiting:
        path = waiting.pop()
        for name in sorted({*whole.names(path), *base.names(path)}):
            place = (*path, name)
            node = whole.look(place)
            if node is None:
                writer.add(Entry(name=b"/".join((*path, b".wh." + name)), mode=0))
            elif node.layer < own_layers:
                for _ in writer.adding(_entry(whole, place, node, written), _content(whole, place, node)):
                    yield from sink.taken()
            if node is not None and node.is_directory:
                waiting.append(place)
        yield from sink.taken()
    writer.close()
    yield from sink.taken()


def _entry(tree: Tree, path: Path, node: Node, written: dict[object, bytes]) -> Entry:
    name = b"/".join(path)
    first = written.setdefault(node.key, name) if node.kind is FileKind.REGULAR else name
    if first != name:
        return Entry(name=name, kind=FileKind.HARD_LINK, target=first, mode=node.mode, uid=node.uid, gid=node.gid)
    return Entry(
        name=name,
        kind=node.kind,
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        size=node.size if node.kind is FileKind.REGULAR else 0,
        mtime_ns=node.mtime_ns,
        target=node.target,
        device=node.device,
        xattrs=tree.xattrs(path, node),
    )


def _content(tree: Tree, path: Path, node: Node) -> Iterator[bytes]:
    return tree.content(path, node) if node.kind is FileKind.REGULAR else iter(())
