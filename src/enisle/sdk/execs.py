"""Requests about processes run inside an instance besides its main one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enisle.sdk.request import Request, as_json, nothing, segment

if TYPE_CHECKING:
    from enisle.sdk.types import Created, ExecDetails


def create(ref: str, body: dict[str, Any]) -> Request[Created]:
    """A session, not started; ``body`` as Docker's ExecConfig."""
    return Request("POST", f"/containers/{segment(ref)}/exec", json_body=body, parse=as_json)


def start(exec_id: str, *, tty: bool, console_size: tuple[int, int] | None = None) -> Request[None]:
    """Start it and become its streams. ``console_size``: rows, columns."""
    body: dict[str, Any] = {"Detach": False, "Tty": tty}
    if tty and console_size:
        body["ConsoleSize"] = list(console_size)
    return Request("POST", f"/exec/{segment(exec_id)}/start", json_body=body, parse=nothing)


def start_detached(exec_id: str, *, tty: bool = False) -> Request[None]:
    """Start it and leave it alone."""
    return Request("POST", f"/exec/{segment(exec_id)}/start", json_body={"Detach": True, "Tty": tty}, parse=nothing)


def get(exec_id: str) -> Request[ExecDetails]:
    """What became of it."""
    return Request("GET", f"/exec/{segment(exec_id)}/json", parse=as_json)


def resize(exec_id: str, *, rows: int, columns: int) -> Request[None]:
    """Tell its terminal its size."""
    return Request("POST", f"/exec/{segment(exec_id)}/resize", query={"h": rows, "w": columns}, parse=nothing)
