// As root.py: paths are absolute in the root; links, "..", and races with renames stay inside (openat2(2)).

#include "program.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_LINKS = 40, MAX_ATTEMPTS = 64 };

int root_fd = -1;

int open_in(int root, const char *path, uint64_t flags, bool links)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    if (!links)
        how.resolve |= RESOLVE_NO_SYMLINKS;
    for (int attempt = 1;; attempt++) {
        int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR) || attempt == MAX_ATTEMPTS)
            return fd;
    }
}

static int close_and_keep_errno(int fd, int result)
{
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

static int create(int parent, const char *name, bool directory)
{
    if (directory)
        return mkdirat(parent, name, 0755) && errno != EEXIST ? -1 : 0;
    int fd = openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_WRONLY, 0644);
    if (fd < 0)
        return errno == EEXIST ? 0 : -1;
    close(fd);
    return 0;
}

// Where only the last part is missing, and none of the others is a link.
static int make_last(const char *path, bool directory)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char parent[PATH_MAX] = "/";
    if (!*name || !strcmp(name, ".") || !strcmp(name, "..") || name - path >= PATH_MAX) {
        errno = ENOENT;
        return -1;
    }
    if (slash && slash > path)
        *(char *)mempcpy(parent, path, (size_t)(slash - path)) = 0;
    int fd = open_in(root_fd, parent, O_PATH | O_DIRECTORY, false);
    if (fd < 0)
        return -1;
    if (close_and_keep_errno(fd, create(fd, name, directory)))
        return -1;
    return open_in(root_fd, path, O_PATH, false);
}

struct part {
    const char *name;
    struct part *next;
};

// The parts of a path, in order, before those that follow already.
static struct part *split(const char *path, struct part *rest)
{
    struct part *first = NULL, **last = &first;
    size_t room = strlen(path) + 1;
    char *copy = memcpy(array(1, room), path, room), *rest_of_copy;
    for (char *name = strtok_r(copy, "/", &rest_of_copy); name; name = strtok_r(NULL, "/", &rest_of_copy)) {
        if (!strcmp(name, "."))
            continue;
        *last = array(1, sizeof **last);
        (*last)->name = name;
        last = &(*last)->next;
    }
    *last = rest;
    return first;
}

// What is called so in a directory that is there, made if it is not; a link itself, not its target.
static int step(const char *done, const char *name, bool directory)
{
    int parent = open_in(root_fd, *done ? done : "/", O_PATH | O_DIRECTORY, false), fd = -1;
    if (parent < 0)
        return -1;
    for (int attempt = 0; attempt < 2; attempt++) {
        fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 || errno != ENOENT || create(parent, name, directory))
            break;
        errno = ENOENT;
    }
    return close_and_keep_errno(parent, fd);
}

// Part by part: what is done holds no links, and every step starts again from the root.
static int make(const char *path, bool directory, bool links)
{
    static char done[PATH_MAX];
    struct part *pending = split(path, NULL);
    size_t length = 0;
    int followed = 0;
    done[0] = 0;
    while (pending) {
        const char *name = pending->name;
        pending = pending->next;
        if (!strcmp(name, "..")) {
            while (length && done[--length] != '/')
                ;
            done[length] = 0;
            continue;
        }
        int fd = step(done, name, directory || pending);
        struct stat status;
        if (fd < 0)
            return -1;
        if (fstat(fd, &status))
            return close_and_keep_errno(fd, -1);
        if (!S_ISLNK(status.st_mode)) {
            close(fd);
            size_t more = strlen(name);
            if (length + more + 2 > sizeof done) {
                errno = ENAMETOOLONG;
                return -1;
            }
            done[length++] = '/';
            memcpy(done + length, name, more + 1);
            length += more;
            continue;
        }
        char link[PATH_MAX];
        ssize_t size = readlinkat(fd, "", link, sizeof link - 1);
        if (size < 0 || !links || ++followed > MAX_LINKS) {
            errno = size < 0 ? errno : ELOOP;
            return close_and_keep_errno(fd, -1);
        }
        close(fd);
        link[size] = 0;
        if (*link == '/')
            done[length = 0] = 0;
        pending = split(link, pending);
    }
    return open_in(root_fd, *done ? done : "/", O_PATH, false);
}

// What is there, or made with its parents where it is missing, as directory or empty file; a descriptor (O_PATH).
int target(const char *path, bool directory, bool links)
{
    int fd = open_in(root_fd, path, O_PATH, links);
    if (fd >= 0 || errno != ENOENT)
        return fd;
    fd = make_last(path, directory);
    return fd >= 0 ? fd : make(path, directory, links);
}
