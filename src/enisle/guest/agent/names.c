/* The names in a directory, sorted: what is written of equal files is equal, whatever order the file system has. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"

static int compare(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

static bool read_names(DIR *dir, char ***names, size_t *count)
{
    size_t room = 0;
    for (struct dirent *entry; (errno = 0, entry = readdir(dir));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (*count + 1 >= room) { /* one more than there are: the end */
            room = room ? 2 * room : 64;
            char **larger = realloc(*names, room * sizeof *larger);
            if (!larger)
                return false;
            *names = larger;
        }
        (*names)[*count] = strdup(entry->d_name);
        (*names)[*count + 1] = NULL;
        if (!(*names)[*count])
            return false;
        (*count)++;
    }
    return !errno;
}

char **names_in(int dirfd)
{
    int again = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    size_t count = 0;
    char **names = calloc(1, sizeof *names);
    if (dir && names && read_names(dir, &names, &count)) {
        qsort(names, count, sizeof *names, compare);
        closedir(dir);
        return names;
    }
    int error = errno ? errno : ENOMEM;
    if (dir)
        closedir(dir);
    else if (again >= 0)
        close(again);
    free_strings(names);
    errno = error;
    return NULL;
}
