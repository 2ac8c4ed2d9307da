// docker run --init (reaper.py): a first process that passes signals on to the program and reaps what it leaves behind.

#include "program.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// Signals that are not passed on: of its own children and faults.
static bool is_own(int number)
{
    static const int own[] = {SIGCHLD, SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (number == own[i])
            return true;
    return false;
}

// Collects whoever has ended; ends with the program's exit code once that is among them.
static void reap(pid_t program)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == program)
            _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static _Noreturn void serve(pid_t program, const uint64_t *everything)
{
    syscall(SYS_close_range, 0, ~0u, 0);
    for (;;) {
        siginfo_t information;
        long number = syscall(SYS_rt_sigtimedwait, everything, &information, NULL, sizeof *everything);
        if (number < 0 && errno != EINTR && errno != EAGAIN)
            _exit(255);
        if (number == SIGCHLD)
            reap(program);
        else if (number > 0 && !is_own((int)number))
            kill(program, (int)number); // it may just have ended
    }
}

void be_init(char *name)
{
    static const uint64_t everything = ~(uint64_t)0, nothing;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &everything, NULL, sizeof everything); // the C library keeps some back
    prctl(PR_SET_NAME, "init");
    size_t length = strlen(name);
    memset(name, 0, length);
    memcpy(name, "init", 4);
    name[length] = '.'; // not NUL, so the kernel shows no more than the first string (setproctitle)
    pid_t program = fork();
    if (program < 0)
        fail(STAGE_INIT);
    if (program)
        serve(program, &everything);
    setpgid(0, 0);
    if (request.flags & TERMINAL)
        tcsetpgrp(0, getpid()); // SIGTTOU is blocked here
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &nothing, NULL, sizeof nothing);
}
