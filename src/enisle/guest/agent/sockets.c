/* Sockets of the host: the workload finds one of ours at the same place, and what connects to it is passed on.
 *
 * The host asks for one connection at a time (ACCEPT), so it decides how many there may be; the call's process waits for
 * it, says so by a NUL, and is then the connection: its standard input and output are the two directions. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

enum { BACKLOG = 64, LISTENER = 3, CONNECTION = 4 };

static int listeners[MAX_SOCKETS];
static uint32_t listener_count;

/* Where it is bound does not matter: its inode is mounted at the target. */
static int listen_at(const char *place, const char *attributes)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    unsigned uid, gid, mode;
    if (sscanf(attributes, "uid=%u,gid=%u,mode=%o", &uid, &gid, &mode) != 3) {
        errno = EINVAL;
        return -1;
    }
    snprintf(address.sun_path, sizeof address.sun_path, "%s", place);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && !bind(fd, (struct sockaddr *)&address, sizeof address) && !listen(fd, BACKLOG) &&
        !chown(place, uid, gid) && !chmod(place, mode))
        return fd;
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    return -1;
}

bool mount_socket(const char *target, const char *attributes)
{
    char place[64], name[64];
    if (listener_count >= MAX_SOCKETS) {
        errno = ENOSPC;
        return false;
    }
    mkdir(FILES, 0755);
    snprintf(place, sizeof place, FILES "/socket%u", listener_count);
    int listener = listen_at(place, attributes);
    int fd = listener < 0 ? -1 : make_target(target, false);
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    bool good = fd >= 0 && !mount(place, name, NULL, MS_BIND, NULL);
    if (fd >= 0)
        close(fd);
    if (good)
        listeners[listener_count++] = listener;
    return good;
}

/* One direction, to its end. */
static void pass_on(int from, int to)
{
    char buffer[32 << 10];
    for (;;) {
        ssize_t n = read(from, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        if (!write_output(to, buffer, (size_t)n))
            return;
    }
}

static void hand_in(void)
{
    close(1);
    close(2);
    pass_on(0, CONNECTION);
    shutdown(CONNECTION, SHUT_WR);
    _exit(0);
}

/* Each direction has a process: neither waits for the other, however full the other is. */
int carry_connection(int fd, char said)
{
    if (dup2(fd, CONNECTION) < 0)
        return call_errno("accept");
    close(LISTENER);
    if (fd != CONNECTION)
        close(fd);
    if (write(1, &said, 1) != 1)
        return CALL_INTERNAL;
    pid_t child = fork();
    if (child == 0)
        hand_in();
    close(0);
    pass_on(CONNECTION, 1);
    close(1);
    close(2);
    struct pollfd end = {.fd = CONNECTION}; /* what was read to its end may still be written to */
    while (child > 0 && poll(&end, 1, -1) < 0 && errno == EINTR)
        continue;
    if (child > 0)
        kill(child, SIGKILL);
    return CALL_OK;
}

int call_accept(struct reader *r)
{
    uint32_t number = take_u32(r);
    if (r->bad || number >= listener_count)
        return call_failed(CALL_INVALID, "there is no socket %u", number);
    if (dup2(listeners[number], LISTENER) < 0)
        return call_errno("the socket");
    syscall(SYS_close_range, LISTENER + 1u, ~0u, 0); /* nobody else's pipes are kept open */
    signal(SIGPIPE, SIG_IGN);
    int fd;
    do
        fd = accept(LISTENER, NULL, NULL);
    while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    return fd < 0 ? call_errno("accept") : carry_connection(fd, 0);
}
