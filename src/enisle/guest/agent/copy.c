/* Copying a tree of the image into a fresh volume. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "agent.h"

static bool is_dot(const char *name)
{
    return !strcmp(name, ".") || !strcmp(name, "..");
}

bool is_empty(int dirfd)
{
    int again = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    bool empty = dir != NULL;
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (!is_dot(entry->d_name) && strcmp(entry->d_name, "lost+found"))
            empty = false;
    if (dir)
        closedir(dir);
    return empty;
}

static void copy_xattrs(int from, int to)
{
    char names[4096], value[4096];
    ssize_t length = flistxattr(from, names, sizeof names);
    for (char *name = names; length > 0 && name < names + length; name += strlen(name) + 1) {
        ssize_t size = fgetxattr(from, name, value, sizeof value);
        if (size >= 0 && strncmp(name, "trusted.", 8))
            fsetxattr(to, name, value, (size_t)size, 0);
    }
}

static void copy_status(int from, int to, const struct stat *status)
{
    struct timespec times[2] = {status->st_atim, status->st_mtim};
    if (fchown(to, status->st_uid, status->st_gid))
        errno = 0; /* a share may refuse owners; the content counts */
    fchmod(to, status->st_mode & 07777);
    copy_xattrs(from, to);
    futimens(to, times);
}

static bool copy_file(int from, int to, const char *name, const struct stat *status)
{
    int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    bool good = in >= 0 && out >= 0;
    for (ssize_t n = 1; good && n > 0;) {
        n = sendfile(out, in, NULL, 1 << 20);
        good = n >= 0;
    }
    if (good)
        copy_status(in, out, status);
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return good;
}

static bool copy_directory(int from, int to, const char *name)
{
    if (mkdirat(to, name, 0700) && errno != EEXIST)
        return false;
    int in = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int out = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool good = in >= 0 && out >= 0 && copy_tree(in, out);
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return good;
}

static bool copy_entry(int from, int to, const char *name)
{
    struct stat status;
    if (fstatat(from, name, &status, AT_SYMLINK_NOFOLLOW))
        return false;
    if (S_ISDIR(status.st_mode))
        return copy_directory(from, to, name);
    if (S_ISREG(status.st_mode))
        return copy_file(from, to, name, &status);
    bool good;
    if (S_ISLNK(status.st_mode)) {
        char target[4097];
        ssize_t length = readlinkat(from, name, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        good = length >= 0 && !symlinkat(target, to, name);
    } else {
        good = !mknodat(to, name, status.st_mode, status.st_rdev);
    }
    return good && !fchownat(to, name, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW);
}

bool copy_tree(int from, int to)
{
    int again = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    bool good = dir != NULL;
    for (struct dirent *entry; good && (entry = readdir(dir));)
        if (!is_dot(entry->d_name))
            good = copy_entry(from, to, entry->d_name);
    if (dir)
        closedir(dir);
    struct stat status;
    if (good && !fstat(from, &status))
        copy_status(from, to, &status);
    return good;
}
