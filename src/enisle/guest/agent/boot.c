/* From the kernel's hands to a root the workload can run in. */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

enum { SETUP_READ_ONLY = 1, SETUP_PRIVILEGED = 2, SETUP_FILES_ONLY = 4, SETUP_MODULES = 8 };

static bool read_only;

bool fail(struct failure *failure, uint8_t stage, const char *format, ...)
{
    failure->error = errno;
    failure->stage = stage;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failure->detail, sizeof failure->detail, format, arguments);
    va_end(arguments);
    return false;
}

void power_off(void)
{
    sync();
    reboot(RB_POWER_OFF);
    _exit(1);
}

void boot_early(void)
{
    mount_at("proc", "/proc", "proc", 0, NULL);
    mount_at("sys", "/sys", "sysfs", 0, NULL);
    mount_at("dev", "/dev", "devtmpfs", 0, NULL);
    /* The kernel had no console to give us: descriptors 0 to 2 must not become something else. */
    int fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd < 2)
        fd = dup(fd);
    load_modules("base");
}

/* The host's time was `ns` when this was sent, so it is that or later. A small difference is slewed away: programs like
   time to be even, and the clock that is ahead may only seem so because the message took its time. */
void set_clock(uint64_t ns)
{
    const int64_t second = 1000000000;
    struct timespec now = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)}, own;
    if (!ns || clock_gettime(CLOCK_REALTIME, &own))
        return;
    int64_t behind = (now.tv_sec - own.tv_sec) * second + (now.tv_nsec - own.tv_nsec);
    if (behind > second / 4 || behind < -10 * second) {
        clock_settime(CLOCK_REALTIME, &now);
        return;
    }
    struct timeval slew = {.tv_sec = behind / second, .tv_usec = behind % second / 1000};
    adjtime(&slew, NULL);
}

static void seed_random(struct reader *r)
{
    struct {
        struct rand_pool_info info;
        uint8_t data[256];
    } pool;
    uint32_t length;
    const uint8_t *seed = take_bytes(r, &length);
    if (!seed || length > sizeof pool.data)
        return;
    pool.info.entropy_count = (int)length * 8;
    pool.info.buf_size = (int)length;
    memcpy(pool.info.buf, seed, length);
    int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        ioctl(fd, RNDADDENTROPY, &pool);
        close(fd);
    }
}

void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, text, strlen(text)) < 0)
        errno = 0; /* best effort: a kernel without that file */
    close(fd);
}

static bool mount_root(struct failure *failure)
{
    if (!mount_at("/dev/vda", LOWER, "erofs", MS_RDONLY, NULL))
        return fail(failure, STAGE_SETUP, "mount the image's disk");
    if (!mount_at("/dev/vdb", DISK, "ext4", MS_NOATIME, "noinit_itable"))
        return fail(failure, STAGE_SETUP, "mount the writable disk");
    mkdir(DISK "/upper", 0755);
    mkdir(DISK "/work", 0755);
    if (!mount_at("root", ROOT, "overlay", 0, "lowerdir=" LOWER ",upperdir=" DISK "/upper,workdir=" DISK "/work"))
        return fail(failure, STAGE_SETUP, "mount the root");
    return true;
}

static bool setup_network(struct reader *r, struct failure *failure)
{
    uint32_t count = take_u32(r);
    loopback_up();
    if (count && !r->bad)
        load_modules("net");
    for (uint32_t i = 0; i < count && !r->bad; i++) {
        struct nic *nic = take_nic(r);
        if (nic && !nic_up(nic, 10000))
            return fail(failure, STAGE_SETUP, "set up NIC %u", i);
        free(nic);
    }
    return r->bad || setup_names(r, failure);
}

static void setup_sysctls(struct reader *r)
{
    for (uint32_t count = take_u32(r); count && !r->bad; count--) {
        char *path = take_string(r), *value = take_string(r);
        char full[512];
        snprintf(full, sizeof full, "/proc/sys/%s", path);
        write_file(full, value);
        free(path);
        free(value);
    }
}

static bool setup_mounts(struct reader *r, struct failure *failure)
{
    uint32_t count = take_u32(r);
    bool shares = take_u8(r);
    if (shares)
        load_modules("share");
    for (; count && !r->bad; count--)
        if (!setup_mount(r, failure))
            return false;
    count = take_u32(r);
    for (uint32_t i = 0; i < count && !r->bad; i++)
        if (!setup_file(r, i, failure))
            return false;
    return true;
}

/* See PROTOCOL.md, SETUP. */
bool boot_setup(struct reader *r, struct failure *failure)
{
    uint32_t flags = take_u32(r);
    set_clock(take_u64(r));
    seed_random(r);
    char *hostname = take_string(r), *domainname = take_string(r);
    uint32_t pids = take_u32(r);
    if (!mount_root(failure))
        return false;
    if (sethostname(hostname, strlen(hostname)) || setdomainname(domainname, strlen(domainname)))
        errno = 0;
    free(hostname);
    free(domainname);
    workload_open(pids);
    if (!setup_network(r, failure))
        return false;
    if (!(flags & SETUP_FILES_ONLY) && !make_dev(flags & SETUP_PRIVILEGED))
        return fail(failure, STAGE_SETUP, "make /dev");
    if (flags & SETUP_MODULES && !offer_modules())
        return fail(failure, STAGE_SETUP, "mount the kernel's modules");
    if (!setup_mounts(r, failure))
        return false;
    setup_sysctls(r);
    read_only = flags & SETUP_READ_ONLY;
    if (r->bad) {
        errno = EPROTO;
        return fail(failure, STAGE_SETUP, "read the setup");
    }
    return true;
}

void boot_enter_root(void)
{
    int proc = make_target("/proc", true), sys = make_target("/sys", true);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", sys);
    mount("sys", path, "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    int cgroup = make_target("/sys/fs/cgroup", true);
    snprintf(path, sizeof path, "/proc/self/fd/%d", cgroup);
    mount("cgroup", path, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    snprintf(path, sizeof path, "/proc/self/fd/%d", proc);
    mount("proc", path, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    close(proc);
    close(sys);
    close(cgroup);
    if (read_only)
        mount(NULL, ROOT, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL);
    if (chdir(ROOT) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
        _exit(1);
}

/* What nobody waits for: loaded once the workload runs. */
void boot_late(void)
{
    if (fork() == 0) {
        close_inherited();
        load_modules("late");
        _exit(0);
    }
}

/* Everything written is on the disk after this, and the file system is clean if nobody holds it any more. */
void close_disk(void)
{
    int fd = open(DISK, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        syncfs(fd);
        close(fd);
    }
}
