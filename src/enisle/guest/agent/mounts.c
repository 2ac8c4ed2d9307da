/* What is mounted below the workload's root. Paths of the image are resolved inside it, links and all. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent.h"

enum { MOUNT_TMPFS = 1, MOUNT_SHARE = 2, MOUNT_SOCKET = 3 };

bool mount_at(const char *source, const char *target, const char *type, unsigned long flags, const char *data)
{
    mkdir(target, 0755);
    return !mount(source, target, type, flags, data && *data ? data : NULL);
}

static int open_inside(int root, const char *path, uint64_t flags)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

/* Makes the directories of path up to `end`, as far as they are not there. */
static void make_parents(int root, char *path, const char *end)
{
    for (char *slash = path + 1; slash <= end && *slash; slash++) {
        if (*slash != '/')
            continue;
        *slash = 0;
        int fd = open_inside(root, path, O_PATH | O_DIRECTORY);
        if (fd < 0 && errno == ENOENT) {
            char *last = strrchr(path, '/');
            *last = 0;
            int parent = open_inside(root, *path ? path : "/", O_PATH | O_DIRECTORY);
            *last = '/';
            if (parent >= 0) {
                mkdirat(parent, last + 1, 0755);
                close(parent);
            }
        }
        if (fd >= 0)
            close(fd);
        *slash = '/';
    }
}

