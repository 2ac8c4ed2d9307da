"""enisled in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from enisle.daemon import config as configuration
from enisle.daemon.listening import bind, bind_tcp
from enisle.daemon.notify import notify
from enisle.daemon.reloading import Reloader, level_of
from enisle.daemon.roots import held
from enisle.errors import EnisleError

if TYPE_CHECKING:
    from enisle.daemon.config import Config

STOP_TIMEOUT_S = 8.0

log = logging.getLogger("enisle.daemon")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 after SIGTERM or SIGINT, 1 when it could not start."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if "--version" in words:
        from enisle.daemon.version import version

        sys.stdout.write(f"enisled {version()}\n")
        return 0
    try:
        config = configuration.load(words)
        _set_up_log(config)
        with held(config.data_root, "data root", 0o700), held(config.run_root, "run root", 0o711):
            _run(config, lambda: configuration.load(words))
    except EnisleError as error:
        sys.stderr.write(f"enisled: {error}\n")
        return 1


def _set_up_log(config: Config) -> None:
    """Messages to stderr: with a time unless the journal, which has its own, takes them."""
    form = "%(levelname)s %(name)s: %(message)s"
    if not _stderr_is_journal():
        form = "%(asctime)s.%(msecs)03d " + form
    logging.basicConfig(level=level_of(config), format=form, datefmt="%Y-%m-%d %H:%M:%S", stream=sys.stderr)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)


def _stderr_is_journal() -> bool:
    return "JOURNAL_STREAM" in os.environ


def _run(config: Config, read: Callable[[], Config]) -> NoReturn:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop, debug=False) as runner:
        code = runner.run(_serve(config, read))
        logging.shutdown()
        # Everything is closed. Threads that still fetch or wait (a guest kernel on its way) are not waited for: what
        # they leave behind is removed by whoever does the same work next.
        os._exit(code)


async def _serve(config: Config, read: Callable[[], Config]) -> int:
    """Open the engine, serve clients until a signal says to stop, let go of everything."""
    from enisle.api.app import make_app
    from enisle.api.server import serve
    from enisle.api.tls import TlsFiles
    from enisle.build.builder import Builder
    from enisle.daemon.wiring import opened
    from enisle.images.platforms import host_platform

    began = time.monotonic()
    stop = _stop_event()
    async with opened(config) as wired:
        builder = Builder(
            wired.engine,
            data_root=config.data_root,
            run_root=config.run_root,
            host=host_platform(),
            limit_bytes=config.build.cache_bytes,
        )
        await builder.open()
        Reloader(config, wired, builder, read).listen()
        tcp = [bind_tcp(address) for address in config.api.listen]
        sock = bind(config.socket_path, config.group)
        app = make_app(wired.engine, builder)
        serving = await serve(app, [sock])
        for each in tcp:
            files = TlsFiles(ca=config.api.ca, certificate=config.api.certificate, key=config.api.key)
            await serving.listen_tls(each, files)
        where = ", ".join([str(config.socket_path), *config.api.listen])
        log.info("ready in %.0f ms: listening on %s", (time.monotonic() - began) * 1000, where)
        notify("READY=1")
        await stop.wait()
        notify("STOPPING=1")
        log.info("stopping; what runs goes on running")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(app.close(), serving.close()), STOP_TIMEOUT_S / 2)
        with contextlib.suppress(FileNotFoundError):
            config.socket_path.unlink()
    return 0


def _stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # too early: the settings have just been read
    return stop


if __name__ == "__main__":
    sys.exit(main())
