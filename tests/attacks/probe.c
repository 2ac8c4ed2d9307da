/* Makes each call that no container may make, in a child of its own, and tells what came of it: "NAME ERRNO", 0 when it
 * was let through, or "NAME signal N". The arguments make no sense, so a call that passes the filter fails otherwise. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef TIOCLINUX
#define TIOCLINUX 0x541C
#endif

struct call {
    const char *name;
    long number, a, b, c, d, e;
};

static const struct call calls[] = {
    {"unshare user", SYS_unshare, CLONE_NEWUSER},
    {"unshare mount", SYS_unshare, CLONE_NEWNS},
    {"unshare cgroup", SYS_unshare, CLONE_NEWCGROUP},
    {"clone user", SYS_clone, CLONE_NEWUSER | 17},
    {"clone3", SYS_clone3, 0, 0},
    {"setns", SYS_setns, -1, 0},
    {"mount", SYS_mount, 0, 0, 0, 0, 0},
    {"umount2", SYS_umount2, 0, 0},
    {"fsopen", SYS_fsopen, 0, 0},
    {"fsmount", SYS_fsmount, -1, 0, 0},
    {"open_tree", SYS_open_tree, -1, 0, 0},
    {"move_mount", SYS_move_mount, -1, 0, -1, 0, 0},
    {"mount_setattr", SYS_mount_setattr, -1, 0, 0, 0, 0},
    {"pivot_root", SYS_pivot_root, 0, 0},
    {"keyctl", SYS_keyctl, 0, 0, 0, 0, 0},
    {"add_key", SYS_add_key, 0, 0, 0, 0, 0},
    {"request_key", SYS_request_key, 0, 0, 0, 0},
    {"bpf", SYS_bpf, 0, 0, 0},
    {"userfaultfd", SYS_userfaultfd, 0},
    {"io_uring_setup", SYS_io_uring_setup, 1, 0},
    {"io_uring_enter", SYS_io_uring_enter, -1, 0, 0, 0, 0},
    {"perf_event_open", SYS_perf_event_open, 0, 0, -1, -1, 0},
    {"open_by_handle_at", SYS_open_by_handle_at, -1, 0, 0},
    {"init_module", SYS_init_module, 0, 0, 0},
    {"finit_module", SYS_finit_module, -1, 0, 0},
    {"delete_module", SYS_delete_module, 0, 0},
    {"kexec_load", SYS_kexec_load, 0, 0, 0, 0},
    {"reboot", SYS_reboot, 0, 0, 0, 0},
    {"swapon", SYS_swapon, 0, 0},
    {"acct", SYS_acct, 0},
    {"settimeofday", SYS_settimeofday, 0, 0},
    {"clock_settime", SYS_clock_settime, 0, 0},
    {"quotactl", SYS_quotactl, 0, 0, 0, 0},
    {"fanotify_init", SYS_fanotify_init, 0, 0},
    {"lookup_dcookie", SYS_lookup_dcookie, 0, 0, 0},
    {"socket alg", SYS_socket, 38, SOCK_SEQPACKET, 0},
    {"socket vsock", SYS_socket, 40, SOCK_STREAM, 0},
    {"push into terminal", SYS_ioctl, 0, TIOCSTI, 0},
    {"paste into terminal", SYS_ioctl, 0, TIOCLINUX, 0},
#ifdef __x86_64__
    {"iopl", SYS_iopl, 3},
    {"ioperm", SYS_ioperm, 0, 1, 1},
    {"x32 getpid", 0x40000000 | 39},
#endif
};

static void tell(const char *name, long (*act)(const struct call *), const struct call *call)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        errno = 0;
        long result = act(call);
        _exit(result < 0 && errno < 255 ? errno : 0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status))
        printf("%s signal %d\n", name, WTERMSIG(status));
    else
        printf("%s %d\n", name, WEXITSTATUS(status));
}

static long plain(const struct call *call)
{
    return syscall(call->number, call->a, call->b, call->c, call->d, call->e);
}

#ifdef __x86_64__
static long old_gate(long number, long first, long second, long third)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second), "d"(third) : "memory", "r8", "r9",
                     "r10", "r11");
    errno = result < 0 && result > -4096 ? (int)-result : 0;
    return result < 0 ? -1 : result;
}

static long old_socketcall(const struct call *call)
{
    (void)call;
    unsigned *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    words[0] = 38, words[1] = SOCK_SEQPACKET, words[2] = 0;
    return old_gate(102, 1, (long)words, 0);
}

static long old_socket(const struct call *call)
{
    (void)call;
    return old_gate(359, 38, SOCK_SEQPACKET, 0);
}

static long old_unshare(const struct call *call)
{
    (void)call;
    return old_gate(310, CLONE_NEWUSER, 0, 0);
}
#endif

int main(void)
{
    for (size_t at = 0; at < sizeof calls / sizeof *calls; at++)
        tell(calls[at].name, plain, &calls[at]);
#ifdef __x86_64__
    tell("old socketcall alg", old_socketcall, calls);
    tell("old socket alg", old_socket, calls);
    tell("old unshare user", old_unshare, calls);
#endif
    return 0;
}
