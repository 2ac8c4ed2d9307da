/* Starting processes: their stdio, and the namespaces of the workload. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include "agent.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

enum { IN, OUT, ERR };

/* As much as is on its way at most: each time a pipe is full or empty costs a change of address spaces, which is what
   an emulated CPU is slowest at. */
enum { PIPE_BYTES = INPUT_WINDOW };

pid_t main_pid;
static int main_pidfd = -1, own_pid_ns = -1, main_pid_ns = -1;

static bool open_pipes(int ours[3], int child[3], bool has_stdin)
{
    int pair[2];
    for (int s = IN; s <= ERR; s++) {
        if (s == IN && !has_stdin) {
            child[IN] = open("/dev/null", O_RDONLY | O_CLOEXEC);
            continue;
        }
        if (pipe2(pair, O_CLOEXEC))
            return false;
        ours[s] = s == IN ? pair[1] : pair[0];
        child[s] = s == IN ? pair[0] : pair[1];
        fcntl(ours[s], F_SETFL, O_NONBLOCK);
        fcntl(ours[s], F_SETPIPE_SZ, PIPE_BYTES);
    }
    return true;
}

static bool open_terminal(int ours[3], int child[3], const struct process *process)
{
    struct winsize size = {.ws_row = process->rows, .ws_col = process->columns};
    int unlock = 0, master = open(ROOT "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock))
        return false;
    int peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (peer < 0)
        return false;
    if (size.ws_row || size.ws_col)
        ioctl(master, TIOCSWINSZ, &size);
    ours[OUT] = master;
    ours[IN] = fcntl(master, F_DUPFD_CLOEXEC, 3);
    for (int s = IN; s <= ERR; s++)
        child[s] = fcntl(peer, F_DUPFD_CLOEXEC, 3);
    close(peer);
    return true;
}

static void take_stdio(const int child[3], bool terminal)
{
    setsid();
    for (int s = 0; s < 3; s++)
        dup2(child[s], s);
    if (terminal)
        ioctl(0, TIOCSCTTY, 0);
}

bool session_enter(bool processes)
{
    if (main_pidfd < 0)
        return !chroot(ROOT) && !chdir("/");
    int kinds = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | (processes ? CLONE_NEWCGROUP : 0);
    return !setns(main_pidfd, kinds) && !chdir("/");
}

/* A process that does not exec must not keep others' pipes open; it keeps the way into the workload's namespaces. */
void close_inherited(void)
{
    unsigned kept = main_pidfd < 0 ? ~0u : (unsigned)main_pidfd;
    if (kept > 3)
        syscall(SYS_close_range, 3u, kept == ~0u ? kept : kept - 1, 0);
    if (kept != ~0u)
        syscall(SYS_close_range, kept + 1, ~0u, 0);
}

/* The terminal is looked up by its number: the descriptor belongs to the agent's mount namespace, out of which nothing
 * can be bound. */
static void show_console(void)
{
    struct stat status;
    char source[64], name[64];
    int target = make_target("/dev/console", false);
    if (target < 0)
        return;
    if (!fstat(0, &status)) {
        snprintf(source, sizeof source, ROOT "/dev/pts/%u", minor(status.st_rdev));
        snprintf(name, sizeof name, "/proc/self/fd/%d", target);
        mount(source, name, NULL, MS_BIND, NULL);
    }
    close(target);
}

static void become_main(const struct process *process, int report)
{
    workload_join();
    unshare(CLONE_NEWCGROUP);
    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    if (process->terminal)
        show_console();
    int cwd = make_target(process->cwd, true); /* as dockerd: for the instance, not for an exec; before a root is read-only */
    if (cwd >= 0)
        close(cwd);
    boot_enter_root();
    run_process(process, report);
}

static void become_exec(const struct process *process, int report)
{
    struct failure failure = {0};
    workload_join();
    if (!session_enter(true)) {
        fail(&failure, STAGE_SESSION, "enter the workload's namespaces");
        if (write(report, &failure, sizeof failure) < 0)
            _exit(125);
        _exit(126);
    }
    run_process(process, report);
}

static pid_t fork_into(const struct process *process)
{
    if (process->main)
        return (pid_t)syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | SIGCHLD, 0, 0, 0, 0);
    if (setns(main_pid_ns, CLONE_NEWPID))
        return -1;
    pid_t pid = fork();
    int error = errno;
    if (pid != 0)
        setns(own_pid_ns, CLONE_NEWPID);
    errno = error;
    return pid;
}

static void remember_main(pid_t pid)
{
    char path[64];
    main_pid = pid;
    main_pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    fcntl(main_pidfd, F_SETFD, FD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/%d/ns/pid", pid);
    main_pid_ns = open(path, O_RDONLY | O_CLOEXEC);
    own_pid_ns = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
}

static void close_all(int fds[3])
{
    for (int s = 0; s < 3; s++)
        if (fds[s] >= 0)
            close(fds[s]);
}

static struct spawned nothing(void)
{
    return (struct spawned){.pid = -1, .ours = {-1, -1, -1}, .report = -1};
}

/* A process of the workload; on failure pid is -1, errno says why, and nothing is open. */
struct spawned spawn_process(const struct process *process)
{
    struct spawned made = nothing();
    int child[3] = {-1, -1, -1}, report[2] = {-1, -1};
    bool good = process->terminal ? open_terminal(made.ours, child, process)
                                  : open_pipes(made.ours, child, process->has_stdin);
    good = good && !pipe2(report, O_CLOEXEC);
    made.pid = good ? fork_into(process) : -1;
    if (made.pid == 0) {
        take_stdio(child, process->terminal);
        if (process->main)
            become_main(process, report[1]);
        become_exec(process, report[1]);
    }
    int error = errno;
    close_all(child);
    if (report[1] >= 0)
        close(report[1]);
    made.report = report[0];
    if (made.pid < 0) {
        close_all(made.ours);
        if (made.report >= 0)
            close(made.report);
        made = nothing();
        errno = error;
    } else if (process->main)
        remember_main(made.pid);
    return made;
}

/* A process of our own that answers a call. */
struct spawned spawn_call(uint8_t call, struct reader *r)
{
    struct spawned made = nothing();
    int child[3] = {-1, -1, -1};
    made.pid = open_pipes(made.ours, child, true) ? fork() : -1;
    if (made.pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        take_stdio(child, false);
        if (call == CALL_ACCEPT) /* which keeps the socket, and nothing else */
            exit(call_accept(r));
        if (call == CALL_ASKED)
            exit(call_asked());
        close_inherited();
        exit(call_main(call, r));
    }
    int error = errno;
    close_all(child);
    if (made.pid < 0) {
        close_all(made.ours);
        made = nothing();
        errno = error;
    }
    return made;
}
