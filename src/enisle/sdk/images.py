"""Requests about images. Those that take long answer with JSON objects of progress."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from enisle.sdk.credentials import Credentials
from enisle.sdk.request import Body, Request, as_json, image_segment

if TYPE_CHECKING:
    from enisle.sdk.types import HistoryLine, ImageSummary, Pruned, Removal

Filters = dict[str, list[str]]


def split_reference(reference: str) -> tuple[str, str]:
    """Repository and tag (or digest); the tag is "" where the reference has none.

    ``host:5000/a/b:1`` is ("host:5000/a/b", "1"); ``a@sha256:…`` is ("a", "sha256:…").
    """
    name, found, digest = reference.partition("@")
    if found:
        repository, tag = split_reference(name)
        return repository, digest or tag
    head, slash, last = reference.rpartition("/")
    base, _, tag = last.partition(":")
    return head + slash + base, tag


def platform_document(text: str) -> str | None:
    """os/architecture[/variant] (or an architecture alone) as the JSON that Docker's API wants; None for ""."""
    if not text:
        return None
    parts = text.split("/") if "/" in text else ["linux", text]
    return json.dumps(dict(zip(("os", "architecture", "variant"), parts, strict=False)))


def _auth(credentials: Credentials | None) -> dict[str, str]:
    return {"X-Registry-Auth": credentials.header()} if credentials else {}


def list_all(
    *, everything: bool = False, filters: Filters | None = None, digests: bool = False
) -> Request[list[ImageSummary]]:
    """All images with a name; with ``everything`` also intermediate ones."""
    query = {"all": everything or None, "filters": filters or None, "digests": digests or None}
    return Request("GET", "/images/json", query=query, parse=as_json)


def get(reference: str, *, platform: str = "") -> Request[dict[str, Any]]:
    """Everything about one image, by name, digest, id or unique prefix; or about its sibling for a platform."""
    query = {"platform": platform_document(platform)}
    return Request("GET", f"/images/{image_segment(reference)}/json", query=query, parse=as_json)


def history(reference: str, *, platform: str = "") -> Request[list[HistoryLine]]:
    """How it was made, newest step first."""
    query = {"platform": platform_document(platform)}
    return Request("GET", f"/images/{image_segment(reference)}/history", query=query, parse=as_json)


def tag(reference: str, *, repository: str, tag: str = "") -> Request[None]:
    """Give it another name."""
    query = {"repo": repository, "tag": tag or None}
    return Request("POST", f"/images/{image_segment(reference)}/tag", query=query, parse=lambda reply: None)


def remove(reference: str, *, force: bool = False, no_prune: bool = False) -> Request[list[Removal]]:
    """Drop a name and, with the last one, the image."""
    query = {"force": force or None, "noprune": no_prune or None}
    return Request("DELETE", f"/images/{image_segment(reference)}", query=query, parse=as_json)


def prune(*, filters: Filters | None = None) -> Request[Pruned]:
    """Remove images nobody uses: nameless ones, or with the filter dangling=false all."""
    return Request("POST", "/images/prune", query={"filters": filters or None}, parse=as_json)


def pull(reference: str, *, platform: str = "", credentials: Credentials | None = None) -> Request[Any]:
    """Fetch from a registry; ``latest`` when the reference has neither tag nor digest."""
    repository, tag_or_digest = split_reference(reference)
    query = {"fromImage": repository, "tag": tag_or_digest or "latest", "platform": platform or None}
    return Request("POST", "/images/create", query=query, headers=_auth(credentials), parse=as_json)


def pull_all(repository: str, *, platform: str = "", credentials: Credentials | None = None) -> Request[Any]:
    """Fetch every tag of a repository."""
    query = {"fromImage": repository, "platform": platform or None}
    return Request("POST", "/images/create", query=query, headers=_auth(credentials), parse=as_json)


def push(
    reference: str, *, every_tag: bool = False, platform: str = "", credentials: Credentials | None = None
) -> Request[Any]:
    """Send to the registry that the reference names; with a platform that one alone."""
    repository, tag_or_digest = split_reference(reference)
    query = {"tag": None if every_tag else tag_or_digest or "latest", "platform": platform_document(platform)}
    # A registry that needs no credentials still needs the header: Docker's API refuses a push without it.
    headers = _auth(credentials or Credentials())
    return Request("POST", f"/images/{image_segment(repository)}/push", query=query, headers=headers, parse=as_json)


def load(body: Body, *, quiet: bool = False) -> Request[Any]:
    """Take in an archive that ``save`` or docker save has made."""
    headers = {"Content-Type": "application/x-tar"}
    return Request("POST", "/images/load", query={"quiet": quiet}, headers=headers, body=body, parse=as_json)


def save(references: tuple[str, ...]) -> Request[bytes]:
    """One tar of all these images."""
    return Request("GET", "/images/get", query={"names": references}, parse=lambda reply: reply.body)


def files(reference: str) -> Request[bytes]:
    """One tar of all files of an image, as a container would see them."""
    path = f"/enisle/v1/images/{image_segment(reference)}/files"
    return Request("GET", path, parse=lambda reply: reply.body, native=True)


def import_tar(
    body: Body,
    *,
    source: str = "-",
    repository: str = "",
    tag: str = "",
    message: str = "",
    changes: tuple[str, ...] = (),
    platform: str = "",
) -> Request[Any]:
    """An image of one layer from a tar of a root file system. ``source`` "-" is the body, else a URL."""
    query = {
        "fromSrc": source,
        "repo": repository or None,
        "tag": tag or None,
        "message": message or None,
        "changes": changes or None,
        "platform": platform or None,
    }
    headers = {"Content-Type": "application/x-tar"}
    return Request("POST", "/images/create", query=query, headers=headers, body=body, parse=as_json)


def bootstrap(name: str) -> Request[Any]:
    """Make debian:12, debian:13 or busybox from the distribution's packages on the daemon's host."""
    return Request("POST", "/enisle/v1/images/bootstrap", json_body={"name": name}, parse=as_json, native=True)
