"""What enisled and the volume keeper say to each other, over frames on ``<run_root>/volumes.sock``.

hello {} -> {pid, generation, mounted: [key]}; quit {}
mount {key, filesystem, source, options: [mount(8) word], size} -> {place, pid}: ``filesystem`` "image" is an ext4 in
the file ``source``, grown to ``size`` bytes if smaller. The place is below the keeper's own /, as /proc/PID/root shows.
unmount {key}
pack {path, fds: 1}: a tar of the directory, written to the descriptor. unpack {path, fds: 1}: the reverse.
copy {source, target}: all below one directory into another, which is empty. remove {path}: a tree of any depth
limit {path, size}, unlimit {path}: project quotas. Paths are as the keeper sees them.
Standard library only.
"""

from __future__ import annotations

GENERATION = 1
SOCKET_NAME = "volumes.sock"
PLACE = "volumes"
