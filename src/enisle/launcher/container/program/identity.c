// Who it runs as: looked up in the image's own files, which may be anything (identity.py).

#include "program.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILE = 4 << 20, MAX_GROUPS = 65536, MAX_ID = 0x7fffffff };

unsigned *groups;
size_t group_count;
const char *home = "";

static char *read_file(int root, const char *path)
{
    int fd = open_in(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, true);
    struct stat status;
    size_t room = 4096, length = 0;
    char *text = array(1, room + 1);
    if (fd < 0 || fstat(fd, &status) || !S_ISREG(status.st_mode))
        room = 0; // as one that is empty
    while (room) {
        ssize_t n = read(fd, text + length, room - length);
        if (n <= 0)
            break;
        length += (size_t)n;
        if (length == MAX_FILE)
            break;
        if (length == room) {
            room = room * 8 < MAX_FILE ? room * 8 : MAX_FILE;
            text = realloc(text, room + 1);
            if (!text)
                fail_with(STAGE_USER, ENOMEM, 0);
        }
    }
    if (fd >= 0)
        close(fd);
    for (size_t i = 0; i < length; i++)
        if (!text[i])
            text[i] = 1; // no name has that, nor a NUL
    text[length] = 0;
    return text;
}

// "0" or digits that do not begin with 0, up to the highest id.
static bool parse_id(const char *text, uint32_t *id)
{
    size_t length = strspn(text, "0123456789");
    if (!length || text[length] || length > 10 || (*text == '0' && length > 1))
        return false;
    unsigned long long value = strtoull(text, NULL, 10);
    *id = (uint32_t)value;
    return value <= MAX_ID;
}

// The next line of so many fields at least, cut at its colons; NULL at the end. Fields that it has not are "".
static char **next_entry(char **rest, int least)
{
    static char *fields[6];
    while (*rest) {
        char *field = *rest, *line_end = strchr(field, '\n');
        *rest = line_end ? line_end + 1 : NULL;
        if (line_end)
            *line_end = 0;
        int count = 0;
        for (int i = 0; i < 6; i++)
            fields[i] = "";
        while (field) {
            char *colon = strchr(field, ':');
            if (colon)
                *colon = 0;
            if (count < 6)
                fields[count] = field;
            count++;
            field = colon ? colon + 1 : NULL;
        }
        if (count >= least && *fields[0] && *fields[0] != '#')
            return fields;
    }
    return NULL;
}

static void add_group(uint32_t gid)
{
    for (size_t i = 0; i < group_count; i++)
        if (groups[i] == gid)
            return;
    if (group_count == MAX_GROUPS)
        fail_with(STAGE_IDENTITY, EINVAL, 0); // as setgroups would
    groups[group_count++] = gid;
}

static bool is_member(const char *name, char *members)
{
    size_t length = strlen(name);
    members += strspn(members, " \t\r\f\v\034\035\036\037");
    size_t whole = strlen(members);
    while (whole && strchr(" \t\r\f\v\034\035\036\037", members[whole - 1]))
        members[--whole] = 0;
    for (char *member = members;; member++) {
        char *comma = strchr(member, ',');
        if ((comma ? (size_t)(comma - member) : strlen(member)) == length && !memcmp(member, name, length))
            return true;
        if (!comma)
            return false;
        member = comma;
    }
}

// By name; of an account's groups, those that list it are added.
static bool find_group(int root, const char *name, uint32_t *gid, const char *member)
{
    char *rest = read_file(root, "/etc/group"), **fields;
    uint32_t id;
    while ((fields = next_entry(&rest, 3))) {
        if (!parse_id(fields[2], &id))
            continue;
        if (member && is_member(member, fields[3]))
            add_group(id);
        if (name && !strcmp(fields[0], name)) {
            *gid = id;
            return true;
        }
    }
    return false;
}

static const char *find_account(int root)
{
    char *rest = read_file(root, "/etc/passwd"), **fields;
    bool numeric = request.flags & NUMERIC_USER;
    uint32_t uid, gid;
    while ((fields = next_entry(&rest, 4))) {
        if (!parse_id(fields[2], &uid) || !parse_id(fields[3], &gid))
            continue;
        if (numeric ? uid != request.uid : strcmp(fields[0], request.user) != 0)
            continue;
        request.uid = uid;
        if (!(request.flags & NUMERIC_GROUP))
            request.gid = gid;
        home = fields[5];
        return fields[0];
    }
    if (!numeric)
        fail_with(STAGE_USER, 0, 0);
    if (!(request.flags & NUMERIC_GROUP))
        request.gid = 0;
    return NULL;
}

void resolve_identity(int root)
{
    groups = array(MAX_GROUPS, sizeof *groups);
    const char *name = find_account(root);
    uint32_t gid = request.gid;
    if (request.flags & HAS_GROUP && !(request.flags & NUMERIC_GROUP) && !find_group(root, request.group, &gid, NULL))
        fail_with(STAGE_GROUP, 0, 0);
    request.gid = gid;
    add_group(gid);
    if (!(request.flags & HAS_GROUP) && name)
        find_group(root, NULL, &gid, name);
    for (uint32_t i = 0; i < request.extra_count; i++) {
        const char *word = request.extra_groups[i]; // what begins with a digit is a number, already checked
        if (!parse_id(word, &gid) && !find_group(root, word, &gid, NULL))
            fail_with(STAGE_GROUP, 0, i + 1);
        add_group(gid);
    }
}
