/* Unpacking a tar stream from standard input into a directory of the workload. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tar.h"

struct later { /* directories get their times last: each file made in one moves them */
    struct later *next;
    struct timespec mtime;
    char name[];
};

static struct later *later;

static bool source(void *context, void *data, size_t length)
{
    (void)context;
    return read_input(data, length);
}

/* The name without leading slashes and "." parts; false when it holds "..". "" is the directory itself. */
static bool clean(const char *name, char *out, size_t size)
{
    size_t used = 0;
    while (*name) {
        size_t length = strcspn(name, "/");
        if (length == 2 && !memcmp(name, "..", 2))
            return false;
        if (length && !(length == 1 && *name == '.')) {
            if (used + length + 2 > size)
                return false;
            if (used)
                out[used++] = '/';
            memcpy(out + used, name, length);
            used += length;
        }
        name += length + (name[length] == '/');
    }
    out[used] = 0;
    return true;
}

/* Links inside the tree are followed, but never out of it: to the archive, the directory is the whole world. */
static int open_below(int root, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof how);
}

/* The directory a name lies in, made if it is missing; *last is the name in it. */
static int open_parent(int root, char *path, const char **last)
{
    char *slash = strrchr(path, '/');
    *last = slash ? slash + 1 : path;
    if (!slash)
        return open_below(root, "", O_PATH | O_DIRECTORY);
    *slash = 0;
    int fd = open_below(root, path, O_PATH | O_DIRECTORY);
    if (fd < 0 && errno == ENOENT) {
        const char *name;
        int above = open_parent(root, path, &name);
        if (above >= 0) {
            mkdirat(above, name, 0755);
            close(above);
        }
        fd = open_below(root, path, O_PATH | O_DIRECTORY);
    }
    path[strlen(path)] = '/';
    return fd;
}

static int make_room(int parent, const char *name, bool directory, uint32_t flags)
{
    struct stat there;
    if (fstatat(parent, name, &there, AT_SYMLINK_NOFOLLOW))
        return CALL_OK;
    bool is_directory = S_ISDIR(there.st_mode);
    if (is_directory && directory)
        return CALL_OK;
    if ((flags & PUT_NO_OVERWRITE_DIR) && is_directory != directory)
        return call_failed(CALL_INVALID, is_directory ? "cannot overwrite directory \"%s\" with non-directory"
                                                      : "cannot overwrite non-directory \"%s\" with directory", name);
    if (!unlinkat(parent, name, is_directory ? AT_REMOVEDIR : 0) || errno == ENOENT)
        return CALL_OK;
    if (is_directory && errno == ENOTEMPTY)
        return call_failed(CALL_INVALID, "cannot overwrite non-empty directory \"%s\" with a file", name);
    return call_errno(name);
}

static int write_content(int fd, uint64_t size, const char *name)
{
    static uint8_t buffer[65536];
    uint8_t rest[512];
    for (uint64_t left = size; left;) {
        size_t part = left < sizeof buffer ? (size_t)left : sizeof buffer;
        if (!source(NULL, buffer, part))
            return call_failed(CALL_INVALID, "the archive ends too early");
        for (size_t done = 0; done < part;) {
            ssize_t n = write(fd, buffer + done, part - done);
            if (n <= 0)
                return call_errno(name);
            done += (size_t)n;
        }
        left -= part;
    }
    return source(NULL, rest, (size_t)(-size & 511)) ? CALL_OK : call_failed(CALL_INVALID, "the archive ends too early");
}

static void set_xattrs(int fd, const struct member *member)
{
    const char *at = member->records, *end = at + member->records_length, *key, *value;
    size_t key_length, value_length;
    while (at && at < end && *at && tar_record(&at, end, &key, &key_length, &value, &value_length)) {
        char name[256];
        if (key_length <= 13 || key_length > 13 + 255 || memcmp(key, "SCHILY.xattr.", 13))
            continue;
        memcpy(name, key + 13, key_length - 13);
        name[key_length - 13] = 0;
        if (tar_keeps_xattr(name))
            fsetxattr(fd, name, value, value_length, 0);
    }
}

static void set_status(int parent, const char *name, int fd, const struct member *member)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_sec = (time_t)member->mtime}};
    if (fchownat(parent, name, (uid_t)member->uid, (gid_t)member->gid, AT_SYMLINK_NOFOLLOW))
        errno = 0; /* shares may refuse owners */
    if (fd >= 0) {
        fchmod(fd, member->mode);
        set_xattrs(fd, member);
    }
    utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW);
}

