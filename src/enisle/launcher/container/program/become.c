// The last steps, all of them inside: who it is, what it may do, and the search for the command.

#include "program.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static rlim_t lower(rlim_t left, rlim_t right)
{
    return left == RLIM_INFINITY ? right : right == RLIM_INFINITY || left < right ? left : right;
}

static void set_limits(void)
{
    for (uint32_t i = 0; i < request.limit_count; i++) {
        struct limit *wanted = &request.limits[i];
        struct rlimit limit = {(rlim_t)wanted->soft, (rlim_t)wanted->hard}, now;
        if (!setrlimit((int)wanted->resource, &limit))
            continue;
        if (getrlimit((int)wanted->resource, &now))
            fail_with(STAGE_LIMIT, errno, i);
        limit.rlim_max = lower(limit.rlim_max, now.rlim_max);
        limit.rlim_cur = lower(limit.rlim_cur, limit.rlim_max);
        char text[100];
        snprintf(text, sizeof text, "{\"clamped\": %u, \"to\": %lld}", i, (long long)limit.rlim_max);
        tell(text);
        if (setrlimit((int)wanted->resource, &limit))
            fail_with(STAGE_LIMIT, errno, i);
    }
}

static void own_stdio(void)
{
    for (int fd = 0; fd < 3 && request.uid; fd++) {
        struct stat status;
        if (fstat(fd, &status))
            fail(STAGE_STDIO);
        unsigned kind = major(status.st_rdev);
        if (S_ISFIFO(status.st_mode) || (S_ISCHR(status.st_mode) && kind >= 136 && kind < 144))
            if (fchown(fd, request.uid, (gid_t)-1))
                fail(STAGE_STDIO);
    }
}

static void set_capabilities(uint64_t wanted)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)wanted, (uint32_t)wanted, 0},
        {(uint32_t)(wanted >> 32), (uint32_t)(wanted >> 32), 0},
    };
    if (syscall(SYS_capset, &header, data))
        fail(STAGE_CAPABILITIES);
}

static void set_filter(void)
{
    struct sock_fprog program = {(unsigned short)(request.filter_bytes / sizeof *request.filter), (void *)request.filter};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        fail(STAGE_FILTER);
}

static void enter_directory(int fd)
{
    static char path[MAX_PACKET];
    if (fchdir(fd) || syscall(SYS_getcwd, path, sizeof path) < 0)
        fail(STAGE_ENTER_DIRECTORY);
    if (*path != '/')
        fail_with(STAGE_OUTSIDE, 0, 0);
    close(fd);
}

static void become(int directory)
{
    for (uint32_t number = 0; number <= request.last_capability; number++)
        if (!(request.bounding >> number & 1) && prctl(PR_CAPBSET_DROP, number, 0, 0, 0))
            fail(STAGE_CAPABILITIES);
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        fail(STAGE_CAPABILITIES);
    if (request.uid && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
        fail(STAGE_IDENTITY);
    if (setgroups(group_count, groups) || setresgid(request.gid, request.gid, request.gid) ||
        setresuid(request.uid, request.uid, request.uid) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        fail(STAGE_IDENTITY);
    enter_directory(directory);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)) // after the change of identity, which clears it
        fail(STAGE_IDENTITY);
    umask((mode_t)request.umask);
    bool privileged = request.flags & NO_NEW_PRIVS;
    if (privileged && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fail(STAGE_IDENTITY);
    uint64_t kept = request.uid ? 0 : request.kept;
    if (request.filter_bytes && !privileged) { // without no_new_privs a filter needs CAP_SYS_ADMIN
        set_capabilities(kept | request.filtering);
        set_filter();
        set_capabilities(kept);
        return;
    }
    set_capabilities(kept);
    if (request.filter_bytes)
        set_filter();
}

static void replace(const char *path)
{
    struct stat status;
    if (stat(path, &status))
        fail(STAGE_STATUS);
    if (S_ISDIR(status.st_mode))
        fail_with(STAGE_IS_DIRECTORY, 0, 0);
    if (!(status.st_mode & 0111))
        fail_with(STAGE_DENIED, 0, 0);
    execve(path, (char **)request.args, (char **)request.env);
    fail(STAGE_EXEC);
}

static void run(void)
{
    const char *command = request.args[0];
    bool denied = false;
    tell("{\"exec\": true}");
    if (strchr(command, '/'))
        replace(command);
    for (const char *part = request.path;;) {
        const char *colon = strchr(part, ':');
        int length = colon ? (int)(colon - part) : (int)strlen(part);
        char *candidate = array(1, (size_t)length + strlen(command) + 3);
        sprintf(candidate, "%.*s/%s", length ? length : 1, length ? part : ".", command);
        struct stat status;
        if (stat(candidate, &status))
            denied = denied || errno == EACCES;
        else if (!S_ISDIR(status.st_mode)) {
            if (status.st_mode & 0111)
                replace(candidate);
            denied = true;
        }
        if (!colon)
            break;
        part = colon + 1;
    }
    fail_with(denied ? STAGE_DENIED : STAGE_NOT_ON_PATH, 0, 0);
}

void become_program(char *name)
{
    int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        fail(STAGE_ROOT);
    resolve_identity(root);
    if (request.flags & WANTS_HOME) {
        char *entry = array(1, strlen(home) + 8);
        sprintf(entry, "HOME=%s", *home ? home : "/");
        request.env[request.env_count] = entry;
    }
    int directory = open_in(root, request.directory, O_PATH | O_DIRECTORY, true);
    if (directory < 0)
        fail(STAGE_DIRECTORY);
    set_limits();
    own_stdio();
    close(root);
    become(directory);
    if (request.flags & INIT)
        be_init(name);
    run();
}
