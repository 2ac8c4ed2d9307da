"""Whether KVM works here: shown by booting the guest's kernel under it, once per host kernel, QEMU and guest.

A /dev/kvm that opens is no proof: under some hypervisors an ordinary kernel never gets past its first instructions.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress
from pathlib import Path
from typing import Any

import enisle
from enisle.drivers.vm.plan import FIRST_UID
from enisle.guest.build import Guest

_LIMIT_S = 8.0
_MARGIN_S = 10.0
_TRIAL = 2  # raised when the trial is another, so that it is made again
_FILE = "kvm.json"
_DEVICE = "/dev/kvm"

log = logging.getLogger(__name__)


async def works(directory: Path, guest: Guest, qemu: str) -> tuple[bool, str]:
    """(verdict, why), from the cache under ``directory`` or by trying it, which takes up to some seconds."""
    key = _key(guest, qemu)
    known = _read(directory / _FILE)
    if known.get("key") == key:
        return bool(known.get("works")), str(known.get("why", ""))
    works, why = await _try(guest, qemu) if os.path.exists(_DEVICE) else (False, f"there is no {_DEVICE}")
    log.info("KVM: %s", why) if works else log.warning("KVM is not used, virtual machines are emulated: %s", why)
    _write(directory / _FILE, {"key": key, "works": works, "why": why})
    return works, why


def _key(guest: Guest, qemu: str) -> str:
    try:
        status = os.stat(qemu)
        program = f"{status.st_size} {status.st_mtime_ns}"
    except OSError:
        program = "none"
    return f"{os.uname().release} {guest.version} {program} {os.path.exists(_DEVICE)} {_TRIAL}"


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _write(path: Path, values: dict[str, Any]) -> None:
    with suppress(OSError):
        handle, name = tempfile.mkstemp(prefix="making-kvm-", dir=path.parent)
        with open(handle, "w", encoding="utf-8") as target:
            json.dump(values, target)
        os.rename(name, path)


async def _try(guest: Guest, qemu: str) -> tuple[bool, str]:
    """By the program that starts QEMU as keepers do; when this is cancelled, it ends, and its QEMU with it."""
    program = Path(enisle.__file__ or "").parent / "launcher" / "vm" / "trial.py"
    wanted = {
        "qemu": qemu,
        "kernel": str(guest.kernel.resolve()),
        "initramfs": str(guest.initramfs.resolve()),
        "uid": FIRST_UID,
        "limit_s": _LIMIT_S,
    }
    words = [sys.executable, "-I", "-S", str(program), json.dumps(wanted)]
    process = await asyncio.create_subprocess_exec(*words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, cwd="/")
    try:
        async with asyncio.timeout(_LIMIT_S + _MARGIN_S):
            said, complaint = await process.communicate()
        verdict = json.loads(said)
        return bool(verdict["works"]), str(verdict["why"])
    except TimeoutError:
        return False, "the trial of KVM did not end"
    except (ValueError, KeyError, TypeError):
        return False, f"the trial of KVM failed: {complaint.decode('utf-8', 'replace')[-200:].strip()}"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
