/* One process of the workload: from a fresh fork to exec. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <grp.h>
#include <unistd.h>

#include "agent.h"

enum { RUN_TERMINAL = 1, RUN_STDIN = 2, RUN_NO_NEW_PRIVS = 4, RUN_PRIVILEGED = 8, RUN_INIT = 16, RUN_MAIN = 32 };

void free_strings(char **strings)
{
    for (char **at = strings; at && *at; at++)
        free(*at);
    free(strings);
}

void free_process(struct process *process)
{
    if (!process)
        return;
    free(process->user);
    free(process->cwd);
    free_strings(process->args);
    free_strings(process->env);
    free_strings(process->groups);
    free(process);
}

struct process *take_process(struct reader *r)
{
    struct process *process = calloc(1, sizeof *process);
    if (!process)
        abort();
    uint32_t flags = take_u32(r);
    process->terminal = flags & RUN_TERMINAL;
    process->has_stdin = flags & RUN_STDIN;
    process->no_new_privs = flags & RUN_NO_NEW_PRIVS;
    process->privileged = flags & RUN_PRIVILEGED;
    process->init = flags & RUN_INIT;
    process->main = flags & RUN_MAIN;
    process->umask = take_u32(r) & 0777;
    process->oom_score_adj = (int)take_u32(r);
    process->rows = take_u16(r);
    process->columns = take_u16(r);
    process->capabilities = take_u64(r);
    process->user = take_string(r);
    process->cwd = take_string(r);
    process->args = take_strings(r);
    process->env = take_strings(r);
    process->groups = take_strings(r);
    process->limit_count = take_u32(r);
    if (process->limit_count > 16)
        r->bad = true;
    for (uint32_t i = 0; i < process->limit_count && !r->bad; i++) {
        process->limits[i].resource = take_u32(r);
        process->limits[i].soft = take_u64(r);
        process->limits[i].hard = take_u64(r);
    }
    if (r->bad || !process->args[0]) {
        free_process(process);
        return NULL;
    }
    return process;
}

static void report_and_exit(int report, const struct failure *failure)
{
    if (write(report, failure, sizeof *failure) < 0)
        _exit(125);
    _exit(127);
}

static bool set_limits(const struct process *process, struct failure *failure)
{
    for (uint32_t i = 0; i < process->limit_count; i++) {
        struct rlimit limit = {.rlim_cur = (rlim_t)process->limits[i].soft, .rlim_max = (rlim_t)process->limits[i].hard};
        if (setrlimit((int)process->limits[i].resource, &limit))
            return fail(failure, STAGE_LIMIT, "%u", process->limits[i].resource);
    }
    return true;
}

static void set_oom_score(int value)
{
    char text[16];
    int length = snprintf(text, sizeof text, "%d", value);
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, text, (size_t)length) < 0)
        errno = 0; /* a workload that hides /proc keeps its default */
    close(fd);
}

