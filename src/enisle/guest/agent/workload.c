/* The workload's cgroup: what all of its processes together may use, and what befalls them together. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "agent.h"

#define GROUP CGROUP "/workload"
#define LEAST_MEMORY (16ull << 20) /* less kills whatever is started */

char workload_tag;
static int events_fd = -1;
static unsigned long oom_seen;

static void set_pids(uint32_t pids)
{
    char text[32] = "max";
    if (pids)
        snprintf(text, sizeof text, "%u", pids);
    write_file(GROUP "/pids.max", text);
}

void workload_open(uint32_t pids)
{
    if (!mount_at("cgroup", CGROUP, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
        return;
    write_file(CGROUP "/cgroup.subtree_control", "+cpu +memory +pids +io");
    write_file(CGROUP "/cgroup.subtree_control", "+cpuset"); /* by itself: not every kernel has it */
    mkdir(GROUP, 0755);
    set_pids(pids);
    events_fd = open(GROUP "/memory.events", O_RDONLY | O_CLOEXEC);
    if (events_fd < 0)
        return;
    workload_check_oom(); /* the kernel tells of changes since the file was last read */
    struct epoll_event event = {.events = EPOLLPRI, .data = {.ptr = &workload_tag}};
    epoll_ctl(loop_fd, EPOLL_CTL_ADD, events_fd, &event);
}

void workload_join(void)
{
    write_file(GROUP "/cgroup.procs", "0");
}

/* `taken`: bytes of the memory that the machine was started with. The host's balloon takes them as far as they are
 * free; the limit keeps the workload from asking for them back. */
void workload_limit(uint64_t taken, uint32_t pids)
{
    struct sysinfo info;
    char text[32] = "max";
    if (taken && !sysinfo(&info)) {
        uint64_t total = (uint64_t)info.totalram * info.mem_unit;
        uint64_t left = total > taken + LEAST_MEMORY ? total - taken : LEAST_MEMORY;
        snprintf(text, sizeof text, "%llu", (unsigned long long)left);
    }
    write_file(GROUP "/memory.max", text);
    set_pids(pids);
}

void workload_check_oom(void)
{
    char text[512], *line;
    ssize_t length = events_fd < 0 ? -1 : pread(events_fd, text, sizeof text - 1, 0);
    if (length <= 0)
        return;
    text[length] = 0;
    if (!(line = strstr(text, "oom_kill ")))
        return;
    unsigned long value = strtoul(line + strlen("oom_kill "), NULL, 10);
    if (value > oom_seen) {
        oom_seen = value;
        wire_send(MSG_OOM, 0, 0, NULL, 0);
    }
}

/* Stops or continues all of the workload, for as long as the host wants to look at it at rest. Where there is no
 * cgroup v2 the host stops the CPUs anyway. */
void workload_freeze(bool frozen)
{
    write_file(GROUP "/cgroup.freeze", frozen ? "1" : "0");
}

void workload_signal(int number)
{
    FILE *list = fopen(GROUP "/cgroup.procs", "re");
    int pid;
    while (list && fscanf(list, "%d", &pid) == 1)
        if (pid > 1)
            kill(pid, number);
    if (list)
        fclose(list);
}
