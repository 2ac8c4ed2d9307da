/* Tar streams, both ways. */
#ifndef ENISLE_TAR_H
#define ENISLE_TAR_H

#include <sys/stat.h>

#include "agent.h"

#define PATH_LIMIT 32768
#define MAX_ID 07777777u
#define MAX_SIZE 077777777777ull

struct tar_header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[8];
    char user[32], group[32], major[8], minor[8], prefix[155], rest[12];
};

struct entry {
    const char *name, *link;
    char type;
    mode_t mode;
    uint64_t uid, gid, size;
    int64_t mtime;
    unsigned major, minor;
};

bool tar_add(int parent, const char *file, const struct stat *status, const char *shown);
bool tar_add_empty(const struct stat *status, const char *shown);
bool tar_add_whiteout(const char *shown);
bool tar_add_tree(int dirfd, const char *shown, bool one_mount);
bool tar_keeps_xattr(const char *name);

/* tar_parse.c: pure, compiled into the tests on the host as well */
struct member {
    char type;
    char *name, *link; /* malloc'd */
    mode_t mode;
    uint64_t uid, gid, size;
    int64_t mtime;
    unsigned major, minor;
    char *records; /* pax records, for their xattrs */
    size_t records_length;
};
enum tar_status { TAR_MEMBER, TAR_END, TAR_BAD };
typedef bool tar_source(void *context, void *data, size_t length); /* exactly that many bytes, or false */
enum tar_status tar_next(tar_source *source, void *context, struct member *member, const char **why);
void tar_free(struct member *member);
bool tar_record(const char **at, const char *end, const char **key, size_t *key_length, const char **value,
                size_t *value_length);

#endif
