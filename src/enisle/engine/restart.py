"""When an ended instance is started again by itself, and after how long. Pure (Docker's rules)."""

from __future__ import annotations

from enisle.model.instance import InstanceSpec, RestartKind, RestartPolicy

BACKOFF_FIRST_S = 0.1
BACKOFF_MOST_S = 60.0
STEADY_S = 10.0
"""An instance that ran for this long begins anew with the first backoff."""

UNHEALTHY_LABEL = "enisle.restart"
"""With the value "unhealthy" it adds to any policy that an instance whose health check fails is ended and restarted."""


def should_restart(policy: RestartPolicy, *, exit_code: int, manually_stopped: bool, restart_count: int) -> bool:
    """After an exit while enisled runs. A stop by the user ends every policy until the next start."""
    if manually_stopped:
        return False
    return _applies(policy, exit_code, restart_count)


def should_start_on_boot(policy: RestartPolicy, *, exit_code: int, manually_stopped: bool, restart_count: int) -> bool:
    """For an instance that is found ended when enisled starts: "always" forgets that the user stopped it."""
    if manually_stopped and policy.kind is not RestartKind.ALWAYS:
        return False
    return _applies(policy, exit_code, restart_count)


def ends_unhealthy(spec: InstanceSpec, *, restart_count: int) -> bool:
    """Whether it is to be ended, and started again, when its health check fails."""
    if spec.restart.kind is RestartKind.UNHEALTHY:
        return not spec.restart.maximum_retries or restart_count < spec.restart.maximum_retries
    return spec.labels.get(UNHEALTHY_LABEL) == "unhealthy" and not spec.auto_remove


def _applies(policy: RestartPolicy, exit_code: int, restart_count: int) -> bool:
    if policy.kind is RestartKind.NO:
        return False
    if policy.kind in (RestartKind.ALWAYS, RestartKind.UNLESS_STOPPED):
        return True
    if policy.maximum_retries and restart_count >= policy.maximum_retries:
        return False
    return exit_code != 0


def backoff_s(attempts: int) -> float:
    """Seconds to wait before the restart that follows ``attempts`` quick ones."""
    return min(BACKOFF_FIRST_S * 2.0 ** min(attempts, 20), BACKOFF_MOST_S)
