// The first process before anybody knows what it is to be: born into its namespaces, with what nearly every container
// mounts created and not mounted yet. /proc, /sys and the message queues are those of the namespaces it was born into;
// its mount namespace is not made before the steps begin: what is mounted on the host meanwhile could not be bound from it.

#include "program.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sched.h>
#include <unistd.h>

enum { FSOPEN_CLOEXEC_ = 1, SET_FLAG = 0, SET_STRING = 1, CMD_CREATE = 6 }; // linux/mount.h, which sys/mount.h forbids

struct filesystem *usual;
uint32_t usual_count;

static int configure(int context, unsigned command, const char *key, const char *value)
{
    return (int)syscall(SYS_fsconfig, context, command, key, value, 0);
}

int create_filesystem(const struct filesystem *wanted, unsigned *option_number)
{
    int context = (int)syscall(SYS_fsopen, wanted->kind, FSOPEN_CLOEXEC_);
    if (context < 0)
        return -1;
    int result = configure(context, SET_STRING, "source", wanted->kind);
    *option_number = 0;
    for (const char **option = wanted->options; *option && !result; option++) {
        ++*option_number;
        const char *equals = strchr(*option, '=');
        if (!equals) {
            result = configure(context, SET_FLAG, *option, NULL);
            continue;
        }
        size_t length = (size_t)(equals - *option);
        char *key = memcpy(array(1, length + 1), *option, length);
        result = configure(context, SET_STRING, key, equals + 1);
    }
    if (!result) {
        *option_number = 0;
        result = configure(context, CMD_CREATE, NULL, NULL);
    }
    if (!result)
        return context;
    int error = errno;
    close(context);
    errno = error;
    return -1;
}

// Has this go on as a child of the same parent, which is told of it, and ends it here.
static void be_child(uint64_t flags, int cgroup)
{
    int pidfd = -1;
    struct clone_args arguments = {
        .flags = flags | CLONE_PARENT | CLONE_PIDFD | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        .cgroup = cgroup >= 0 ? (uint64_t)cgroup : 0,
    };
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid < 0)
        fail(STAGE_BIRTH);
    if (!pid)
        return;
    char text[60];
    snprintf(text, sizeof text, "{\"born\": %ld}", pid);
    tell_with(text, pidfd);
    _exit(0);
}

static void set_loopback_up(void)
{
    struct ifreq link = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &link))
        fail(STAGE_BIRTH);
    close(fd);
}

// Told: clone3's flags, the number of namespaces to join, whether there is a cgroup to be born in (their descriptors come
// with it, in that order), whether there is time to create the file systems, and these.
void be_born(void)
{
    int fds[MAX_FDS];
    unsigned count;
    syscall(SYS_close_range, CHANNEL + 1u, ~0u, 0);
    receive(fds, &count);
    uint32_t flags = take_u32(), joined = take_u32(), in_cgroup = take_u32(), ahead = take_u32();
    if (joined + in_cgroup != count)
        fail_with(STAGE_REQUEST, EPROTO, 0);
    for (unsigned i = 0; i < joined; i++)
        if (setns(fds[i], 0))
            fail_with(STAGE_JOIN, errno, i);
    be_child(flags, in_cgroup ? fds[joined] : -1);
    prctl(PR_SET_NAME, "enisle-first");
    syscall(SYS_close_range, CHANNEL + 1u, ~0u, 0);
    be_nobodys();
    umask(0); // nodes and mount points get the modes that are named
    if (flags & CLONE_NEWNET)
        set_loopback_up();
    usual_count = take_u32();
    if (usual_count > MAX_PACKET)
        fail_with(STAGE_REQUEST, EPROTO, 0);
    usual = array(usual_count + 1, sizeof *usual);
    for (uint32_t i = 0, ignored; i < usual_count; i++) {
        usual[i].kind = take_text();
        usual[i].options = take_texts(&ignored);
        // Whoever needs it tells why it cannot be had.
        usual[i].context = ahead ? create_filesystem(&usual[i], &ignored) : -1;
    }
}
