/* Names for a VM that is on no bridge: what asks the nameserver inside is passed on, and the host asks its resolver.
 *
 * As with sockets the host asks for one question at a time (ASKED). A workload may want port 53 of all addresses for
 * itself, so another port is listened on and nftables leads there, where the kernel has its modules. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

#define NAMESERVER "127.0.0.11"

enum { PORT = 53, BACKLOG = 16, UDP = 3, TCP = 4, MESSAGE_BYTES = 65535 };

static int udp_fd = -1, tcp_fd = -1;

static int bound(int kind, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, NAMESERVER, &address.sin_addr);
    int fd = socket(AF_INET, kind | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (bind(fd, (struct sockaddr *)&address, sizeof address) || (kind == SOCK_STREAM && listen(fd, BACKLOG)))) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static bool listen_on(uint16_t port)
{
    udp_fd = bound(SOCK_DGRAM, port);
    tcp_fd = bound(SOCK_STREAM, port);
    return udp_fd >= 0 && tcp_fd >= 0;
}

static void stop_listening(void)
{
    if (udp_fd >= 0)
        close(udp_fd);
    if (tcp_fd >= 0)
        close(tcp_fd);
    udp_fd = tcp_fd = -1;
}

/* Whether a transaction of nftables was carried out; the last request but one asks for an answer. */
static bool answered(int fd)
{
    char answers[8192];
    for (;;) {
        ssize_t n = recv(fd, answers, sizeof answers, 0);
        if (n < 0)
            return false;
        for (struct nlmsghdr *one = (void *)answers; NLMSG_OK(one, n); one = NLMSG_NEXT(one, n)) {
            struct nlmsgerr *error = NLMSG_DATA(one);
            if (one->nlmsg_type != NLMSG_ERROR || one->nlmsg_len < NLMSG_LENGTH(sizeof *error))
                continue;
            errno = -error->error;
            return !error->error;
        }
    }
}

static bool apply(const uint8_t *rules, uint32_t length)
{
    static const char *const wanted[] = {"nft_chain_nat", "nft_nat", NULL};
    struct timeval patience = {.tv_sec = 10};
    load_from_disk(wanted);
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    bool good = fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) &&
                send(fd, rules, length, 0) == (ssize_t)length && answered(fd);
    if (fd >= 0)
        close(fd);
    return good;
}

/* u16 port (0: no names), bytes of the transaction that leads to it. */
bool setup_names(struct reader *r, struct failure *failure)
{
    uint16_t port = take_u16(r);
    uint32_t length;
    const uint8_t *rules = take_bytes(r, &length);
    if (!port || r->bad)
        return true;
    if (listen_on(port) && length && apply(rules, length))
        return true;
    stop_listening();
    return listen_on(PORT) || fail(failure, STAGE_SETUP, "listen at " NAMESERVER);
}

/* Its message with the length before it, as TCP has it, and the answer likewise. False: there was none after all. */
static bool pass_question(void)
{
    static uint8_t message[3 + MESSAGE_BYTES];
    struct sockaddr_storage asker;
    socklen_t size = sizeof asker;
    ssize_t n = recvfrom(UDP, message + 3, MESSAGE_BYTES, 0, (struct sockaddr *)&asker, &size);
    if (n < 0)
        return false;
    message[0] = 'u';
    message[1] = (uint8_t)(n >> 8);
    message[2] = (uint8_t)n;
    if (!write_output(1, message, (size_t)n + 3))
        return true;
    if (!read_input(message, 2))
        return true;
    size_t length = (size_t)message[0] << 8 | message[1];
    if (read_input(message, length))
        sendto(UDP, message, length, 0, (struct sockaddr *)&asker, size); /* whoever waits no longer loses it */
    return true;
}

int call_asked(void)
{
    int udp = fcntl(udp_fd, F_DUPFD, TCP + 1), tcp = fcntl(tcp_fd, F_DUPFD, TCP + 1);
    if (udp < 0 || tcp < 0 || dup2(udp, UDP) < 0 || dup2(tcp, TCP) < 0)
        return call_failed(CALL_INVALID, "names are not asked for here");
    syscall(SYS_close_range, TCP + 1u, ~0u, 0); /* nobody else's pipes are kept open */
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        struct pollfd both[] = {{.fd = UDP, .events = POLLIN}, {.fd = TCP, .events = POLLIN}};
        if (poll(both, 2, -1) < 0 && errno != EINTR)
            return call_errno("poll");
        if (both[0].revents && pass_question())
            return CALL_OK;
        int fd = both[1].revents ? accept(TCP, NULL, NULL) : -1;
        if (fd >= 0)
            return carry_connection(fd, 't');
    }
}
