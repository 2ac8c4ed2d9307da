"""Who a file server is: root of a user namespace, and on the host a user of its own who owns nothing.

A server has to act as whoever asks inside the VM, for files of any owner. In a user namespace it can, for the ids that
are mapped there, and has no right outside. All ids but root's are mapped to themselves, so that owners stay what they
are; root becomes the server's own user, and the share is mounted so that root's files appear as that user's. A share
that cannot be mounted so (its file system has no idmapped mounts) is served by root of a namespace in which root is the
host's root: still without any capability towards the host.
"""

from __future__ import annotations

import os

from enisle.linux import mounts, user_namespace

_FIRST_UID, _LAST_UID = 1_900_000_000, 2_100_000_000  # what drivers.vm.plan takes identities from
_OFFSET = 100_000_000
_NO_ID = 0xFFFFFFFF


def ids_of(uid: int) -> list[tuple[int, int, int]]:
    """The map of a namespace whose root is ``uid``; our own identities are nobody's there."""
    return [(0, uid, 1), (1, 1, _FIRST_UID - 1), (_LAST_UID, _LAST_UID, _NO_ID - _LAST_UID)]


class Identity:
    """The namespaces of one VM's file servers, made when first needed. ``uid``: QEMU's; 0 for none but root."""

    def __init__(self, uid: int) -> None:
        self._uid = uid
        self._made: dict[int, int | None] = {}

    def namespace_for(self, source: int, *, recursive: bool) -> int | None:
        """A descriptor of the namespace to serve that detached mount from; None: this host has none to give."""
        if not self._uid:
            return None
        own = self._namespace(self._uid + _OFFSET)
        if own is None:
            return None
        try:
            mounts.map_ids(source, own, recursive=recursive)
        except OSError:
            return self._namespace(0)
        return own

    def unmapped_namespace(self) -> int | None:
        """As ``namespace_for``, for a share whose file system has no idmapped mounts (overlayfs)."""
        return self._namespace(0) if self._uid else None

    def close(self) -> None:
        """Close the descriptors; the namespaces live on in who is in them."""
        for descriptor in self._made.values():
            if descriptor is not None:
                os.close(descriptor)
        self._made.clear()

    def _namespace(self, root: int) -> int | None:
        if root not in self._made:
            try:
                self._made[root] = user_namespace.make(ids_of(root) if root else [(0, 0, _NO_ID)])
            except OSError:
                self._made[root] = None
        return self._made[root]
