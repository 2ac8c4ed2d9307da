/* Feeds a file to the agent's parsers: "body" reads it as message bodies, "tar" as an archive. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tar.h"

static const uint8_t *data;
static size_t left;

static bool source(void *context, void *target, size_t length)
{
    (void)context;
    if (length > left)
        return false;
    if (length)
        memcpy(target, data, length);
    data += length;
    left -= length;
    return true;
}

static bool skip(size_t length)
{
    if (length > left)
        return false;
    data += length;
    left -= length;
    return true;
}

static int read_tar(void)
{
    struct member member;
    const char *why;
    enum tar_status status;
    while ((status = tar_next(source, NULL, &member, &why)) == TAR_MEMBER) {
        printf("%c %s %s %o %llu %llu %llu %lld\n", member.type, member.name, member.link, member.mode,
               (unsigned long long)member.uid, (unsigned long long)member.gid, (unsigned long long)member.size,
               (long long)member.mtime);
        uint64_t size = (member.size + 511) & ~511ull;
        tar_free(&member);
        if (!skip(size))
            break;
    }
    printf("%s\n", status == TAR_END ? "end" : "bad");
    return 0;
}

static int read_bodies(void)
{
    struct reader r = {data, data + left, false};
    while (r.at < r.end && !r.bad) {
        uint32_t length;
        switch (take_u8(&r) % 6) {
        case 0:
            printf("%llu\n", (unsigned long long)take_u64(&r));
            break;
        case 1:
            take_bytes(&r, &length);
            printf("%u bytes\n", length);
            break;
        case 2: {
            char *text = take_string(&r);
            printf("%zu characters\n", strlen(text));
            free(text);
            break;
        }
        case 3: {
            char **list = take_strings(&r);
            size_t count = 0;
            for (char **at = list; *at; at++, count++)
                free(*at);
            free(list);
            printf("%zu strings\n", count);
            break;
        }
        case 4:
            printf("%u %u\n", take_u16(&r), take_u32(&r));
            break;
        default: {
            struct frame frame;
            uint8_t raw[HEADER_SIZE] = {0};
            for (size_t i = 0; i < sizeof raw; i++)
                raw[i] = take_u8(&r);
            printf("frame %d\n", parse_header(raw, &frame));
        }
        }
    }
    printf("%s\n", r.bad ? "bad" : "end");
    return 0;
}

int main(int count, char **arguments)
{
    static uint8_t buffer[4 << 20];
    if (count != 2)
        return 2;
    left = fread(buffer, 1, sizeof buffer, stdin);
    uint8_t *exact = malloc(left ? left : 1); /* so that a read past the end is seen */
    memcpy(exact, buffer, left);
    data = exact;
    int result = strcmp(arguments[1], "tar") ? read_bodies() : read_tar();
    free(exact);
    return result;
}
