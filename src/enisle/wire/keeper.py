"""The keeper's protocol: the same operations for both walls.

A keeper listens on ``<run>/instances/<id[:16]>/keeper.sock`` (stream). Every connection carries frames
(:mod:`enisle.wire.frames`). A request is ``{"id": n, "op": name, ...}``; its answer is ``{"id": n, "ok": {...}}`` or
``{"id": n, "error": {"kind": ..., "message": ..., "exit_code": ...}}``. Requests of one connection may be answered out
of order. After ``watch`` the keeper also sends events ``{"event": name, ...}`` on that connection.

Operation, its fields -> the answer's fields
  start {"wall": "container"|"oci"|"vm", "plan": {...}, "files_only": bool, and the fields of ``relay``}
                                             fds: reserved port sockets, held until the instance ends. files_only: the
                                             root is mounted (a helper VM booted) for ``files``, nothing is run
                                          -> {"pid": int, "started_at": ns, "warnings": [str]}   once exec'd
                                          error kinds with exit_code 126/127/128 as StartFailed
  hold {}; fds: more of ``start``'s           -> {}   before ``start``, which takes as many as a frame does
  watch {}                                -> {"state": status} then events
  status {}                               -> status (below)
  attach {"stdin","stdout","stderr": bool, "detach_keys": str, "framed": bool, "initial": base64,
          "logs": bool}; fds: [conn]      -> {}   conn is the client's own connection: the keeper owns it from here,
                                             reads stdin from it, writes output to it (``framed``: Docker's 8-byte
                                             stdout/stderr headers; else raw), half-close on it is end of stdin
  exec  {"exec_id", "process": ProcessPlan, "stdin","stdout","stderr","framed","detach_keys","initial"}; fds: [conn]
        or none (detached)                -> {"pid": int} once exec'd; errors as start, nothing was written to conn
  resize {"exec_id": ""|id, "rows", "columns"} -> {}
  signal {"exec_id": ""|id, "signal": int, "all": bool} -> {}
  pause {} / unpause {}                   -> {}
  stats {}                                -> see ``Stats``
  top   {"ps_args": str}                  -> {"titles": [...], "processes": [[...]]}
  update {"limits": LimitsPlan}           -> {}
  files {"verb": "stat"|"get"|"put"|"changes"|"export"|"upper", "path", ...}; fds: [pipe] -> {...}  see archive
  nic_add {"nic": NicPlan} / nic_remove {"name"} -> {}
  relay {"relays": [[host's address, port, target's address, port]], "datagram_relays": as those} -> {}
                                             what comes to those port sockets is passed on (TCP, UDP); ``start`` says
                                             which sockets listen at all
  health...: an exec whose output the engine collects over a socketpair
  stop  {}                                -> {}   keeper ends at once (after files-only use)

Events
  {"event": "exit", "exit_code", "oom_killed", "error", "finished_at": ns}
  {"event": "exec_exit", "exec_id", "exit_code"}
  {"event": "oom"}
  {"event": "paused"} {"event": "unpaused"} {"event": "terminal_detached"}

status = {"state": "created"|"starting"|"running"|"paused"|"exited"|"files", "pid", "started_at", "finished_at",
          "exit_code", "oom_killed", "error", "execs": [{"exec_id", "pid", "running", "exit_code"}], "warnings": [str],
          "generation"}

After the main process ended and its output was drained the keeper writes ``exit_file`` (JSON: exit_code, oom_killed,
error, started_at, finished_at; temp file + rename), kills what is left, removes cgroups and its run directory, sends
``exit`` to every watcher and ends. A watcher that sees the connection close without ``exit`` reads ``exit_file``.
Times are nanoseconds since the epoch.

The launcher's protocol, on the one connection enisled holds (socketpair or ``<run>/launcher.sock``):
  launch {"instance": id, "run_dir": path} ; fds: [conn] -> {"pid": keeper's pid}; conn is the keeper's first
                                             connection, so that no connect is needed on the hot path
  ping {} -> {"pid", "generation"}
"""

from __future__ import annotations

from dataclasses import dataclass, field

SOCKET_NAME = "keeper.sock"
STATUS_NAME = "keeper.json"


@dataclass(slots=True, kw_only=True)
class Stats:
    """One reading of what an instance uses. Bytes, nanoseconds, counts since start."""

    read_at: int
    cpu_total_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    cpu_percpu_ns: list[int] = field(default_factory=list)
    throttled_periods: int = 0
    periods: int = 0
    throttled_ns: int = 0
    memory_bytes: int = 0
    memory_max_bytes: int = 0
    memory_limit_bytes: int = 0
    memory_stats: dict[str, int] = field(default_factory=dict)
    pids: int = 0
    pids_limit: int = 0
    block_read_bytes: int = 0
    block_write_bytes: int = 0
    block_io: list[list[int | str]] = field(default_factory=list)  # [major, minor, op, bytes]
    nics: dict[str, dict[str, int]] = field(default_factory=dict)  # name -> rx_bytes, rx_packets, rx_errors, ...