int make_target(const char *path, bool directory)
{
    char copy[4100];
    int length = snprintf(copy, sizeof copy - 1, "/%s", path + (*path == '/'));
    if (length < 0 || length >= (int)sizeof copy - 1) {
        errno = ENAMETOOLONG;
        return -1;
    }
    while (length > 1 && copy[length - 1] == '/')
        copy[--length] = 0;
    int root = open(ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = open_inside(root, copy, O_PATH);
    if (fd < 0 && errno == ENOENT) {
        if (directory) {
            copy[length] = '/';
            copy[length + 1] = 0;
            make_parents(root, copy, copy + length);
            copy[length] = 0;
        } else {
            make_parents(root, copy, strrchr(copy, '/'));
            int made = openat(root, ".", O_PATH | O_CLOEXEC);
            struct open_how how = {.flags = O_CREAT | O_WRONLY | O_CLOEXEC, .mode = 0644,
                                   .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
            int file = (int)syscall(SYS_openat2, made, copy, &how, sizeof how);
            if (file >= 0)
                close(file);
            close(made);
        }
        fd = open_inside(root, copy, O_PATH);
    }
    int error = errno;
    close(root);
    errno = error;
    return fd;
}

static bool has_target(const char *path)
{
    int root = open(ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = open_inside(root, *path ? path : "/", O_PATH | O_DIRECTORY);
    bool found = fd >= 0;
    if (found)
        close(fd);
    close(root);
    return found;
}

static bool mount_on(int target, const char *source, const char *type, unsigned long flags, const char *data)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", target);
    if (mount(source, path, type, flags & ~(unsigned long)(type ? 0 : MS_RDONLY), data && *data ? data : NULL))
        return false;
    return true;
}

/* A bind mount with flags takes a second call, on what has been mounted. */
static bool bind_on(int target, const char *source, unsigned long flags, const char *path)
{
    if (!mount_on(target, source, NULL, MS_BIND | MS_REC, NULL))
        return false;
    if (!flags)
        return true;
    int top = make_target(path, true);
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", top);
    bool good = !mount(NULL, name, NULL, MS_BIND | MS_REMOUNT | flags, NULL);
    close(top);
    return good;
}

static void copy_up(int target, const char *share)
{
    int to = open(share, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int from = openat(target, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (to >= 0 && from >= 0 && is_empty(to))
        copy_tree(from, to);
    if (to >= 0)
        close(to);
    if (from >= 0)
        close(from);
}

static bool mount_share(const char *tag, const char *inside, const char *target, unsigned long flags, bool fill)
{
    char place[256], source[4400];
    snprintf(place, sizeof place, "/shares/%.200s", tag);
    mkdir("/shares", 0700);
    if (!mount_at(tag, place, "virtiofs", 0, NULL) && errno != EBUSY)
        return false;
    snprintf(source, sizeof source, "%s%s%s", place, *inside ? "/" : "", inside);
    struct stat status;
    if (stat(source, &status))
        return false;
    bool in_image = fill && S_ISDIR(status.st_mode) && has_target(target); /* else there is nothing to copy from */
    int fd = make_target(target, S_ISDIR(status.st_mode));
    if (fd < 0)
        return false;
    if (in_image)
        copy_up(fd, source);
    bool good = bind_on(fd, source, flags, target);
    close(fd);
    return good;
}

static bool mount_tmpfs(const char *target, unsigned long flags, const char *data)
{
    int fd = make_target(target, true);
    bool good = fd >= 0 && mount_on(fd, "tmpfs", "tmpfs", flags, data);
    if (fd >= 0)
        close(fd);
    return good;
}

bool setup_mount(struct reader *r, struct failure *failure)
{
    uint8_t kind = take_u8(r);
    char *target = take_string(r), *tag = take_string(r), *inside = take_string(r), *data = take_string(r);
    unsigned long flags = take_u32(r);
    bool fill = take_u8(r);
    bool good = !r->bad;
    if (good && kind == MOUNT_TMPFS)
        good = mount_tmpfs(target, flags, data);
    else if (good && kind == MOUNT_SHARE)
        good = mount_share(tag, inside, target, flags, fill);
    else if (good && kind == MOUNT_SOCKET)
        good = mount_socket(target, data);
    if (!good)
        fail(failure, STAGE_SETUP, "mount %s", target);
    free(target);
    free(tag);
    free(inside);
    free(data);
    return good;
}

bool setup_file(struct reader *r, unsigned number, struct failure *failure)
{
    char *target = take_string(r), place[64];
    uint32_t length;
    const uint8_t *content = take_bytes(r, &length);
    snprintf(place, sizeof place, FILES "/%u", number);
    mkdir(FILES, 0755);
    int file = r->bad ? -1 : open(place, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    bool good = file >= 0 && write(file, content, length) == (ssize_t)length;
    if (file >= 0)
        close(file);
    int fd = good ? make_target(target, false) : -1;
    good = fd >= 0 && mount_on(fd, place, NULL, MS_BIND, NULL);
    if (fd >= 0)
        close(fd);
    if (!good)
        fail(failure, STAGE_SETUP, "file %s", target);
    free(target);
    return good;
}

static void make_nodes(void)
{
    static const struct {
        const char *name;
        int major, minor;
    } nodes[] = {{"null", 1, 3},   {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8},
                 {"urandom", 1, 9}, {"tty", 5, 0}, {"fuse", 10, 229}};
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
        char path[64];
        snprintf(path, sizeof path, "/dev/%s", nodes[i].name);
        mknod(path, S_IFCHR | 0666, makedev((unsigned)nodes[i].major, (unsigned)nodes[i].minor));
        chmod(path, 0666);
    }
}

/* /dev of the workload: a few nodes as in a container; everything the VM has when privileged. */
bool make_dev(bool privileged)
{
    int fd = make_target("/dev", true);
    if (fd < 0 || !mount_on(fd, "dev", privileged ? "devtmpfs" : "tmpfs", MS_NOSUID, privileged ? "" : "mode=755,size=64k"))
        return false;
    close(fd);
    int here = open("/", O_PATH | O_CLOEXEC);
    bool good = !chdir(ROOT) && !chroot(".");
    if (good) {
        umask(0);
        if (!privileged)
            make_nodes();
        good = mount_at("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5");
        mount_at("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
        unlink("/dev/ptmx");
        good = good && !symlink("pts/ptmx", "/dev/ptmx");
        if (symlink("/proc/self/fd", "/dev/fd") || symlink("/proc/self/fd/0", "/dev/stdin") ||
            symlink("/proc/self/fd/1", "/dev/stdout") || symlink("/proc/self/fd/2", "/dev/stderr") ||
            symlink("/proc/kcore", "/dev/core"))
            errno = 0; /* devtmpfs keeps them between two setups of one VM */
        umask(022);
    }
    good = !fchdir(here) && !chroot(".") && good;
    close(here);
    return good;
}
