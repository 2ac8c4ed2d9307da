/* USER words ("", "1000", "name", "u:g") resolved against the image's own files, which may be anything. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"

#define MAX_FILE (8 << 20)

/* The whole file, NUL-terminated; NULL when it is missing, not a regular file or too large. */
static char *read_regular(const char *path)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    struct stat status;
    char *text = NULL;
    if (fd >= 0 && !fstat(fd, &status) && S_ISREG(status.st_mode) && status.st_size <= MAX_FILE) {
        text = malloc((size_t)status.st_size + 1);
        ssize_t n = text ? read(fd, text, (size_t)status.st_size) : 0;
        if (text)
            text[n < 0 ? 0 : n] = 0;
    }
    if (fd >= 0)
        close(fd);
    return text;
}

/* The next line of *text, split at colons; false at the end. */
static bool next_entry(char **text, char *fields[7])
{
    while (*text && **text) {
        char *line = *text, *end = strchr(line, '\n');
        *text = end ? end + 1 : NULL;
        if (end)
            *end = 0;
        int count = 0;
        for (char *field = line; field && count < 7; count++) {
            fields[count] = field;
            field = count < 6 ? strchr(field, ':') : NULL;
            if (field)
                *field++ = 0;
        }
        for (int i = count; i < 7; i++)
            fields[i] = "";
        if (count >= 3 && *fields[0])
            return true;
    }
    return false;
}

/* A plain decimal number that is an id. */
static bool parse_id(const char *text, uint32_t *id)
{
    uint64_t value = 0;
    if (!*text || strlen(text) > 10)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        value = value * 10 + (uint64_t)(*text - '0');
    }
    *id = (uint32_t)value;
    return value < 0x7fffffffu;
}

static bool is_number(const char *text)
{
    return *text && strspn(text, "0123456789") == strlen(text);
}

static bool find_user(const char *user, struct identity *identity, char name[256])
{
    uint32_t wanted;
    bool numeric = parse_id(user, &wanted), found = false;
    char *text = read_regular("/etc/passwd"), *at = text, *fields[7];
    while (!found && next_entry(&at, fields)) {
        uint32_t uid, gid;
        if (!parse_id(fields[2], &uid) || !parse_id(fields[3], &gid))
            continue;
        if (strcmp(fields[0], user) && !(numeric && uid == wanted))
            continue;
        identity->uid = uid;
        identity->gid = gid;
        snprintf(identity->home, sizeof identity->home, "%s", *fields[5] ? fields[5] : "/");
        snprintf(name, 256, "%s", fields[0]);
        found = true;
    }
    free(text);
    if (!found && numeric) {
        identity->uid = wanted;
        identity->gid = 0;
        name[0] = 0;
    }
    return found || numeric;
}

static bool find_group(const char *group, gid_t *gid)
{
    uint32_t wanted;
    bool numeric = parse_id(group, &wanted), found = false;
    char *text = read_regular("/etc/group"), *at = text, *fields[7];
    while (!found && next_entry(&at, fields)) {
        uint32_t id;
        if (parse_id(fields[2], &id) && !strcmp(fields[0], group)) {
            *gid = id;
            found = true;
        }
    }
    free(text);
    if (!found && numeric)
        *gid = wanted;
    return found || numeric;
}

static void add_group(struct identity *identity, gid_t gid)
{
    for (int i = 0; i < identity->group_count; i++)
        if (identity->groups[i] == gid)
            return;
    if (identity->group_count < 256)
        identity->groups[identity->group_count++] = gid;
}

/* The groups that list the user as a member. */
static void add_memberships(struct identity *identity, const char *name)
{
    char *text = *name ? read_regular("/etc/group") : NULL, *at = text, *fields[7];
    while (text && next_entry(&at, fields)) {
        uint32_t gid;
        char *rest = NULL;
        if (!parse_id(fields[2], &gid))
            continue;
        for (char *member = strtok_r(fields[3], ",", &rest); member; member = strtok_r(NULL, ",", &rest))
            if (!strcmp(member, name))
                add_group(identity, gid);
    }
    free(text);
}

bool resolve_user(const char *user, char **extra, struct identity *identity, struct failure *failure)
{
    char word[512], name[256] = "";
    memset(identity, 0, sizeof *identity);
    snprintf(identity->home, sizeof identity->home, "/");
    snprintf(word, sizeof word, "%s", *user ? user : "0");
    char *group = strchr(word, ':');
    if (group)
        *group++ = 0;
    errno = ENOENT;
    if ((is_number(word) && !parse_id(word, &identity->uid)) || !find_user(*word ? word : "0", identity, name)) {
        errno = is_number(word) ? ERANGE : ENOENT;
        return fail(failure, STAGE_USER, "%s", word);
    }
    if (group && *group) {
        if (!find_group(group, &identity->gid))
            return fail(failure, STAGE_GROUP, "%s", group);
        add_group(identity, identity->gid); /* else files that deny it to that group would not (CVE-2022-36109) */
    } else {
        add_group(identity, identity->gid);
        add_memberships(identity, name);
    }
    for (; extra && *extra; extra++) {
        gid_t gid;
        if (!find_group(*extra, &gid))
            return fail(failure, STAGE_GROUP, "%s", *extra);
        add_group(identity, gid);
    }
    return true;
}
