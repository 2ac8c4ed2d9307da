"""From a recipe to a root file system."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from enisle.cleanup import to_the_end
from enisle.contracts import Progress
from enisle.images.bootstrap.built import Built
from enisle.images.bootstrap.busybox import busybox
from enisle.images.bootstrap.debian import debian
from enisle.images.bootstrap.recipes import Recipe
from enisle.images.layers import remove_tree


@asynccontextmanager
async def built(recipe: Recipe, scratch: Path, progress: Progress) -> AsyncIterator[Built]:
    """Make it, below the directory ``scratch``. A failure to build is raised at the end of the stream."""
    work = Path(tempfile.mkdtemp(prefix="bootstrap-", dir=scratch))
    try:
        if recipe.suite is None:
            yield await busybox(work, progress)
        else:
            async with debian(recipe.suite, work, progress) as image:
                yield image
    finally:
        await to_the_end(asyncio.to_thread(remove_tree, work))
