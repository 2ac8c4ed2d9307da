"""What :mod:`enisle.doctor.trial` found about one thing, as a line of the report."""

from __future__ import annotations

from enisle.contracts import HostCapability


def attempted(
    key: str, trial: dict[str, str], *, fine: str, remedy: str, wall: str = "", name: str = ""
) -> HostCapability:
    """``fine`` is the detail when it worked; ``name`` the line's if it is not ``key``."""
    reason = trial.get(key)
    if reason is None:
        return HostCapability(name=name or key, ok=False, detail="not tried: it takes root", wall=wall, tried=False)
    return HostCapability(
        name=name or key, ok=not reason, detail=reason or fine, remedy=remedy if reason else "", wall=wall
    )