static int make_link(int root, int parent, const char *name, const struct member *member)
{
    char target[PATH_LIMIT];
    const char *last;
    if (!clean(member->link, target, sizeof target))
        return call_failed(CALL_INVALID, "a link of the archive leads out of it: %.200s", member->link);
    int from = open_parent(root, target, &last);
    int result = from >= 0 && !linkat(from, last, parent, name, 0) ? CALL_OK : call_errno(member->name);
    if (from >= 0)
        close(from);
    return result;
}

static int make_directory(int parent, const char *name, const char *path, const struct member *member)
{
    if (mkdirat(parent, name, 0755) && errno != EEXIST)
        return call_errno(path);
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return call_errno(path);
    set_status(parent, name, fd, member);
    close(fd);
    struct later *made = malloc(sizeof *made + strlen(path) + 1);
    if (made) {
        made->next = later;
        made->mtime = (struct timespec){.tv_sec = (time_t)member->mtime};
        strcpy(made->name, path);
        later = made;
    }
    return CALL_OK;
}

static int make_file(int parent, const char *name, const struct member *member)
{
    int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return call_errno(member->name);
    int result = write_content(fd, member->size, member->name);
    set_status(parent, name, fd, member);
    close(fd);
    return result;
}

static int make_member(int root, int parent, const char *name, const char *path, const struct member *member)
{
    mode_t kind = member->type == '3' ? S_IFCHR : member->type == '4' ? S_IFBLK : S_IFIFO;
    int result = CALL_OK;
    switch (member->type) {
    case '0':
    case '7':
        return make_file(parent, name, member);
    case '1':
        return make_link(root, parent, name, member);
    case '5':
        return make_directory(parent, name, path, member);
    case '2':
        if (symlinkat(member->link, parent, name))
            result = call_errno(member->name);
        break;
    case '3':
    case '4':
    case '6':
        if (mknodat(parent, name, kind | member->mode, makedev(member->major, member->minor)))
            result = call_errno(member->name);
        break;
    default:
        return CALL_OK; /* of a kind that pax(1) says to ignore */
    }
    if (result == CALL_OK)
        set_status(parent, name, -1, member);
    return result;
}

static int place(int root, struct member *member, uint32_t flags, const struct stat *top)
{
    char path[PATH_LIMIT];
    const char *name;
    if (!clean(member->name, path, sizeof path))
        return call_failed(CALL_INVALID, "a name of the archive leads out of it: %.200s", member->name);
    if (!*path && member->type != '5')
        return call_failed(CALL_INVALID, "the archive holds a file without a name");
    if (!*path)
        return CALL_OK; /* the directory itself, which is not ours to change */
    if (flags & PUT_COPY_OWNER) {
        member->uid = top->st_uid;
        member->gid = top->st_gid;
    }
    int parent = open_parent(root, path, &name);
    if (parent < 0)
        return call_errno(member->name);
    int result = make_room(parent, name, member->type == '5', flags);
    if (result == CALL_OK)
        result = make_member(root, parent, name, path, member);
    close(parent);
    return result;
}

static void set_later(int root)
{
    for (; later; later = later->next) {
        struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, later->mtime};
        int fd = open_below(root, later->name, O_RDONLY | O_DIRECTORY);
        if (fd >= 0) {
            futimens(fd, times);
            close(fd);
        }
    }
}

int tar_extract(int dirfd, uint32_t flags)
{
    struct stat top;
    if (fstat(dirfd, &top))
        return call_errno("the directory");
    for (;;) {
        struct member member;
        const char *why;
        enum tar_status status = tar_next(source, NULL, &member, &why);
        if (status == TAR_END)
            break;
        if (status == TAR_BAD)
            return call_failed(CALL_INVALID, "%s", why);
        int result = place(dirfd, &member, flags, &top);
        tar_free(&member);
        if (result != CALL_OK)
            return result;
    }
    set_later(dirfd);
    uint8_t rest[4096]; /* whatever follows the end is read, so that its sender is not stopped */
    while (read(STDIN_FILENO, rest, sizeof rest) > 0)
        ;
    return CALL_OK;
}
