// What the keeper says, and what it is told.

#include "program.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct cursor cursor;
struct request request;

void tell(const char *text)
{
    if (send(CHANNEL, text, strlen(text), MSG_NOSIGNAL) < 0)
        _exit(1); // nobody is there to hear it
}

void tell_with(const char *text, int fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.room = {0}};
    struct iovec part = {(void *)text, strlen(text)};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.room};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(CHANNEL, &message, MSG_NOSIGNAL) < 0)
        _exit(1);
}

void fail_with(enum stage stage, int error, unsigned which)
{
    char text[100];
    snprintf(text, sizeof text, "{\"stage\": %d, \"errno\": %d, \"which\": %u}", stage, error, which);
    tell(text);
    _exit(1);
}

void fail(enum stage stage)
{
    fail_with(stage, errno, 0);
}

void receive(int fds[MAX_FDS], unsigned *count)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(MAX_FDS * sizeof(int))];
    } control;
    uint8_t *packet = malloc(MAX_PACKET + 1);
    struct iovec part = {packet, MAX_PACKET + 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.room};
    ssize_t length = packet ? recvmsg(CHANNEL, &message, MSG_CMSG_CLOEXEC) : -1;
    if (length <= 0 || length > MAX_PACKET || message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        _exit(1);
    cursor.at = packet;
    cursor.end = packet + length;
    *count = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t size = header->cmsg_len - CMSG_LEN(0);
        memcpy(fds, CMSG_DATA(header), size);
        *count = (unsigned)(size / sizeof(int));
    }
}

const void *take(size_t length)
{
    if ((size_t)(cursor.end - cursor.at) < length)
        fail_with(STAGE_REQUEST, EPROTO, 0);
    const void *found = cursor.at;
    cursor.at += length;
    return found;
}

uint32_t take_u32(void)
{
    uint32_t value;
    memcpy(&value, take(sizeof value), sizeof value);
    return value;
}

uint64_t take_u64(void)
{
    uint64_t value;
    memcpy(&value, take(sizeof value), sizeof value);
    return value;
}

const char *take_text(void)
{
    uint32_t length = take_u32();
    const char *text = take((size_t)length + 1);
    if (text[length] || strlen(text) != length)
        fail_with(STAGE_REQUEST, EPROTO, 0);
    return text;
}

void *array(size_t count, size_t size)
{
    void *made = calloc(count, size);
    if (!made)
        fail_with(STAGE_REQUEST, ENOMEM, 0);
    return made;
}

const char **take_texts(uint32_t *count)
{
    *count = take_u32();
    if (*count > MAX_PACKET)
        fail_with(STAGE_REQUEST, EPROTO, 0);
    const char **texts = array(*count + 2, sizeof *texts);
    for (uint32_t i = 0; i < *count; i++)
        texts[i] = take_text();
    return texts;
}

void take_request(void)
{
    uint32_t count;
    request.flags = take_u32();
    request.namespaces = take_u32();
    request.oom_score = (int32_t)take_u32();
    request.umask = take_u32();
    request.rows = take_u32();
    request.columns = take_u32();
    request.uid = take_u32();
    request.gid = take_u32();
    request.last_capability = take_u32();
    request.bounding = take_u64();
    request.kept = take_u64();
    request.filtering = take_u64();
    request.limit_count = take_u32();
    if (request.limit_count > RLIM_NLIMITS)
        fail_with(STAGE_REQUEST, EPROTO, 0);
    request.limits = array(request.limit_count + 1, sizeof *request.limits);
    for (uint32_t i = 0; i < request.limit_count; i++) {
        request.limits[i].resource = take_u32();
        request.limits[i].soft = take_u64();
        request.limits[i].hard = take_u64();
    }
    request.user = take_text();
    request.group = take_text();
    request.directory = take_text();
    request.path = take_text();
    request.tasks = take_texts(&count);
    request.extra_groups = take_texts(&request.extra_count);
    request.args = take_texts(&request.arg_count);
    request.env = take_texts(&request.env_count);
    request.filter_bytes = take_u32();
    struct sock_filter *filter = array(1, request.filter_bytes + 1); // aligned
    memcpy(filter, take(request.filter_bytes), request.filter_bytes);
    request.filter = filter;
}
