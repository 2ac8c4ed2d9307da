/* Reading tar headers: ustar, GNU long names, pax. Pure: compiled into the tests on the host as well. */
#include <stdlib.h>
#include <string.h>

#include "tar.h"

#define MAX_METADATA (1u << 20)

static bool number(const char *field, size_t size, uint64_t *value)
{
    const uint8_t *raw = (const uint8_t *)field;
    *value = 0;
    if (raw[0] == 0x80) { /* GNU: base 256 */
        for (size_t i = 1; i < size; i++) {
            if (*value >> 55)
                return false;
            *value = *value << 8 | raw[i];
        }
        return true;
    }
    size_t i = 0;
    while (i < size && raw[i] == ' ')
        i++;
    for (; i < size && raw[i] >= '0' && raw[i] <= '7'; i++) {
        if (*value >> 60)
            return false;
        *value = *value << 3 | (uint64_t)(raw[i] - '0');
    }
    for (; i < size; i++)
        if (raw[i] != ' ' && raw[i] != 0)
            return false;
    return true;
}

static bool checksum_holds(const struct tar_header *raw)
{
    uint64_t wanted;
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof *raw; i++)
        sum += i >= 148 && i < 156 ? ' ' : ((const uint8_t *)raw)[i];
    return number(raw->checksum, sizeof raw->checksum, &wanted) && wanted == sum;
}

static char *copy(const char *text, size_t limit)
{
    size_t length = strnlen(text, limit);
    char *made = malloc(length + 1);
    if (!made)
        abort();
    memcpy(made, text, length);
    made[length] = 0;
    return made;
}

static char *full_name(const struct tar_header *raw)
{
    if (memcmp(raw->magic, "ustar\0", 6) || !raw->prefix[0])
        return copy(raw->name, sizeof raw->name);
    char joined[sizeof raw->prefix + 1 + sizeof raw->name];
    size_t length = strnlen(raw->prefix, sizeof raw->prefix), name = strnlen(raw->name, sizeof raw->name);
    memcpy(joined, raw->prefix, length);
    joined[length] = '/';
    memcpy(joined + length + 1, raw->name, name);
    return copy(joined, length + 1 + name);
}

static char *metadata(tar_source *source, void *context, uint64_t size)
{
    char rest[512];
    if (size > MAX_METADATA)
        return NULL;
    char *text = malloc((size_t)size + 1);
    if (!text)
        abort();
    text[size] = 0;
    if (source(context, text, (size_t)size) && source(context, rest, (size_t)(-size & 511)))
        return text;
    free(text);
    return NULL;
}

bool tar_record(const char **at, const char *end, const char **key, size_t *key_length, const char **value,
                size_t *value_length)
{
    const char *p = *at;
    size_t length = 0;
    while (p < end && *p >= '0' && *p <= '9' && length < MAX_METADATA)
        length = length * 10 + (size_t)(*p++ - '0');
    if (p == end || *p != ' ' || length > (size_t)(end - *at) || length < (size_t)(p - *at) + 3)
        return false;
    const char *last = *at + length - 1, *equals = memchr(p + 1, '=', (size_t)(last - p - 1));
    if (*last != '\n' || !equals || equals == p + 1)
        return false;
    *key = p + 1;
    *key_length = (size_t)(equals - p - 1);
    *value = equals + 1;
    *value_length = (size_t)(last - equals - 1);
    *at = last + 1;
    return true;
}

static bool decimal(const char *text, size_t length, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '.')
            return i > 0;
        if (text[i] < '0' || text[i] > '9' || *value > UINT64_MAX / 10 - 1)
            return false;
        *value = *value * 10 + (uint64_t)(text[i] - '0');
    }
    return length > 0;
}

static bool is_key(const char *key, size_t length, const char *wanted)
{
    return length == strlen(wanted) && !memcmp(key, wanted, length);
}

static void replace(char **text, const char *value, size_t length)
{
    if (!length)
        return;
    free(*text);
    *text = copy(value, length);
}

