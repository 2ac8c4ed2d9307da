"""What the client of a build asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from enisle.build.client import Client
from enisle.contracts import RegistryAuth
from enisle.model.image import Platform
from enisle.model.resources import Resources, Ulimit


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildOptions:
    """``remote``: a URL or git repository in the place of the context sent. ``arguments``: None is "not given".

    ``runtime`` "vm": every RUN has a virtual machine of its own. ``secrets``: by id, never stored, never part of a
    key. ``ssh``: paths of agents' sockets on this host, by id. ``credentials``: by registry. ``cache_from``: images
    that are trusted to give results of steps; with ``also_own_cache`` what this engine has built counts, too.
    ``no_cache_stages``: only these are built anew. ``contexts``: named ones, see :mod:`enisle.build.named_contexts`.
    ``client`` is asked for what is not given here. ``keep``: the result is an image that somebody wants, not only a
    step on the way to something else.
    """

    dockerfile: str = ""
    remote: str = ""
    names: tuple[str, ...] = ()
    target: str = ""
    arguments: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    no_cache_stages: tuple[str, ...] = ()
    pull: bool = False
    squash: bool = False
    quiet: bool = False
    remove: bool = True
    force_remove: bool = False
    platform: Platform | None = None
    runtime: str = ""
    network_mode: str = ""
    extra_hosts: tuple[str, ...] = ()
    shm_size_bytes: int = 0
    resources: Resources = field(default_factory=Resources)
    ulimits: tuple[Ulimit, ...] = ()
    security_options: tuple[str, ...] = ()
    cgroup_parent: str = ""
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    ssh: Mapping[str, str] = field(default_factory=dict)
    cache_from: tuple[str, ...] = ()
    also_own_cache: bool = False
    contexts: Mapping[str, str] = field(default_factory=dict)
    client: Client | None = None
    keep: bool = True
    credentials: Mapping[str, RegistryAuth] = field(default_factory=dict, repr=False)
