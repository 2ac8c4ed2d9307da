"""What a recipe gives, and the surroundings its tools run in."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

from enisle.model.image import ImageConfig

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A root file system as a tar stream, and what goes into the image's config and history."""

    stream: AsyncIterator[bytes]
    config: ImageConfig
    created_by: str
    created: str  # RFC 3339; of the ingredients, so that equal images are equal


def proxies() -> dict[str, str]:
    """The settings of this process that tools need to reach package mirrors."""
    names = ("http_proxy", "https_proxy", "no_proxy", "APT_CONFIG")
    return {name: os.environ[name] for name in names if name in os.environ}
