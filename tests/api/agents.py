"""SSH agents for tests: one that has no keys, and a program that asks it for them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AGENT = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    while connection.recv(100):
        connection.sendall(bytes([0, 0, 0, 5, 12, 0, 0, 0, 0]))  # SSH_AGENT_IDENTITIES_ANSWER: none
    connection.close()
"""

ASK = r"""
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int count, char **words) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char answer[100];
    strncpy(address.sun_path, words[count - 1], sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) || write(fd, "\0\0\0\1\013", 5) != 5) return 1;
    ssize_t size = read(fd, answer, sizeof answer);
    return size < 0 || write(1, answer, size) != size;
}
"""


@contextmanager
def agent(path: Path) -> Iterator[Path]:
    """An agent's socket."""
    with subprocess.Popen([sys.executable, "-c", _AGENT, str(path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield path
        finally:
            process.kill()