/* Bounding set and, for root, permitted and effective; inheritable and ambient stay empty (capabilities(7)). */
static bool set_identity(const struct process *process, const struct identity *identity)
{
    uint64_t wanted = process->capabilities;
    for (int cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (!(wanted >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0))
            return false;
    if (setgroups((size_t)identity->group_count, identity->groups) ||
        setresgid(identity->gid, identity->gid, identity->gid))
        return false;
    if (setresuid(identity->uid, identity->uid, identity->uid))
        return false;
    if (identity->uid == 0) {
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct held[2], data[2] = {{0}};
        if (syscall(SYS_capget, &header, held))
            return false;
        for (int i = 0; i < 2; i++)
            data[i].effective = data[i].permitted = held[i].permitted & (uint32_t)(wanted >> (32 * i));
        if (syscall(SYS_capset, &header, data))
            return false;
    }
    return !process->no_new_privs || !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static const char *find_env(char **env, const char *name)
{
    size_t length = strlen(name);
    for (; *env; env++)
        if (!strncmp(*env, name, length) && (*env)[length] == '=')
            return *env + length + 1;
    return NULL;
}

static char **with_home(char **env, const char *home)
{
    size_t count = 0;
    if (find_env(env, "HOME") && *find_env(env, "HOME"))
        return env;
    while (env[count])
        count++;
    char **longer = calloc(count + 2, sizeof *longer);
    char *entry = malloc(strlen(home) + 6);
    if (!longer || !entry)
        return env;
    memcpy(longer, env, count * sizeof *env);
    sprintf(entry, "HOME=%s", home);
    longer[count] = entry;
    return longer;
}

/* execve along PATH; errno says why nothing could be run: EACCES if something was there, else ENOENT. */
static void exec_on_path(char **args, char **env)
{
    const char *path = find_env(env, "PATH"), *name = args[0];
    if (strchr(name, '/')) {
        struct stat status;
        execve(name, args, env);
        if (errno == EACCES && !stat(name, &status) && S_ISDIR(status.st_mode))
            errno = EISDIR;
        return;
    }
    bool denied = false;
    for (const char *at = path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"; at;) {
        const char *end = strchr(at, ':');
        char full[4096];
        struct stat status;
        int length = end ? (int)(end - at) : (int)strlen(at);
        if (length && *name && snprintf(full, sizeof full, "%.*s/%s", length, at, name) < (int)sizeof full) {
            execve(full, args, env);
            if (errno == EACCES && !stat(full, &status) && S_ISDIR(status.st_mode))
                errno = ENOENT;
            denied = denied || errno == EACCES;
            if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
                return;
        }
        at = end ? end + 1 : NULL;
    }
    errno = denied ? EACCES : ENOENT;
}

static pid_t init_child;

static void forward(int number)
{
    if (init_child > 0)
        kill(init_child, number);
}

/* The reaping PID 1 of `--init`: passes signals on, ends as its child does. */
int run_init(pid_t child)
{
    struct sigaction action = {.sa_handler = forward, .sa_flags = SA_RESTART};
    init_child = child;
    for (int number = 1; number < 65; number++)
        if (number != SIGCHLD && number != SIGKILL && number != SIGSTOP && number != SIGTTIN && number != SIGTTOU)
            sigaction(number, &action, NULL);
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, 0);
        if (pid < 0 && errno == ECHILD)
            return 125;
        if (pid == child)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
}

static void start_init(int report)
{
    pid_t child = fork();
    if (child > 0) {
        close(report);
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null >= 0)
            dup2(null, 0); /* the child alone reads */
        _exit(run_init(child));
    }
    if (child == 0 && isatty(0)) {
        setpgid(0, 0);
        tcsetpgrp(0, getpid());
    }
}

void run_process(const struct process *process, int report)
{
    struct failure failure = {0};
    struct identity identity;
    umask(process->umask);
    set_oom_score(process->oom_score_adj);
    if (!resolve_user(process->user, process->groups, &identity, &failure) || !set_limits(process, &failure))
        report_and_exit(report, &failure);
    for (int fd = 0; fd < 3; fd++)
        if (fchown(fd, identity.uid, (gid_t)-1))
            errno = 0; /* /dev/null of a detached exec */
    const char *cwd = *process->cwd ? process->cwd : "/";
    bool inside = !chdir(cwd);
    int error = errno;
    struct sigaction ignored = {.sa_handler = SIG_IGN};
    sigaction(SIGTTOU, &ignored, NULL);
    if (process->init)
        start_init(report);
    if (!set_identity(process, &identity)) {
        fail(&failure, STAGE_SESSION, "set the identity");
        report_and_exit(report, &failure);
    }
    if (!inside && chdir(cwd)) {
        errno = error;
        fail(&failure, STAGE_CWD, "%s", process->cwd);
        report_and_exit(report, &failure);
    }
    char **env = with_home(process->env, identity.home);
    for (int number = 1; number < 65; number++)
        signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    exec_on_path(process->args, env);
    fail(&failure, STAGE_EXEC, "%s", process->args[0]);
    report_and_exit(report, &failure);
    _exit(127);
}
