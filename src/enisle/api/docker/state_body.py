"""The state of an instance in Docker's words."""

from __future__ import annotations

from typing import Any

from enisle.api.times import SECOND_NS, human_duration, rfc3339
from enisle.model.instance import ALIVE, Health, HealthStatus, Instance, InstanceState, Status


def status_text(instance: Instance, now_ns: int) -> str:
    """The STATUS column of ``docker ps``: "Up 5 seconds (healthy)", "Exited (0) 2 minutes ago", "Created"."""
    state = instance.state
    since_start = human_duration((now_ns - state.started_at) / SECOND_NS)
    since_end = human_duration((now_ns - state.finished_at) / SECOND_NS)
    if state.status is Status.PAUSED:
        return f"Up {since_start} (Paused)"
    if state.status is Status.RESTARTING:
        return f"Restarting ({state.exit_code}) {since_end} ago"
    if state.status is Status.RUNNING:
        return f"Up {since_start}{_health_words(state.health)}"
    if state.status is Status.REMOVING:
        return "Removal In Progress"
    if state.status is Status.DEAD:
        return "Dead"
    if state.status is Status.CREATED or not state.finished_at:
        return "Created"
    return f"Exited ({state.exit_code}) {since_end} ago"


def _health_words(health: Health | None) -> str:
    if health is None or health.status is HealthStatus.NONE:
        return ""
    return " (health: starting)" if health.status is HealthStatus.STARTING else f" ({health.status})"


def state_json(state: InstanceState) -> dict[str, Any]:
    """State of inspect."""
    result: dict[str, Any] = {
        "Status": str(state.status),
        "Running": state.status in ALIVE,
        "Paused": state.status is Status.PAUSED,
        "Restarting": state.status is Status.RESTARTING,
        "OOMKilled": state.oom_killed,
        "Dead": state.status is Status.DEAD,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": rfc3339(state.started_at),
        "FinishedAt": rfc3339(state.finished_at),
    }
    if state.health is not None:
        result["Health"] = {
            "Status": str(state.health.status),
            "FailingStreak": state.health.failing_streak,
            "Log": [
                {
                    "Start": rfc3339(entry.started_at),
                    "End": rfc3339(entry.ended_at),
                    "ExitCode": entry.exit_code,
                    "Output": entry.output,
                }
                for entry in state.health.log
            ],
        }
    return result
