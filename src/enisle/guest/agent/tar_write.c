/* Writing tar streams (ustar with pax records, pax(1)) to standard output. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tar.h"

#define BUFFER 65536

static uint8_t buffer[BUFFER];
static size_t filled;

static bool flush(void)
{
    for (size_t done = 0; done < filled;) {
        ssize_t n = write(STDOUT_FILENO, buffer + done, filled - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    filled = 0;
    return true;
}

static bool emit(const void *data, size_t length)
{
    const uint8_t *at = data;
    while (length) {
        size_t room = BUFFER - filled < length ? BUFFER - filled : length;
        if (at) {
            memcpy(buffer + filled, at, room);
            at += room;
        } else {
            memset(buffer + filled, 0, room);
        }
        filled += room;
        length -= room;
        if (filled == BUFFER && !flush())
            return false;
    }
    return true;
}

static bool pad(uint64_t length)
{
    return emit(NULL, (size_t)(-length & 511));
}

int tar_end(void)
{
    return emit(NULL, 1024) && flush() ? CALL_OK : call_errno("write the archive");
}

/* --- headers --- */

static void octal(char *field, size_t size, uint64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%0*llo", (int)size - 1, (unsigned long long)value);
    if (strlen(text) < size)
        memcpy(field, text, strlen(text) + 1);
}

struct records {
    char *text;
    size_t used, size;
};

static void record(struct records *records, const char *key, const void *value, size_t length)
{
    size_t body = 1 + strlen(key) + 1 + length + 1, total = body + 1;
    char digits[32];
    while ((size_t)snprintf(digits, sizeof digits, "%zu", total) + body != total)
        total = (size_t)snprintf(digits, sizeof digits, "%zu", total) + body;
    if (records->used + total + 1 > records->size) {
        records->size = (records->used + total + 1) * 2;
        records->text = realloc(records->text, records->size);
        if (!records->text)
            abort();
    }
    char *at = records->text + records->used;
    at += sprintf(at, "%zu %s=", total, key);
    if (length)
        memcpy(at, value, length);
    at[length] = '\n';
    records->used += total;
}

static bool header(const struct entry *entry, const char *name, char type, uint64_t size)
{
    struct tar_header raw;
    memset(&raw, 0, sizeof raw);
    memcpy(raw.name, name, strnlen(name, sizeof raw.name));
    octal(raw.mode, sizeof raw.mode, entry->mode & 07777);
    octal(raw.uid, sizeof raw.uid, entry->uid <= MAX_ID ? entry->uid : 0);
    octal(raw.gid, sizeof raw.gid, entry->gid <= MAX_ID ? entry->gid : 0);
    octal(raw.size, sizeof raw.size, size <= MAX_SIZE ? size : 0);
    octal(raw.mtime, sizeof raw.mtime, entry->mtime > 0 ? (uint64_t)entry->mtime : 0);
    raw.type = type;
    memcpy(raw.link, entry->link, strnlen(entry->link, sizeof raw.link));
    memcpy(raw.magic, "ustar\0" "00", 8);
    octal(raw.major, sizeof raw.major, entry->major);
    octal(raw.minor, sizeof raw.minor, entry->minor);
    memset(raw.checksum, ' ', sizeof raw.checksum);
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof raw; i++)
        sum += ((const uint8_t *)&raw)[i];
    snprintf(raw.checksum, sizeof raw.checksum, "%06o", sum);
    return emit(&raw, sizeof raw);
}

bool tar_keeps_xattr(const char *name)
{
    if (!strncmp(name, "user.", 5))
        return strncmp(name, "user.overlay.", 13);
    return !strcmp(name, "security.capability") || !strcmp(name, "system.posix_acl_access") ||
           !strcmp(name, "system.posix_acl_default");
}

static void record_xattrs(struct records *records, int fd)
{
    static char names[65536], value[65536];
    ssize_t length = flistxattr(fd, names, sizeof names);
    for (char *name = names; length > 0 && name < names + length; name += strlen(name) + 1) {
        char key[300];
        ssize_t size = tar_keeps_xattr(name) ? fgetxattr(fd, name, value, sizeof value) : -1;
        if (size < 0)
            continue;
        snprintf(key, sizeof key, "SCHILY.xattr.%.255s", name);
        record(records, key, value, (size_t)size);
    }
}

static void record_number(struct records *records, const char *key, uint64_t value)
{
    char text[32];
    record(records, key, text, (size_t)snprintf(text, sizeof text, "%llu", (unsigned long long)value));
}

/* One member; `fd` is open for files and directories, else -1. */
static bool member(const struct entry *entry, int fd)
{
    struct records records = {0};
    if (strlen(entry->name) > 100)
        record(&records, "path", entry->name, strlen(entry->name));
    if (strlen(entry->link) > 100)
        record(&records, "linkpath", entry->link, strlen(entry->link));
    if (entry->size > MAX_SIZE)
        record_number(&records, "size", entry->size);
    if (entry->uid > MAX_ID)
        record_number(&records, "uid", entry->uid);
    if (entry->gid > MAX_ID)
        record_number(&records, "gid", entry->gid);
    if (fd >= 0)
        record_xattrs(&records, fd);
    bool good = true;
    if (records.used) {
        static const struct entry plain = {.mode = 0644, .link = ""};
        good = header(&plain, "PaxHeaders", 'x', records.used) && emit(records.text, records.used) && pad(records.used);
    }
    free(records.text);
    return good && header(entry, entry->name, entry->type, entry->size);
}

