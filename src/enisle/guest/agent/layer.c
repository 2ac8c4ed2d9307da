/* What the writable disk changes in the image: as a list (docker diff), and as an OCI layer.
 *
 * Deletions are character devices 0:0, directories that hide those below carry trusted.overlay.opaque
 * (Documentation/filesystems/overlayfs.rst); a layer says the same with .wh. files (image-spec, layer.md). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tar.h"

enum { MODIFIED, ADDED, DELETED };

/* What starting an instance may create for its mounts; unless the workload filled them, nobody's change. */
static const char *const places[] = {"/.dockerenv",    "/dev",       "/dev/console", "/dev/pts",         "/dev/shm",
                                     "/etc/hostname",  "/etc/hosts", "/etc/mtab",    "/etc/resolv.conf", "/proc",
                                     "/sys"};

/* A directory on the way down; `told` once it has been put out. */
struct level {
    struct level *above;
    int upper, lower; /* lower -1: nothing below */
    bool told, hidden;
    int parent;       /* the directory it lies in, in the upper */
    const char *name;
    size_t path_length;
    struct stat status;
};

static bool as_layer;
static char path[PATH_LIMIT];

static bool is_dot(const char *name)
{
    return !strcmp(name, ".") || !strcmp(name, "..");
}

static bool is_place(const char *wanted)
{
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (!strcmp(places[i], wanted))
            return true;
    return false;
}

static bool holds_places(const char *wanted)
{
    size_t length = strlen(wanted);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *slash = strrchr(places[i], '/');
        if ((size_t)(slash - places[i]) == length && !strncmp(places[i], wanted, length))
            return true;
    }
    return false;
}

static bool say(int kind, const char *what)
{
    size_t length = strlen(what) + 1;
    return putchar('0' + kind) != EOF && fwrite(what, 1, length, stdout) == length;
}

/* The directories that lead to a change are part of it. */
static bool tell_levels(struct level *level)
{
    if (!level || level->told)
        return true;
    if (!tell_levels(level->above))
        return false;
    level->told = true;
    if (!level->name) /* the root */
        return true;
    char kept = path[level->path_length];
    path[level->path_length] = 0;
    bool good = as_layer ? tar_add(level->parent, level->name, &level->status, path + 1) : say(MODIFIED, path);
    path[level->path_length] = kept;
    return good;
}

static bool tell(struct level *level, int kind, const char *name, const struct stat *status)
{
    if (!tell_levels(level))
        return false;
    if (!as_layer)
        return say(kind, path);
    if (kind != DELETED)
        return tar_add(level->upper, name, status, path + 1);
    if (level->hidden)
        return true;
    char shown[PATH_LIMIT + 16];
    size_t above = strlen(path) - strlen(name);
    snprintf(shown, sizeof shown, "%.*s.wh.%s", (int)(above - 1), path + 1, name);
    return tar_add_whiteout(shown);
}

static bool same_xattrs(int a, int b)
{
    static char names[2][65536], values[2][65536];
    int fds[2] = {a, b};
    int count[2] = {0, 0};
    for (int side = 0; side < 2; side++) {
        ssize_t length = flistxattr(fds[side], names[side], sizeof names[side]);
        for (char *name = names[side]; length > 0 && name < names[side] + length; name += strlen(name) + 1) {
            if (!tar_keeps_xattr(name))
                continue;
            count[side]++;
            ssize_t one = fgetxattr(a, name, values[0], sizeof values[0]);
            ssize_t two = fgetxattr(b, name, values[1], sizeof values[1]);
            if (one != two || (one > 0 && memcmp(values[0], values[1], (size_t)one)))
                return false;
        }
    }
    return count[0] == count[1];
}

/* Whether a directory was only copied up. Its time does not count where starting may have moved it. */
static bool only_leads(int upper, int lower, const struct stat *new, const struct stat *old)
{
    if (new->st_mode != old->st_mode || new->st_uid != old->st_uid || new->st_gid != old->st_gid)
        return false;
    if (!holds_places(path) && new->st_mtim.tv_sec != old->st_mtim.tv_sec)
        return false;
    return same_xattrs(upper, lower);
}

