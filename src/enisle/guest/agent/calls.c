/* Calls: what the host asks of a running VM. Each runs in a process of its own; data goes to standard output, the
 * reason of a failure to standard error, and its kind is the exit code. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tar.h"

int call_failed(int result, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    return result;
}

int call_errno(const char *what)
{
    int error = errno;
    int result = error == ENOENT || error == ENOTDIR ? CALL_NOT_FOUND
                 : error == ENOSPC || error == EDQUOT ? CALL_FULL
                 : error == EACCES || error == EPERM || error == EROFS ? CALL_DENIED
                                                                       : CALL_INTERNAL;
    return call_failed(result, "%.200s: %s", what, strerror(error));
}

bool read_input(void *data, size_t length)
{
    for (uint8_t *at = data; length;) {
        ssize_t n = read(STDIN_FILENO, at, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        length -= (size_t)n;
    }
    return true;
}

bool write_output(int fd, const void *data, size_t length)
{
    for (const uint8_t *at = data; length;) {
        ssize_t n = write(fd, at, length);
        if (n < 0 && errno != EINTR)
            return false;
        at += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* --- figures: lines of "<key> <value>" --- */

static void copy_lines(const char *path, const char *prefix)
{
    FILE *file = fopen(path, "re");
    char line[512];
    while (file && fgets(line, sizeof line, file))
        printf("%s%s", prefix, line);
    if (file)
        fclose(file);
}

static void show_nics(void)
{
    FILE *file = fopen("/proc/net/dev", "re");
    char line[512];
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':'), *name = line;
        unsigned long long v[16];
        if (!colon)
            continue;
        *colon++ = 0;
        while (isspace((unsigned char)*name))
            name++;
        if (!strcmp(name, "lo") ||
            sscanf(colon, "%llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu", v, v + 1, v + 2, v + 3, v + 4,
                   v + 5, v + 6, v + 7, v + 8, v + 9, v + 10, v + 11) != 12)
            continue;
        printf("nic %s %llu %llu %llu %llu %llu %llu %llu %llu\n", name, v[0], v[1], v[2], v[3], v[8], v[9], v[10],
               v[11]);
    }
    if (file)
        fclose(file);
}

static void show_disks(void)
{
    FILE *file = fopen("/proc/diskstats", "re");
    char line[512], name[32];
    unsigned major_number, minor_number;
    unsigned long long reads, read_sectors, writes, write_sectors;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "%u %u %31s %llu %*u %llu %*u %llu %*u %llu", &major_number, &minor_number, name, &reads,
                   &read_sectors, &writes, &write_sectors) == 7 &&
            !strncmp(name, "vd", 2))
            printf("disk %u %u %llu %llu %llu %llu\n", major_number, minor_number, reads, read_sectors * 512, writes,
                   write_sectors * 512);
    if (file)
        fclose(file);
}

int call_stats(void)
{
    copy_lines(CGROUP "/workload/cpu.stat", "cpu.");
    copy_lines(CGROUP "/workload/memory.stat", "memory.");
    copy_lines(CGROUP "/workload/memory.current", "memory_current ");
    copy_lines(CGROUP "/workload/memory.peak", "memory_peak ");
    copy_lines(CGROUP "/workload/pids.current", "pids ");
    copy_lines("/proc/meminfo", "meminfo.");
    show_nics();
    show_disks();
    return fflush(stdout) ? call_errno("write") : CALL_OK;
}

/* --- processes: "<uid> <pid> <ppid> <state> <cpu seconds> <start: epoch seconds> <tty> <rss KiB> <command>" NUL --- */

static bool read_text(const char *path, char *text, size_t size, ssize_t *length)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    *length = read(fd, text, size - 1);
    close(fd);
    text[*length < 0 ? 0 : *length] = 0;
    return *length >= 0;
}

static bool in_workload(const char *status)
{
    const char *line = strstr(status, "\nNSpid:");
    const char *end = line ? strchr(line + 1, '\n') : NULL;
    int fields = 0;
    for (const char *at = line ? line + 7 : NULL; at && at < end; at++)
        fields += isspace((unsigned char)at[0]) && isdigit((unsigned char)at[1]);
    return fields > 1;
}

static double boot_time(void)
{
    FILE *file = fopen("/proc/stat", "re");
    char line[8192];
    double seconds = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "btime %lf", &seconds) == 1)
            break;
    if (file)
        fclose(file);
    return seconds;
}

