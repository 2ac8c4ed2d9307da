"""All files of an image as one tar, as a container would see them; nothing is mounted or started."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from enisle.build import squash
from enisle.build.layer_plan import threaded
from enisle.build.layer_tree import LayerTree
from enisle.build.tree import EmptyTree
from enisle.engine.images import Images


@asynccontextmanager
async def image_files(images: Images, reference: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """The tar's pieces. NotFound: "No such image: …". The image stays as long as it is read."""
    image = await images.get(reference)
    images.hold(image.id)
    try:
        tree = await asyncio.to_thread(LayerTree, await images.layers(image.id))
        try:
            yield threaded(squash.merged(tree, EmptyTree(), len(image.diff_ids)))
        finally:
            tree.close()
    finally:
        images.release(image.id)
