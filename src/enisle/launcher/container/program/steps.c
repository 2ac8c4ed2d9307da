// How the root of a container is made, in its own mount namespace (child.py and rootfs.py; setup.py says the steps).
//
// Each step is a number and what it needs, to be carried out in turn. Sources of bind mounts are taken first, while the
// host's paths still mean the host's files; everything is attached by descriptor, to targets found inside the new root.

#include "program.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum step {
    STEP_SOURCE = 1,
    STEP_PRIVATE,
    STEP_OVERLAY,
    STEP_ROOT,
    STEP_BIND,
    STEP_MOUNT,
    STEP_READY,
    STEP_CGROUPS,
    STEP_DEVICE,
    STEP_TERMINAL,
    STEP_NAMES,
    STEP_SYSCTL,
    STEP_READ_ONLY,
    STEP_MASK,
    STEP_DIRECTORY,
    STEP_NULL_STDIN,
    STEP_PIVOT,
};

enum { WITHOUT_LINKS = 1, IS_PROC = 2, IS_PTS = 4, IS_DEV = 8 }; // of a mount
enum { PROPAGATION_BELOW = 1, ATTRIBUTES_BELOW = 2 };            // of a bind

enum { TREE_CLONE = 1, FROM_ITSELF = 4, TO_ITSELF = 0x40, BELOW = 0x8000, FSMOUNT_CLOEXEC_ = 1 }; // linux/mount.h
enum { READ_ONLY = 1, NO_EXEC = 8 };
struct attributes {
    uint64_t set, cleared, propagation, users;
};

enum { MAX_SOURCES = 4096, NO_USUAL = 0xffffffff };

static unsigned current; // which step this is
static unsigned detail;  // which of its parts, from 1 on; 0 for the whole
static int *sources, source_count;
static int proc_fd = -1, pts_fd = -1, null_fd = -1, empty_fd = -1, slave = -1;

static _Noreturn void fail_step(int error)
{
    fail_with(STAGE_STEP, error, current | detail << 16);
}

static int or_fail(long result)
{
    if (result < 0)
        fail_step(errno);
    return (int)result;
}

// --- mounts by descriptors ------------------------------------------------------------------------------------------

static int clone_tree(int directory, const char *path, bool below)
{
    unsigned flags = TREE_CLONE | O_CLOEXEC | (below ? BELOW : 0) | (*path ? 0 : AT_EMPTY_PATH);
    return or_fail(syscall(SYS_open_tree, directory, path, flags));
}

static void attach(int mount, int place)
{
    or_fail(syscall(SYS_move_mount, mount, "", place, "", FROM_ITSELF | TO_ITSELF));
}

static void set_attributes(int mount, struct attributes wanted, bool below)
{
    or_fail(syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH | (below ? BELOW : 0), &wanted, sizeof wanted));
}

static int mount_filesystem(struct filesystem *wanted, unsigned attributes)
{
    int context = wanted->context >= 0 ? wanted->context : or_fail(create_filesystem(wanted, &detail));
    detail = 0;
    wanted->context = -1;
    int mount = or_fail(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC_, attributes));
    close(context);
    return mount;
}

// One of the usual ones, or else another.
static struct filesystem *take_filesystem(void)
{
    uint32_t number = take_u32(), ignored;
    if (number < usual_count)
        return &usual[number];
    if (number != NO_USUAL)
        fail_with(STAGE_REQUEST, EPROTO, 0);
    struct filesystem *other = array(1, sizeof *other);
    other->kind = take_text();
    other->options = take_texts(&ignored);
    other->context = -1;
    return other;
}

// --- the null device, /proc and the terminals, where the plan mounts none of its own ----------------------------------

static int open_null_of(int directory)
{
    struct stat status;
    int fd = or_fail(openat(directory, "null", O_PATH | O_NOFOLLOW | O_CLOEXEC));
    or_fail(fstat(fd, &status));
    if (!S_ISCHR(status.st_mode) || status.st_rdev != makedev(1, 3))
        fail_step(ENODEV);
    return fd;
}

static int our_null(void)
{
    if (null_fd < 0) {
        int host = or_fail(open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC));
        null_fd = open_null_of(host);
        close(host);
    }
    return null_fd;
}

