// Sharing the launcher's memory with the keepers forked from it, again after they have touched it.
//
// A fork shares every page until one side writes to it, and an interpreter writes to nearly all pages that it reads:
// reference counts go up and come down again. What a keeper has touched that way holds the same bytes as before, yet
// it is a copy of its own for as long as it lives. So the launcher puts its memory into a file and maps that privately
// over itself; a keeper that has settled drops each copy that equals the file's page, and sees the file's page again.
//
// What it touches first can be had at once, too: which pages that will be is learned from the first few processes.
//
// All functions run in C from one end to the other because no instruction of the interpreter may come between reading
// a page and replacing it. The caller has one thread and holds the GIL.

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096

struct range {
    uint64_t start;  // an address
    uint64_t length; // in bytes, whole pages
};

static int write_all(int fd, uint64_t start, uint64_t length, off_t offset)
{
    while (length > 0) {
        ssize_t written = pwrite(fd, (void *)start, length, offset);
        if (written <= 0)
            return -1;
        start += (uint64_t)written;
        length -= (uint64_t)written;
        offset += written;
    }
    return 0;
}

// Moves the ranges into the file, one after the other, and maps them privately over themselves. 0, or -1 with the ranges
// from some one on left as they were.
int pages_share(int fd, const struct range *ranges, int count)
{
    off_t offset = 0;
    for (int i = 0; i < count; i++) {
        if (write_all(fd, ranges[i].start, ranges[i].length, offset) < 0)
            return -1;
        void *at = mmap((void *)ranges[i].start, ranges[i].length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, offset);
        if (at == MAP_FAILED)
            return -1;
        offset += (off_t)ranges[i].length;
    }
    return 0;
}

// In /proc/PID/pagemap. OF_FILE: a page of the file, not a copy; OURS_ALONE: nobody else has it mapped.
#define PRESENT (1ull << 63)
#define OF_FILE (1ull << 61)
#define OURS_ALONE (1ull << 56)
#ifndef MADV_POPULATE_WRITE // Linux 5.14
#define MADV_POPULATE_WRITE 23
#endif

// Sets the bit of each page, counted through all ranges, that is a copy of our own. 0, or -1.
int pages_note(int pagemap, const struct range *ranges, int count, uint8_t *bits)
{
    uint64_t entries[64], page = 0;
    for (int i = 0; i < count; i++) {
        uint64_t pages = ranges[i].length / PAGE;
        for (uint64_t first = 0; first < pages; first += 64) {
            uint64_t wanted = pages - first < 64 ? pages - first : 64;
            if (pread(pagemap, entries, wanted * 8, (off_t)((ranges[i].start / PAGE + first) * 8)) != (ssize_t)(wanted * 8))
                return -1;
            for (uint64_t j = 0; j < wanted; j++, page++)
                if ((entries[j] & (PRESENT | OF_FILE | OURS_ALONE)) == (PRESENT | OURS_ALONE))
                    bits[page / 8] |= (uint8_t)(1u << page % 8);
        }
    }
    return 0;
}

static int is_set(const uint8_t *bits, uint64_t page)
{
    return bits[page / 8] >> page % 8 & 1;
}

// Makes the pages whose bits are set copies of our own: all of a run at once, at a third of what a fault on each costs.
void pages_touch(const struct range *ranges, int count, const uint8_t *bits)
{
    uint64_t before = 0;
    for (int i = 0; i < count; before += ranges[i].length / PAGE, i++) {
        uint64_t pages = ranges[i].length / PAGE, first = 0;
        while (first < pages) {
            uint64_t end = first;
            while (end < pages && is_set(bits, before + end))
                end++;
            if (end > first &&
                madvise((void *)(ranges[i].start + first * PAGE), (end - first) * PAGE, MADV_POPULATE_WRITE) < 0)
                return; // an older kernel, or no memory: each is faulted on when it is needed
            first = end + 1;
        }
    }
}

// Gives up each page of the ranges that is a copy and equals the file's. How many that were, or -1.
int pages_drop_equal(int fd, const struct range *ranges, int count)
{
    uint64_t entries[64];
    char original[PAGE];
    int dropped = 0;
    off_t offset = 0;
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        return -1;
    for (int i = 0; i < count; offset += (off_t)ranges[i].length, i++) {
        uint64_t pages = ranges[i].length / PAGE;
        for (uint64_t first = 0; first < pages; first += 64) {
            uint64_t wanted = pages - first < 64 ? pages - first : 64;
            off_t where = (off_t)((ranges[i].start / PAGE + first) * 8);
            if (pread(pagemap, entries, wanted * 8, where) != (ssize_t)(wanted * 8))
                break;
            for (uint64_t j = 0; j < wanted; j++) {
                char *page = (char *)(ranges[i].start + (first + j) * PAGE);
                if ((entries[j] & (PRESENT | OF_FILE)) != PRESENT)
                    continue;
                if (pread(fd, original, PAGE, offset + (off_t)((first + j) * PAGE)) != PAGE)
                    break;
                if (memcmp(original, page, PAGE) == 0 && madvise(page, PAGE, MADV_DONTNEED) == 0)
                    dropped++;
            }
        }
    }
    close(pagemap);
    return dropped;
}
