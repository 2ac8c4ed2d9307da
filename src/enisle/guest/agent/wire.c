/* The port to the host: a virtio-serial port, read and written without ever blocking. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"

/* However much is asked for, a read gives what one buffer of the driver holds: a page. A turn of the loop costs more
   than a read, so a turn takes what is there, up to a window. */
enum { PORT_BUFFER = 4096, FILL_BUFFERS = 64 };

static int port = -1;
static uint8_t *in, *out;
static size_t in_size, in_used, in_done, out_size, out_used, out_done;

/* The port whose name is "enisle"; the driver may still be looking for its ports. */
static int find_port(void)
{
    DIR *dir = opendir("/sys/class/virtio-ports");
    int found = -1;
    for (struct dirent *entry; dir && found < 0 && (entry = readdir(dir));) {
        char path[512], name[32] = "";
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (read(fd, name, sizeof name - 1) > 0 && !strncmp(name, "enisle", 6)) {
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            found = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        }
        close(fd);
    }
    if (dir)
        closedir(dir);
    return found;
}

void wire_open(void)
{
    for (int i = 0; i < 2000 && (port = find_port()) < 0; i++)
        usleep(2000);
    if (port < 0)
        power_off();
}

int wire_fd(void)
{
    return port;
}

static void grow(uint8_t **buffer, size_t *size, size_t wanted)
{
    if (wanted <= *size)
        return;
    size_t larger = *size ? *size : 65536;
    while (larger < wanted)
        larger *= 2;
    uint8_t *moved = realloc(*buffer, larger);
    if (!moved)
        power_off();
    *buffer = moved;
    *size = larger;
}

void wire_send(uint8_t type, uint16_t channel, uint8_t stream, const void *body, uint32_t length)
{
    if (length > MAX_OUT_BODY)
        length = MAX_OUT_BODY;
    if (out_done && out_done == out_used)
        out_done = out_used = 0;
    grow(&out, &out_size, out_used + HEADER_SIZE + length);
    uint8_t *at = out + out_used;
    put_u32(at, length);
    at[4] = (uint8_t)channel;
    at[5] = (uint8_t)(channel >> 8);
    at[6] = type;
    at[7] = stream;
    if (length)
        memcpy(at + HEADER_SIZE, body, length);
    out_used += HEADER_SIZE + length;
}

bool wire_flush(void)
{
    while (out_done < out_used) {
        ssize_t n = write(port, out + out_done, out_used - out_done);
        if (n <= 0)
            return false; /* full, or the host is gone: then it ends us */
        out_done += (size_t)n;
    }
    out_done = out_used = 0;
    return true;
}

bool wire_idle(void)
{
    return out_done == out_used;
}

void wire_fill(void)
{
    if (in_done) {
        memmove(in, in + in_done, in_used - in_done);
        in_used -= in_done;
        in_done = 0;
    }
    ssize_t n = PORT_BUFFER;
    for (int i = 0; i < FILL_BUFFERS && n == PORT_BUFFER; i++) {
        grow(&in, &in_size, in_used + PORT_BUFFER);
        n = read(port, in + in_used, in_size - in_used);
        if (n > 0)
            in_used += (size_t)n;
    }
}

bool wire_next(struct frame *frame, const uint8_t **body)
{
    if (in_used - in_done < HEADER_SIZE)
        return false;
    if (!parse_header(in + in_done, frame))
        power_off(); /* the host lost its place; nothing that follows has a meaning */
    if (in_used - in_done < HEADER_SIZE + frame->length)
        return false;
    *body = in + in_done + HEADER_SIZE;
    in_done += HEADER_SIZE + frame->length;
    return true;
}
