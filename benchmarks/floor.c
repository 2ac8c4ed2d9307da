/* The floor: what the kernel alone takes for one container's life, with nothing in between.
 *
 * Usage: floor LOWERDIR WORKDIR COUNT PROGRAM [ARGS...]     LOWERDIR holds PROGRAM, WORKDIR is scratch
 * Prints one line per life: nanoseconds. Per life: cgroups made, clone with all namespaces, overlayfs, proc, sysfs,
 * tmpfs and devpts mounted, some paths masked, pivot_root, execve, wait, cgroups removed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *lower, *work;
static char **program;
static char cgroups[16][256];
static int cgroup_count;

static void fail(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    _exit(1);
}

static void must(int result, const char *what)
{
    if (result < 0)
        fail(what);
}

static void find_cgroups(void)
{
    char line[4096], kind[64], where[256];
    FILE *file = fopen("/proc/self/mounts", "r");
    while (file && fgets(line, sizeof line, file) && cgroup_count < 16)
        if (sscanf(line, "%*s %255s %63s", where, kind) == 2 && strncmp(kind, "cgroup", 6) == 0)
            snprintf(cgroups[cgroup_count++], sizeof cgroups[0], "%.200s", where);
    if (file)
        fclose(file);
}

static void copy_file(const char *from, const char *to)
{
    char data[256];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY);
    ssize_t length = in < 0 ? 0 : read(in, data, sizeof data);
    if (out >= 0 && length > 0 && write(out, data, (size_t)length) < 0)
        fail(to);
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
}

static void make_cgroups(pid_t pid)
{
    char path[512], parent[512], text[32];
    int length = snprintf(text, sizeof text, "%d", pid);
    for (int i = 0; i < cgroup_count; i++) {
        snprintf(path, sizeof path, "%.200s/enisle-floor-%d", cgroups[i], getpid());
        if (mkdir(path, 0755) < 0)
            continue;
        snprintf(path, sizeof path, "%.200s/enisle-floor-%d/cpuset.cpus", cgroups[i], getpid());
        snprintf(parent, sizeof parent, "%.200s/cpuset.cpus", cgroups[i]);
        copy_file(parent, path);
        snprintf(path, sizeof path, "%.200s/enisle-floor-%d/cpuset.mems", cgroups[i], getpid());
        snprintf(parent, sizeof parent, "%.200s/cpuset.mems", cgroups[i]);
        copy_file(parent, path);
        snprintf(path, sizeof path, "%.200s/enisle-floor-%d/cgroup.procs", cgroups[i], getpid());
        int fd = open(path, O_WRONLY);
        if (fd < 0 || write(fd, text, (size_t)length) < 0)
            fail(path);
        close(fd);
    }
}

static void remove_cgroups(void)
{
    char path[512];
    for (int i = 0; i < cgroup_count; i++) {
        snprintf(path, sizeof path, "%.200s/enisle-floor-%d", cgroups[i], getpid());
        while (rmdir(path) < 0 && errno == EBUSY)
            usleep(100);
    }
}

static void mask(const char *path)
{
    struct stat status;
    if (stat(path, &status) < 0)
        return;
    if (S_ISDIR(status.st_mode))
        must(mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0"), path);
    else
        must(mount("/dev/null", path, NULL, MS_BIND, NULL), path);
}

static int child(void *argument)
{
    char options[2048], root[512], go;
    int *gate = argument;
    if (read(gate[0], &go, 1) != 1)
        _exit(1);
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
    snprintf(options, sizeof options, "lowerdir=%.500s,upperdir=%.500s/upper,workdir=%.500s/work", lower, work, work);
    snprintf(root, sizeof root, "%.500s/root", work);
    must(mount("overlay", root, "overlay", 0, options), "overlay");
    must(chdir(root), "chdir");
    must(mount("proc", "proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL), "proc");
    must(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k"), "dev");
    must(mkdir("dev/pts", 0755) | mkdir("dev/shm", 0755) | mkdir("dev/mqueue", 0755), "mkdir");
    must(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666"), "devpts");
    must(mount("tmpfs", "dev/shm", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777"), "shm");
    must(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL), "mqueue");
    must(mount("sysfs", "sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL), "sysfs");
    must(mknod("dev/null", S_IFCHR | 0666, 0x103), "null");
    must((int)syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "umount");
    const char *masked[] = {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/sys/firmware"};
    for (unsigned i = 0; i < sizeof masked / sizeof *masked; i++)
        mask(masked[i]);
    must(mount("/proc/sys", "/proc/sys", NULL, MS_BIND, NULL), "bind");
    must(mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), "remount");
    must(sethostname("floor", 5), "sethostname");
    execv(program[0], program);
    fail(program[0]);
    return 1;
}

static void one_life(void)
{
    static char stack[65536] __attribute__((aligned(16)));
    int gate[2], status;
    must(pipe2(gate, O_CLOEXEC), "pipe");
    int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP | SIGCHLD;
    pid_t pid = clone(child, stack + sizeof stack, flags, gate);
    must(pid, "clone");
    make_cgroups(pid);
    if (write(gate[1], "x", 1) != 1)
        fail("gate");
    must(waitpid(pid, &status, 0), "waitpid");
    if (status != 0)
        exit(1);
    close(gate[0]);
    close(gate[1]);
    remove_cgroups();
}

int main(int argc, char **argv)
{
    char path[512];
    struct timespec begun, ended;
    if (argc < 5) {
        fprintf(stderr, "usage: floor LOWERDIR WORKDIR COUNT PROGRAM [ARGS...]\n");
        return 2;
    }
    lower = argv[1];
    work = argv[2];
    program = argv + 4;
    find_cgroups();
    const char *names[] = {"upper", "work", "root"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%.400s/%s", work, names[i]);
        mkdir(path, 0755);
    }
    for (int i = 0; i < atoi(argv[3]); i++) {
        clock_gettime(CLOCK_MONOTONIC, &begun);
        one_life();
        clock_gettime(CLOCK_MONOTONIC, &ended);
        printf("%lld\n", (ended.tv_sec - begun.tv_sec) * 1000000000LL + ended.tv_nsec - begun.tv_nsec);
    }
    return 0;
}