static bool is_opaque(int fd)
{
    char value[4];
    return fgetxattr(fd, "trusted.overlay.opaque", value, sizeof value) == 1 && *value == 'y';
}

static bool walk(struct level *level);

/* What an opaque directory hides: names below that it does not have itself. */
static bool tell_lost(struct level *level)
{
    int again = openat(level->lower, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    bool good = true;
    size_t length = strlen(path);
    for (struct dirent *entry; good && dir && (entry = readdir(dir));) {
        struct stat status;
        if (is_dot(entry->d_name) || !fstatat(level->upper, entry->d_name, &status, AT_SYMLINK_NOFOLLOW))
            continue;
        snprintf(path + length, sizeof path - length, "/%s", entry->d_name);
        good = tell(level, DELETED, entry->d_name, NULL);
        path[length] = 0;
    }
    if (dir)
        closedir(dir);
    return good;
}

static bool walk_directory(struct level *level, const char *name, const struct stat *status, const struct stat *old)
{
    bool over = old && S_ISDIR(old->st_mode), good = true;
    struct level deeper = {.above = level, .parent = level->upper, .name = name, .status = *status,
                           .hidden = level->hidden, .path_length = strlen(path), .lower = -1};
    deeper.upper = openat(level->upper, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (deeper.upper < 0)
        return true;
    if (over)
        deeper.lower = openat(level->lower, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool hides = over && !level->hidden && is_opaque(deeper.upper);
    if (!over && !is_place(path)) {
        good = tell(level, old ? MODIFIED : ADDED, name, status);
        deeper.told = true;
    } else if (over && (hides || !only_leads(deeper.upper, deeper.lower, status, old))) {
        good = tell_levels(&deeper);
    } else if (level->hidden && as_layer) {
        good = tell_levels(&deeper);
    }
    if (good && hides) {
        deeper.hidden = true;
        if (as_layer) {
            char shown[PATH_LIMIT + 16];
            snprintf(shown, sizeof shown, "%s/.wh..wh..opq", path + 1);
            good = tar_add_whiteout(shown);
        } else
            good = tell_lost(&deeper);
    }
    good = good && walk(&deeper);
    if (deeper.lower >= 0)
        close(deeper.lower);
    close(deeper.upper);
    return good;
}

static bool walk_entry(struct level *level, const char *name)
{
    struct stat status, below, *old = NULL;
    if (fstatat(level->upper, name, &status, AT_SYMLINK_NOFOLLOW))
        return true;
    if (level->lower >= 0 && !fstatat(level->lower, name, &below, AT_SYMLINK_NOFOLLOW))
        old = &below;
    if (S_ISCHR(status.st_mode) && status.st_rdev == 0)
        return !old || tell(level, DELETED, name, &status);
    if (S_ISDIR(status.st_mode))
        return walk_directory(level, name, &status, old);
    if (is_place(path) && status.st_size == 0)
        return true;
    return tell(level, old ? MODIFIED : ADDED, name, &status);
}

static bool walk(struct level *level)
{
    char **names = names_in(level->upper);
    bool good = names != NULL;
    size_t length = strlen(path);
    for (char **name = names; good && *name; name++) {
        if (length + strlen(*name) + 2 >= sizeof path)
            continue;
        path[length] = '/';
        strcpy(path + length + 1, *name);
        good = walk_entry(level, *name);
        path[length] = 0;
    }
    free_strings(names);
    return good;
}

int layer_walk(bool layer)
{
    struct level top = {.told = true, .parent = -1};
    as_layer = layer;
    top.upper = open(DISK "/upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    top.lower = open(LOWER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (top.upper < 0 || top.lower < 0)
        return call_errno("open the layers");
    if (!walk(&top))
        return call_errno("read the layers");
    if (layer)
        return tar_end();
    return fflush(stdout) ? call_errno("write the list") : CALL_OK;
}