static bool apply_records(struct member *member)
{
    const char *at = member->records, *end = at + member->records_length, *key, *value;
    size_t key_length, value_length;
    while (at < end && *at) {
        uint64_t parsed;
        if (!tar_record(&at, end, &key, &key_length, &value, &value_length))
            return false;
        if (is_key(key, key_length, "path"))
            replace(&member->name, value, value_length);
        else if (is_key(key, key_length, "linkpath"))
            replace(&member->link, value, value_length);
        else if (is_key(key, key_length, "size")) {
            if (!decimal(value, value_length, &member->size))
                return false;
        } else if (is_key(key, key_length, "uid") && decimal(value, value_length, &parsed))
            member->uid = parsed;
        else if (is_key(key, key_length, "gid") && decimal(value, value_length, &parsed))
            member->gid = parsed;
        else if (is_key(key, key_length, "mtime") && decimal(value, value_length, &parsed))
            member->mtime = (int64_t)parsed;
        else if (key_length > 11 && !memcmp(key, "GNU.sparse.", 11))
            return false;
    }
    return true;
}

void tar_free(struct member *member)
{
    free(member->name);
    free(member->link);
    free(member->records);
    memset(member, 0, sizeof *member);
}

static bool fill(const struct tar_header *raw, struct member *member)
{
    uint64_t mode, mtime, major_number, minor_number;
    if (!number(raw->mode, sizeof raw->mode, &mode) || !number(raw->uid, sizeof raw->uid, &member->uid) ||
        !number(raw->gid, sizeof raw->gid, &member->gid) || !number(raw->size, sizeof raw->size, &member->size))
        return false;
    if (!number(raw->mtime, sizeof raw->mtime, &mtime))
        mtime = 0;
    if (!number(raw->major, sizeof raw->major, &major_number) || !number(raw->minor, sizeof raw->minor, &minor_number))
        major_number = minor_number = 0;
    member->mode = (mode_t)(mode & 07777);
    member->mtime = (int64_t)mtime;
    member->major = (unsigned)major_number;
    member->minor = (unsigned)minor_number;
    member->type = raw->type ? raw->type : '0';
    return true;
}

static bool all_zero(const struct tar_header *raw)
{
    for (size_t i = 0; i < sizeof *raw; i++)
        if (((const uint8_t *)raw)[i])
            return false;
    return true;
}

enum tar_status tar_next(tar_source *source, void *context, struct member *member, const char **why)
{
    char *name = NULL, *link = NULL;
    struct tar_header raw;
    enum tar_status status = TAR_BAD;
    memset(member, 0, sizeof *member);
    *why = "the archive ends too early";
    while (source(context, &raw, sizeof raw)) {
        if (all_zero(&raw)) {
            status = TAR_END;
            break;
        }
        *why = "a header of the archive is damaged";
        if (!checksum_holds(&raw) || !fill(&raw, member))
            break;
        *why = "the archive's metadata is damaged or too long";
        char **slot = raw.type == 'L' ? &name : raw.type == 'K' ? &link : raw.type == 'x' ? &member->records : NULL;
        if (slot || raw.type == 'g') {
            char *text = metadata(source, context, member->size);
            if (!text)
                break;
            if (raw.type == 'x')
                member->records_length = (size_t)member->size;
            if (slot) {
                free(*slot);
                *slot = text;
            } else
                free(text);
            continue;
        }
        member->name = name ? name : full_name(&raw);
        member->link = link ? link : copy(raw.link, sizeof raw.link);
        name = link = NULL;
        if (member->records && !apply_records(member))
            break;
        *why = "the archive holds a sparse file, which is not supported here";
        if (member->type == 'S')
            break;
        if (member->type != '0' && member->type != '7')
            member->size = 0;
        status = TAR_MEMBER;
        break;
    }
    free(name);
    free(link);
    if (status != TAR_MEMBER)
        tar_free(member);
    return status;
}
