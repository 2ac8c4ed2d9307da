"""Fixtures shared by all tests that use a real enisled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.daemon import RECORDER, RUNTIMES, Daemon, dispose, image_archive, new_daemon, use_guest_cache

# How fast this machine draws examples says something about the machine, not about us.
settings.register_profile("any-machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


@pytest.fixture(autouse=True)
def _answers_fit_the_contract() -> Iterator[None]:
    """Every answer of an enisled that a test has started is as Docker's description of its API says."""
    yield
    faults = RECORDER.take_faults()
    assert not faults, "\n".join(dict.fromkeys(faults))


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    """One enisled per test process, with busybox loaded; tests name their instances apart and remove them."""
    archive = image_archive("busybox")
    made = new_daemon(extra_config=RUNTIMES)
    use_guest_cache(made)
    made.start()
    made.docker("load", "-q", "-i", str(archive))
    yield made
    dispose(made)


@pytest.fixture
def own_daemon() -> Iterator[Daemon]:
    """An enisled of the test's own, with busybox loaded, to be killed and restarted at will."""
    archive = image_archive("busybox")
    made = new_daemon(prefix="o", extra_config=RUNTIMES)
    use_guest_cache(made)
    made.start()
    made.docker("load", "-q", "-i", str(archive))
    yield made
    dispose(made)