static int our_own(int *known, const char *kind, const char **options)
{
    struct filesystem wanted = {kind, options, -1};
    if (*known < 0)
        *known = mount_filesystem(&wanted, 0);
    return *known;
}

// devices.py says which, and why.
static void make_standard_nodes(int directory)
{
    static const struct {
        const char *name;
        unsigned major, minor;
    } nodes[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
    static const char *const links[][2] = {
        {"fd", "/proc/self/fd"},         {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
        {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"},         {"core", "/proc/kcore"},
    };
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
        or_fail(mknodat(directory, nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        or_fail(symlinkat(links[i][1], directory, links[i][0]));
    or_fail(mkdirat(directory, "pts", 0755));
    or_fail(mkdirat(directory, "mqueue", 0755));
}

// --- steps ----------------------------------------------------------------------------------------------------------

// What is mounted at a path, or at a path in it that cannot lead out of it; perhaps in the mount namespace of another
// process, from within which alone the kernel clones it (sources.py).
static void take_source(void)
{
    const char *namespace = take_text(), *path = take_text(), *inner = take_text();
    bool below = take_u32();
    int ours = -1;
    if (*namespace) {
        ours = or_fail(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
        int theirs = or_fail(open(namespace, O_RDONLY | O_CLOEXEC));
        or_fail(setns(theirs, CLONE_NEWNS));
        close(theirs);
    }
    int base = *inner ? or_fail(open(path, O_PATH | O_CLOEXEC)) : -1;
    int found = *inner ? or_fail(open_in(base, inner, O_PATH, true)) : AT_FDCWD;
    if (!sources)
        sources = array(MAX_SOURCES, sizeof *sources);
    if (source_count == MAX_SOURCES)
        fail_step(E2BIG);
    sources[source_count++] = clone_tree(found, *inner ? "" : path, below);
    if (*inner) {
        close(base);
        close(found);
    }
    if (ours >= 0) {
        or_fail(setns(ours, CLONE_NEWNS));
        close(ours);
    }
}

// What is mounted from here on, and what goes, is for nobody else.
static void leave_the_hosts(void)
{
    or_fail(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

static void tell_root(void)
{
    tell_with("{\"root\": true}", root_fd);
}

// Named by descriptors, because mount(2) takes 4096 bytes of options at most, and paths are long.
static void mount_overlay(void)
{
    uint32_t count;
    const char **lower = take_texts(&count), *upper = take_text(), *work = take_text();
    char data[4096] = "lowerdir=";
    size_t length = strlen(data);
    int *opened = array(count + 2, sizeof *opened);
    lower[count] = upper;
    lower[count + 1] = work;
    for (uint32_t i = 0; i < count + 2; i++) {
        detail = i + 1;
        opened[i] = or_fail(open(lower[i], O_PATH | O_DIRECTORY | O_CLOEXEC));
        const char *before = !i ? "" : i < count ? ":" : i == count ? ",upperdir=" : ",workdir=";
        length += (size_t)snprintf(data + length, sizeof data - length, "%s/proc/self/fd/%d", before, opened[i]);
        if (length >= sizeof data)
            fail_step(E2BIG);
    }
    detail = 0;
    length += (size_t)snprintf(data + length, sizeof data - length, ",redirect_dir=off,metacopy=off,index=off");
    if (length >= sizeof data)
        fail_step(E2BIG);
    or_fail(mount("overlay", upper, "overlay", 0, data));
    for (uint32_t i = 0; i < count + 2; i++)
        close(opened[i]);
    root_fd = or_fail(open(upper, O_PATH | O_DIRECTORY | O_CLOEXEC));
    tell_root();
}

// Without layers: a directory by itself.
static void bind_root(void)
{
    const char *path = take_text();
    root_fd = clone_tree(AT_FDCWD, path, false);
    int place = or_fail(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
    attach(root_fd, place);
    close(place);
    tell_root();
}

static void bind_source(void)
{
    uint32_t number = take_u32(), flags = take_u32(), propagation = take_u32(), set = take_u32(), cleared = take_u32();
    const char *path = take_text();
    struct stat status;
    if (number >= (uint32_t)source_count)
        fail_with(STAGE_REQUEST, EPROTO, 0);
    int source = sources[number];
    set_attributes(source, (struct attributes){.propagation = propagation}, flags & PROPAGATION_BELOW);
    if (set || cleared)
        set_attributes(source, (struct attributes){.set = set, .cleared = cleared}, flags & ATTRIBUTES_BELOW);
    or_fail(fstat(source, &status));
    int place = or_fail(target(path, S_ISDIR(status.st_mode), true));
    attach(source, place);
    close(place);
    close(source);
}

static void mount_new(void)
{
    struct filesystem *wanted = take_filesystem();
    uint32_t flags = take_u32(), attributes = take_u32();
    const char *path = take_text();
    int made = mount_filesystem(wanted, attributes), place = or_fail(target(path, true, !(flags & WITHOUT_LINKS)));
    attach(made, place);
    close(place);
    if (flags & IS_DEV) {
        make_standard_nodes(made);
        null_fd = open_null_of(made);
    }
    if (flags & IS_PROC)
        proc_fd = made;
    else if (flags & IS_PTS)
        pts_fd = made;
    else
        close(made);
}

// Waits until the keeper has made cgroup and links, and said what the program is to be; only in its cgroup can this
// begin a cgroup namespace.
static void get_ready(void)
{
    bool own_cgroups = take_u32();
    struct cursor steps = cursor;
    int fds[MAX_FDS];
    unsigned count;
    receive(fds, &count);
    take_request();
    cursor = steps;
    leave_for_container();
    if (own_cgroups)
        or_fail(unshare(CLONE_NEWCGROUP));
}

// The hierarchies of cgroup v1. The outer mount is attached before the inner ones: below a detached one nothing can be
// mounted before Linux 6.15.
static void mount_cgroups(void)
{
    struct filesystem *wanted = take_filesystem();
    uint32_t attributes = take_u32(), is_private = take_u32(), ignored;
    const char *path = take_text();
    int tree = mount_filesystem(wanted, attributes & ~(uint32_t)READ_ONLY), end_of_tree = or_fail(target(path, true, false));
    attach(tree, end_of_tree);
    close(end_of_tree);
    for (uint32_t left = take_u32(); left; left--) {
        const char *controllers = take_text(), *group = take_text(), *name = take_text(), **links = take_texts(&ignored);
        char place[40 + 256];
        or_fail(mkdirat(tree, name, 0755));
        snprintf(place, sizeof place, "/proc/self/fd/%d/%s", tree, name); // in a tree that nobody else can write
        if (is_private) {
            or_fail(mount("cgroup", place, "cgroup", attributes, controllers));
        } else {
            or_fail(mount(group, place, NULL, MS_BIND, NULL));
            or_fail(mount(NULL, place, NULL, MS_BIND | MS_REMOUNT | attributes, NULL));
        }
        for (; *links; links++)
            or_fail(symlinkat(name, tree, *links));
    }
    if (attributes & READ_ONLY)
        set_attributes(tree, (struct attributes){.set = READ_ONLY}, false);
    close(tree);
}

static void make_device(void)
{
    const char *directory = take_text(), *name = take_text();
    uint32_t mode = take_u32(), major = take_u32(), minor = take_u32(), uid = take_u32(), gid = take_u32();
    int parent = or_fail(target(directory, true, true));
    if (unlinkat(parent, name, 0) && errno != ENOENT)
        fail_step(errno);
    or_fail(mknodat(parent, name, mode, makedev(major, minor)));
    or_fail(fchownat(parent, name, uid, gid, AT_SYMLINK_NOFOLLOW));
    close(parent);
}

// Of the container's own devpts; its master goes to the keeper, itself also to /dev/console.
static void make_terminal(void)
{
    static const char *options[] = {"ptmxmode=0666", "mode=0620", NULL};
    int terminals = our_own(&pts_fd, "devpts", options);
    int master = or_fail(openat(terminals, "ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
    slave = or_fail(open_slave(master));
    tell_with("{\"terminal\": true}", master);
    close(master);
    int console = or_fail(target("/dev/console", false, false)), copy = clone_tree(slave, "", false);
    attach(copy, console);
    close(copy);
    close(console);
}

static void set_names(void)
{
    const char *host = take_text(), *domain = take_text();
    if (*host)
        or_fail(sethostname(host, strlen(host)));
    if (*domain)
        or_fail(setdomainname(domain, strlen(domain)));
}

// Through a /proc that we have mounted ourselves, never through what the image calls /proc.
static void write_sysctl(void)
{
    static const char *none[] = {NULL};
    const char *path = take_text(), *value = take_text();
    int fd = or_fail(openat(our_own(&proc_fd, "proc", none), path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
    or_fail(write(fd, value, strlen(value)));
    close(fd);
}

// -1 for what is not there.
static int existing(const char *path)
{
    int fd = open_in(root_fd, path, O_PATH, false);
    if (fd >= 0 || errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == EACCES)
        return fd;
    return or_fail(fd);
}

// By a read-only copy of itself.
static void make_read_only(void)
{
    int place = existing(take_text());
    if (place < 0)
        return;
    int copy = clone_tree(place, "", true);
    set_attributes(copy, (struct attributes){.set = READ_ONLY}, true);
    attach(copy, place);
    close(copy);
    close(place);
}

// Files behind the null device, directories behind an empty one.
static void mask(void)
{
    struct filesystem *empty = take_filesystem();
    int place = existing(take_text()), cover;
    struct stat status;
    if (place < 0)
        return;
    or_fail(fstat(place, &status));
    if (!S_ISDIR(status.st_mode))
        cover = clone_tree(our_null(), "", false);
    else if (empty_fd < 0)
        cover = empty_fd = mount_filesystem(empty, READ_ONLY | NO_EXEC);
    else
        cover = clone_tree(empty_fd, "", false);
    attach(cover, place);
    if (cover != empty_fd)
        close(cover);
    close(place);
}

// While the root can still be written; what is wrong with it is told when it is entered.
static void make_directory(void)
{
    int fd = target(take_text(), true, true);
    if (fd >= 0)
        close(fd);
}

// A stdin that is not open is the container's null device, not the host's.
static void take_null_stdin(void)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", our_null());
    int fd = or_fail(open(path, O_RDWR | O_CLOEXEC));
    or_fail(dup2(fd, 0));
    close(fd);
}

static void pivot(void)
{
    bool read_only = take_u32();
    if (read_only)
        set_attributes(root_fd, (struct attributes){.set = READ_ONLY}, false);
    or_fail(fchdir(root_fd));
    or_fail(syscall(SYS_pivot_root, ".", "."));
    or_fail(umount2(".", MNT_DETACH)); // the old root lies on top of the new one (pivot_root(2), NOTES)
    or_fail(chdir("/"));
    if (slave >= 0)
        take_terminal(slave);
}

static void (*const steps[])(void) = {
    [STEP_SOURCE] = take_source,
    [STEP_PRIVATE] = leave_the_hosts,
    [STEP_OVERLAY] = mount_overlay,
    [STEP_ROOT] = bind_root,
    [STEP_BIND] = bind_source,
    [STEP_MOUNT] = mount_new,
    [STEP_READY] = get_ready,
    [STEP_CGROUPS] = mount_cgroups,
    [STEP_DEVICE] = make_device,
    [STEP_TERMINAL] = make_terminal,
    [STEP_NAMES] = set_names,
    [STEP_SYSCTL] = write_sysctl,
    [STEP_READ_ONLY] = make_read_only,
    [STEP_MASK] = mask,
    [STEP_DIRECTORY] = make_directory,
    [STEP_NULL_STDIN] = take_null_stdin,
    [STEP_PIVOT] = pivot,
};

// The packet of the steps comes with stdin, stdout and stderr, or without any for a terminal.
void carry_out_steps(void)
{
    int fds[MAX_FDS];
    unsigned count;
    receive(fds, &count);
    if (unshare(CLONE_NEWNS))
        fail(STAGE_BIRTH);
    for (unsigned i = 0; i < count && i < 3; i++) {
        dup2(fds[i], (int)i);
        close(fds[i]);
    }
    for (; cursor.at < cursor.end; current++) {
        uint32_t number = take_u32();
        if (!number || number >= sizeof steps / sizeof *steps)
            fail_with(STAGE_REQUEST, EPROTO, 0);
        steps[number]();
    }
}
