/* Modules of the kernel. What every VM needs is in the initramfs; a VM that may load more has a disk with all of them,
   and this program is what the kernel calls when it misses one (kernel.modprobe). */
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agent.h"

#define DISK_OF_MODULES "/all-modules"

static bool load_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool good = !syscall(SYS_finit_module, fd, "", 0); /* one that is there already is no failure */
    close(fd);
    return good;
}

/* The lines of /modules are "<set> <file>", in the order in which they must be loaded. */
void load_modules(const char *set)
{
    FILE *list = fopen("/modules", "re");
    char name[64], file[128], path[160];
    while (list && fscanf(list, "%63s %127s", name, file) == 2) {
        if (strcmp(name, set))
            continue;
        snprintf(path, sizeof path, "/m/%s", file);
        load_file(path);
    }
    if (list)
        fclose(list);
}

/* Shows all modules to the kernel, and to the workload where its modprobe looks for them. An image may have no place
   for that (a /lib that leads into a volume, which is not mounted yet). */
bool offer_modules(void)
{
    struct utsname names;
    char target[200], place[64];
    if (uname(&names) || !mount_at("/dev/vdc", DISK_OF_MODULES, "erofs", MS_RDONLY, NULL))
        return false;
    write_file("/proc/sys/kernel/modprobe", "/init");
    snprintf(target, sizeof target, "/lib/modules/%s", names.release);
    int fd = make_target(target, true);
    if (fd < 0)
        return true; /* an image whose /lib leads nowhere: the kernel has its modules all the same */
    snprintf(place, sizeof place, "/proc/self/fd/%d", fd);
    bool good = !mount(DISK_OF_MODULES, place, NULL, MS_BIND, NULL);
    close(fd);
    return good;
}

/* Underscores for dashes, outside of brackets, as modprobe(8) does. */
static void normalise(char *name)
{
    bool bracket = false;
    for (; *name; name++) {
        if (*name == '[' || *name == ']')
            bracket = *name == '[';
        else if (*name == '-' && !bracket)
            *name = '_';
    }
}

/* Whether a path of modules.dep ("kernel/net/bridge/bridge.ko") is the module. */
static bool is_module(const char *path, const char *module)
{
    const char *last = strrchr(path, '/');
    char name[128];
    snprintf(name, sizeof name, "%s", last ? last + 1 : path);
    char *end = strstr(name, ".ko");
    if (end)
        *end = 0;
    normalise(name);
    return !strcmp(name, module);
}

/* A line of modules.dep is "<module>: <what it needs> …", the innermost need last. */
static bool load_line(char *line)
{
    char *paths[256], *rest = NULL, path[300];
    int count = 0;
    for (char *word = strtok_r(line, ": \n", &rest); word && count < 256; word = strtok_r(NULL, ": \n", &rest))
        paths[count++] = word;
    bool good = false;
    while (count--) {
        snprintf(path, sizeof path, DISK_OF_MODULES "/%s", paths[count]);
        good = load_file(path);
    }
    return good;
}

static bool load_with_needs(const char *module)
{
    FILE *list = fopen(DISK_OF_MODULES "/modules.dep", "re");
    char *line = NULL;
    size_t room = 0;
    bool good = false;
    while (list && getline(&line, &room, list) > 0) {
        char *colon = strchr(line, ':');
        if (!colon)
            continue;
        *colon = 0;
        bool found = is_module(line, module);
        *colon = ':';
        if (found) {
            good = load_line(line);
            break;
        }
    }
    free(line);
    if (list)
        fclose(list);
    return good;
}

void load_from_disk(const char *const *modules)
{
    if (!mount_at("/dev/vdc", DISK_OF_MODULES, "erofs", MS_RDONLY, NULL))
        return;
    for (; *modules; modules++)
        load_with_needs(*modules);
    umount2(DISK_OF_MODULES, MNT_DETACH);
}

/* "modprobe -q -- NAME": loads the module of that name, or all that have it as an alias. */
int answer_modprobe(int count, char **words)
{
    char name[256], pattern[512], module[128];
    snprintf(name, sizeof name, "%s", words[count - 1]);
    normalise(name);
    bool good = load_with_needs(name);
    FILE *list = fopen(DISK_OF_MODULES "/modules.alias", "re");
    char *line = NULL;
    size_t room = 0;
    while (list && getline(&line, &room, list) > 0) {
        if (sscanf(line, "alias %511s %127s", pattern, module) != 2)
            continue;
        normalise(pattern);
        if (!fnmatch(pattern, name, 0))
            good = load_with_needs(module) || good;
    }
    free(line);
    if (list)
        fclose(list);
    return good ? 0 : 1;
}
