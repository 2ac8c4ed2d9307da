/* Reading message bodies. Pure: compiled into the tests on the host as well. */
#include <stdlib.h>
#include <string.h>

#include "agent.h"

static const uint8_t *take(struct reader *r, size_t length)
{
    if (r->bad || (size_t)(r->end - r->at) < length) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *at = r->at;
    r->at += length;
    return at;
}

static uint64_t take_integer(struct reader *r, size_t length)
{
    const uint8_t *at = take(r, length);
    uint64_t value = 0;
    for (size_t i = length; at && i-- > 0;)
        value = value << 8 | at[i];
    return value;
}

uint8_t take_u8(struct reader *r)
{
    return (uint8_t)take_integer(r, 1);
}

uint16_t take_u16(struct reader *r)
{
    return (uint16_t)take_integer(r, 2);
}

uint32_t take_u32(struct reader *r)
{
    return (uint32_t)take_integer(r, 4);
}

uint64_t take_u64(struct reader *r)
{
    return take_integer(r, 8);
}

const uint8_t *take_bytes(struct reader *r, uint32_t *length)
{
    *length = take_u32(r);
    const uint8_t *at = take(r, *length);
    if (!at)
        *length = 0;
    return at;
}

char *take_string(struct reader *r)
{
    uint32_t length;
    const uint8_t *at = take_bytes(r, &length);
    if (at && length && memchr(at, 0, length))
        r->bad = true;
    char *copy = malloc((size_t)length + 1);
    if (!copy)
        abort();
    if (length)
        memcpy(copy, at, length);
    copy[length] = 0;
    return copy;
}

char **take_strings(struct reader *r)
{
    uint32_t count = take_u32(r);
    if (count > (size_t)(r->end - r->at) / 4) { /* each has a length of 4 bytes at least */
        r->bad = true;
        count = 0;
    }
    char **list = calloc((size_t)count + 1, sizeof *list);
    if (!list)
        abort();
    for (uint32_t i = 0; i < count; i++)
        list[i] = take_string(r);
    return list;
}

void put_u32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

uint32_t get_u32(const uint8_t *at)
{
    struct reader r = {at, at + 4, false};
    return take_u32(&r);
}

bool parse_header(const uint8_t raw[HEADER_SIZE], struct frame *frame)
{
    struct reader r = {raw, raw + HEADER_SIZE, false};
    frame->length = take_u32(&r);
    frame->channel = take_u16(&r);
    frame->type = take_u8(&r);
    frame->stream = take_u8(&r);
    return frame->length <= MAX_IN_BODY;
}