static void show_process(const char *pid, double booted)
{
    char path[64], status[4096], stat[1024], command[4096], state;
    ssize_t length;
    unsigned uid = 0, parent;
    int tty;
    unsigned long user, kernel;
    unsigned long long started;
    long pages;
    snprintf(path, sizeof path, "/proc/%.20s/status", pid);
    if (!read_text(path, status, sizeof status, &length) || !in_workload(status))
        return;
    char *line = strstr(status, "\nUid:");
    if (line)
        sscanf(line, "\nUid: %*u %u", &uid);
    snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
    if (!read_text(path, stat, sizeof stat, &length))
        return;
    char *name = strchr(stat, '('), *rest = strrchr(stat, ')');
    if (!name || !rest ||
        sscanf(rest + 2, "%c %u %*d %*d %d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %llu %*u %ld", &state,
               &parent, &tty, &user, &kernel, &started, &pages) != 7)
        return;
    long ticks = sysconf(_SC_CLK_TCK);
    snprintf(path, sizeof path, "/proc/%.20s/cmdline", pid);
    if (!read_text(path, command, sizeof command, &length) || length <= 0) {
        *rest = 0;
        snprintf(command, sizeof command, "[%s]", name + 1);
    } else {
        for (ssize_t i = 0; i + 1 < length; i++)
            if (!command[i])
                command[i] = ' ';
    }
    printf("%u %s %u %c %lu %.0f %d %ld %s%c", uid, pid, parent, state, (user + kernel) / (unsigned long)ticks,
           booted + (double)started / (double)ticks, tty, pages * 4, command, 0);
}

int call_top(void)
{
    DIR *dir = opendir("/proc");
    double booted = boot_time();
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (isdigit((unsigned char)entry->d_name[0]))
            show_process(entry->d_name, booted);
    if (dir)
        closedir(dir);
    return fflush(stdout) ? call_errno("write") : CALL_OK;
}

/* --- files; the process has entered the workload's root --- */

/* Go's os.FileMode bits, which Docker's API speaks, are made by the host from st_mode. */
int files_stat(const char *path)
{
    struct stat status;
    char target[4097] = "", *real = NULL;
    bool directory = *path && path[strlen(path) - 1] == '/';
    if (fstatat(AT_FDCWD, path, &status, directory ? 0 : AT_SYMLINK_NOFOLLOW))
        return call_errno(path);
    if (S_ISLNK(status.st_mode)) {
        real = realpath(path, NULL);
        ssize_t length = real ? 0 : readlink(path, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
    }
    printf("%u %lld %lld %ld %s", status.st_mode, (long long)status.st_size, (long long)status.st_mtim.tv_sec,
           status.st_mtim.tv_nsec, real ? real : target);
    free(real);
    return fflush(stdout) ? call_errno("write") : CALL_OK;
}

int files_get(const char *path)
{
    char copy[PATH_LIMIT];
    struct stat status;
    if (fstatat(AT_FDCWD, path, &status, AT_SYMLINK_NOFOLLOW))
        return call_errno(path);
    snprintf(copy, sizeof copy, "%s", path);
    size_t length = strlen(copy);
    while (length > 1 && copy[length - 1] == '/')
        copy[--length] = 0;
    const char *slash = strrchr(copy, '/'), *name = slash && slash[1] ? slash + 1 : slash ? "/" : copy;
    bool is_root = !strcmp(name, "/");
    if (!is_root && !tar_add(AT_FDCWD, path, &status, name))
        return call_errno(path);
    if (S_ISDIR(status.st_mode)) {
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || !tar_add_tree(fd, is_root ? "" : name, false))
            return call_errno(path);
        close(fd);
    }
    return tar_end();
}

int files_put(const char *path, uint32_t flags)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOTDIR ? call_failed(CALL_INVALID, "extraction point is not a directory") : call_errno(path);
    int result = tar_extract(fd, flags);
    if (result == CALL_OK && syncfs(fd)) /* once answered, it outlives the machine, which may be killed */
        result = call_errno(path);
    close(fd);
    return result;
}

int files_export(void)
{
    int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || !tar_add_tree(fd, "", true))
        return call_errno("/");
    return tar_end();
}

static int call_files(uint8_t call, struct reader *r)
{
    uint32_t flags = take_u32(r);
    char *path = take_string(r);
    if (r->bad)
        return call_failed(CALL_INTERNAL, "the request makes no sense");
    umask(0);
    if (call == CALL_UPPER || call == CALL_CHANGES)
        return layer_walk(call == CALL_UPPER);
    if (!session_enter(false))
        return call_errno("enter the workload's root");
    switch (call) {
    case CALL_STAT:
        return files_stat(path);
    case CALL_GET:
        return files_get(path);
    case CALL_PUT:
        return files_put(path, flags);
    default:
        return files_export();
    }
}

static int call_nic(uint8_t call, struct reader *r)
{
    if (call == CALL_NIC_REMOVE) {
        char *name = take_string(r);
        return nic_down(name) ? CALL_OK : call_errno(name);
    }
    struct nic *nic = take_nic(r);
    if (!nic)
        return call_failed(CALL_INTERNAL, "the request makes no sense");
    load_modules("net");
    return nic_up(nic, 20000) ? CALL_OK : call_errno("the NIC");
}

int call_main(uint8_t call, struct reader *r)
{
    struct rlimit files = {65536, 65536}; /* a descriptor per level of a tree */
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_DFL);
    switch (call) {
    case CALL_STATS:
        return call_stats();
    case CALL_TOP:
        return call_top();
    case CALL_NIC_ADD:
    case CALL_NIC_REMOVE:
        return call_nic(call, r);
    case CALL_STAT:
    case CALL_GET:
    case CALL_PUT:
    case CALL_EXPORT:
    case CALL_UPPER:
    case CALL_CHANGES:
        return call_files(call, r);
    default:
        return call_failed(CALL_INVALID, "unknown call %u", call);
    }
}
