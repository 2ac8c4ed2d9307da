// A further process: from the host into the container.

#include "program.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

// Past the C library, which has signals of its own that posix_spawn leaves ignored.
void be_nobodys(void)
{
    static const uint64_t usual_action[4], none; // struct sigaction of the kernel: all 0 is SIG_DFL
    for (int number = 1; number <= 64; number++)
        syscall(SYS_rt_sigaction, number, usual_action, NULL, sizeof none);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
    setsid();
}

static void set_oom_score(void)
{
    char text[80];
    int length = snprintf(text, sizeof text, "%d", request.oom_score);
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, text, (size_t)length) == length) {
        close(fd);
        return;
    }
    snprintf(text, sizeof text, "{\"oom_score\": %d}", errno);
    if (fd >= 0)
        close(fd);
    tell(text);
}

static void join_groups(void)
{
    for (unsigned i = 0; request.tasks[i]; i++) {
        int fd = open(request.tasks[i], O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) != 1)
            fail_with(STAGE_CGROUP, errno, i);
        close(fd);
    }
}

void leave_for_container(void)
{
    set_oom_score();
    if (syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL) < 0 && errno != ENOSYS && errno != EPERM)
        fail(STAGE_KEYRING);
    join_groups();
}

int open_slave(int master)
{
    int unlocked = 0;
    return ioctl(master, TIOCSPTLCK, &unlocked) ? -1 : ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

static int open_terminal(void)
{
    int master = open_in(AT_FDCWD, "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK, true);
    struct stat status;
    if (master < 0 || fstat(master, &status))
        fail(STAGE_TERMINAL);
    if (!S_ISCHR(status.st_mode) || status.st_rdev != makedev(5, 2))
        fail_with(STAGE_PTMX, 0, 0);
    int slave = open_slave(master);
    if (slave < 0)
        fail(STAGE_TERMINAL);
    tell_with("{\"terminal\": true}", master);
    close(master);
    return slave;
}

void take_terminal(int slave)
{
    struct winsize size = {.ws_row = (unsigned short)request.rows, .ws_col = (unsigned short)request.columns};
    if (((size.ws_row || size.ws_col) && ioctl(slave, TIOCSWINSZ, &size)) || ioctl(slave, TIOCSCTTY, 0))
        fail(STAGE_TERMINAL);
    for (int fd = 0; fd < 3; fd++)
        dup2(slave, fd);
    close(slave);
}

void enter(void)
{
    int fds[MAX_FDS];
    unsigned count;
    syscall(SYS_close_range, FIRST_PROCESS + 1u, ~0u, 0);
    receive(fds, &count);
    take_request();
    be_nobodys();
    leave_for_container();
    if (setns(FIRST_PROCESS, (int)request.namespaces))
        fail(STAGE_NAMESPACES);
    close(FIRST_PROCESS);
    if (request.flags & TERMINAL)
        take_terminal(open_terminal());
}
