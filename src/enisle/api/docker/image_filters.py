"""The filters of ``docker images`` and ``docker image prune``."""

from __future__ import annotations

import re
from collections.abc import Callable

from enisle.api.docker.list_filters import until
from enisle.api.query import Filters, flag_filter, labels_match
from enisle.api.times import SECOND_NS, to_seconds
from enisle.errors import Invalid
from enisle.model.image import Image

ACCEPTED = frozenset({"before", "dangling", "label", "reference", "since", "until"})
PRUNE_ACCEPTED = frozenset({"dangling", "label", "label!", "until"})
_MAX_STARS = 8  # more would make matching slow

Match = Callable[[Image], bool]


def matcher(filters: Filters, *, before: str = "", since: str = "") -> Match:
    """A test for one image. ``before`` and ``since`` are the creation times of the images that were named."""
    dangling = flag_filter(filters, "dangling")
    until_s = until(filters) // SECOND_NS
    before_s, since_s = to_seconds(before), to_seconds(since)
    patterns = [_reference_pattern(text) for text in filters.get("reference", [])]

    def match(image: Image) -> bool:
        created = to_seconds(image.created)
        return (
            (dangling is None or dangling is not bool(image.repo_tags))
            and labels_match(filters.get("label", []), image.config.labels)
            and (not until_s or created < until_s)
            and (not before or created < before_s)
            and (not since or created > since_s)
            and (not patterns or any(_fits(pattern, name) for pattern in patterns for name in _names(image)))
        )

    return match


def prune_matcher(filters: Filters) -> tuple[Match, bool]:
    """A test for images to prune; whether only those without a name are meant."""
    dangling = flag_filter(filters, "dangling")
    until_s = until(filters) // SECOND_NS
    wanted, unwanted = filters.get("label", []), filters.get("label!", [])

    def match(image: Image) -> bool:
        return (
            (not until_s or to_seconds(image.created) < until_s)
            and labels_match(wanted, image.config.labels)
            and not (unwanted and labels_match(unwanted, image.config.labels))
        )

    return match, dangling is not False


def _names(image: Image) -> list[str]:
    return [*image.repo_tags, *image.repo_digests]


def _fits(pattern: re.Pattern[str], name: str) -> bool:
    """The whole name, or the name without tag or digest."""
    repository = name.partition("@")[0]
    head, colon, tag = repository.rpartition(":")
    if colon and "/" not in tag:
        repository = head
    return pattern.fullmatch(name) is not None or pattern.fullmatch(repository) is not None


def _reference_pattern(text: str) -> re.Pattern[str]:
    """Go's path.Match: * and ? stop at slashes, [a-z] is a class."""
    if text.count("*") > _MAX_STARS or len(text) > 300:
        raise Invalid(f"invalid filter 'reference={text[:60]}': too many wildcards")
    parts = []
    for token in re.findall(r"\[[^\]/]+\]|.", text, re.DOTALL):
        if token == "*":
            parts.append("[^/]*")
        elif token == "?":
            parts.append("[^/]")
        elif len(token) > 1:
            parts.append("[" + re.escape(token[1:-1]).replace(r"\-", "-").replace(r"\^", "^") + "]")
        else:
            parts.append(re.escape(token))
    try:
        return re.compile("".join(parts))
    except re.error:
        raise Invalid(f"invalid filter 'reference={text[:60]}'") from None


def without_steps(images: list[Image]) -> list[Image]:
    """The images without those that are only a step on the way to another one."""
    parents = {image.parent for image in images}
    return [image for image in images if image.repo_tags or image.repo_digests or image.id not in parents]