static bool content(int fd, uint64_t size)
{
    uint64_t left = size;
    while (left) {
        if (filled == BUFFER && !flush())
            return false;
        size_t room = BUFFER - filled < left ? BUFFER - filled : (size_t)left;
        ssize_t n = read(fd, buffer + filled, room);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) /* it has become shorter: what was promised is filled up */
            return emit(NULL, left) && pad(size);
        filled += (size_t)n;
        left -= (uint64_t)n;
    }
    return pad(size);
}

/* --- hard links: the first name of each file with several --- */

struct linked {
    struct linked *next;
    dev_t device;
    ino_t inode;
    char name[];
};

static const char *linked_as(const struct stat *status, const char *name)
{
    static struct linked *table[1024];
    struct linked **slot = &table[(status->st_ino ^ status->st_dev) % 1024];
    for (struct linked *at = *slot; at; at = at->next)
        if (at->device == status->st_dev && at->inode == status->st_ino)
            return at->name;
    struct linked *made = malloc(sizeof *made + strlen(name) + 1);
    if (made) {
        made->next = *slot;
        made->device = status->st_dev;
        made->inode = status->st_ino;
        strcpy(made->name, name);
        *slot = made;
    }
    return NULL;
}

/* --- members from files --- */

static char type_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return '0';
    case S_IFLNK:
        return '2';
    case S_IFCHR:
        return '3';
    case S_IFBLK:
        return '4';
    case S_IFDIR:
        return '5';
    case S_IFIFO:
        return '6';
    default:
        return 0; /* sockets have no form in tar */
    }
}

bool tar_add(int parent, const char *file, const struct stat *status, const char *shown)
{
    char target[4097] = "", path[PATH_LIMIT];
    struct entry entry = {.name = shown, .link = target, .type = type_of(status->st_mode), .mode = status->st_mode,
                          .uid = status->st_uid, .gid = status->st_gid, .mtime = status->st_mtime};
    if (!entry.type)
        return true;
    if (entry.type != '5' && status->st_nlink > 1) {
        const char *first = linked_as(status, shown);
        if (first) {
            entry.link = first;
            entry.type = '1';
            return member(&entry, -1);
        }
    }
    if (entry.type == '2') {
        ssize_t length = readlinkat(parent, file, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
    }
    if (entry.type == '3' || entry.type == '4') {
        entry.major = major(status->st_rdev);
        entry.minor = minor(status->st_rdev);
    }
    if (entry.type == '5') {
        snprintf(path, sizeof path, "%s/", shown);
        entry.name = path;
    }
    if (entry.type != '0' && entry.type != '5')
        return member(&entry, -1);
    int fd = openat(parent, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat now;
    if (fd < 0 || fstat(fd, &now) || (now.st_mode & S_IFMT) != (status->st_mode & S_IFMT)) {
        if (fd >= 0)
            close(fd);
        return true; /* it has gone, or become something else, meanwhile */
    }
    entry.size = entry.type == '0' ? (uint64_t)now.st_size : 0;
    bool good = member(&entry, fd) && (entry.type != '0' || content(fd, entry.size));
    close(fd);
    return good;
}

bool tar_add_empty(const struct stat *status, const char *shown)
{
    char path[PATH_LIMIT];
    bool directory = S_ISDIR(status->st_mode);
    snprintf(path, sizeof path, "%s%s", shown, directory ? "/" : "");
    struct entry entry = {.name = path, .link = "", .type = directory ? '5' : '0', .mode = status->st_mode,
                          .uid = status->st_uid, .gid = status->st_gid, .mtime = status->st_mtime};
    return member(&entry, -1);
}

bool tar_add_whiteout(const char *shown)
{
    struct entry entry = {.name = shown, .link = "", .type = '0'};
    return member(&entry, -1);
}

static bool is_mount(int parent, const char *name)
{
    struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_NO_XDEV};
    int fd = (int)syscall(SYS_openat2, parent, name, &how, sizeof how);
    if (fd >= 0)
        close(fd);
    return fd < 0 && errno == EXDEV;
}

static bool add_below(int dirfd, char *path, size_t length, bool one_mount)
{
    char **names = names_in(dirfd);
    bool good = names != NULL;
    for (char **each = names; good && *each; each++) {
        struct stat status;
        size_t name = strlen(*each);
        if (length + name + 2 >= PATH_LIMIT)
            continue; /* no name in an archive is that long */
        if (fstatat(dirfd, *each, &status, AT_SYMLINK_NOFOLLOW))
            continue;
        memcpy(path + length, *each, name + 1);
        if (one_mount && is_mount(dirfd, *each)) {
            good = tar_add_empty(&status, path);
            continue;
        }
        good = tar_add(dirfd, *each, &status, path);
        if (!good || !S_ISDIR(status.st_mode))
            continue;
        int deeper = openat(dirfd, *each, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (deeper < 0)
            continue;
        path[length + name] = '/';
        path[length + name + 1] = 0;
        good = add_below(deeper, path, length + name + 1, one_mount);
        close(deeper);
    }
    free_strings(names);
    return good;
}

bool tar_add_tree(int dirfd, const char *shown, bool one_mount)
{
    static char path[PATH_LIMIT];
    int length = snprintf(path, sizeof path, "%s%s", shown, *shown ? "/" : "");
    return length < (int)sizeof path && add_below(dirfd, path, (size_t)length, one_mount);
}
