/* PID 1 of the VM: one thread, one loop. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

int loop_fd;

static void failed(uint16_t channel, const struct failure *failure)
{
    uint8_t body[5 + sizeof failure->detail];
    size_t length = strlen(failure->detail);
    body[0] = failure->stage;
    put_u32(body + 1, (uint32_t)failure->error);
    memcpy(body + 5, failure->detail, length);
    wire_send(MSG_FAILED, channel, 0, body, (uint32_t)(5 + length));
}

static void setup(struct reader *r)
{
    struct failure failure = {0};
    if (boot_setup(r, &failure))
        wire_send(MSG_READY, 0, 0, NULL, 0);
    else
        failed(0, &failure);
}

static void dispatch(const struct frame *frame, const uint8_t *body)
{
    struct reader r = {body, body + frame->length, false};
    switch (frame->type) {
    case MSG_SETUP:
        setup(&r);
        break;
    case MSG_RUN:
        session_run(frame->channel, &r);
        break;
    case MSG_CALL:
        session_call(frame->channel, &r);
        break;
    case MSG_INPUT:
        session_input(frame->channel, body, frame->length);
        break;
    case MSG_INPUT_END:
        session_input_end(frame->channel);
        break;
    case MSG_CREDIT:
        session_credit(frame->channel, take_u32(&r));
        break;
    case MSG_SIGNAL: {
        uint32_t number = take_u32(&r);
        session_signal(frame->channel, (int)number, frame->stream != 0);
        break;
    }
    case MSG_RESIZE: {
        uint16_t rows = take_u16(&r);
        session_resize(frame->channel, rows, take_u16(&r));
        break;
    }
    case MSG_ABORT:
        session_abort(frame->channel);
        break;
    case MSG_CLOCK:
        set_clock(take_u64(&r));
        break;
    case MSG_FREEZE:
        workload_freeze(take_u8(&r) != 0);
        break;
    case MSG_LIMIT: {
        uint64_t taken = take_u64(&r);
        workload_limit(taken, take_u32(&r));
        break;
    }
    case MSG_SHUTDOWN:
        close_disk();
        power_off();
    default:
        break; /* of a newer host; what needs an answer is asked only of a generation that knows it */
    }
}

static void reap(int fd)
{
    struct signalfd_siginfo info;
    while (read(fd, &info, sizeof info) > 0)
        ;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        session_reaped(pid, status);
}

static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static void watch(int fd, uint32_t events, void *tag, int how)
{
    struct epoll_event event = {.events = events, .data = {.ptr = tag}};
    epoll_ctl(loop_fd, how, fd, &event);
}

static char wire_tag, signal_tag;

static void handle(const struct epoll_event *event, int signals)
{
    if (event->data.ptr == &signal_tag) {
        reap(signals);
        return;
    }
    if (event->data.ptr == &workload_tag) {
        workload_check_oom();
        return;
    }
    if (event->data.ptr != &wire_tag) {
        session_event(event->data.ptr, event->events);
        return;
    }
    if (event->events & EPOLLIN) {
        struct frame frame;
        const uint8_t *body;
        wire_fill();
        while (wire_next(&frame, &body))
            dispatch(&frame, body);
    } else if (event->events & EPOLLHUP) {
        usleep(10000); /* the host has let go of the port; it is about to end us */
    }
}

static void loop(int signals)
{
    bool writing = false;
    for (;;) {
        struct epoll_event events[64];
        int count = epoll_wait(loop_fd, events, 64, -1);
        for (int i = 0; i < count; i++)
            handle(&events[i], signals);
        session_sweep();
        bool all = wire_flush();
        if (all)
            session_resume();
        all = wire_flush();
        if (all == writing) {
            writing = !all;
            watch(wire_fd(), EPOLLIN | (writing ? (uint32_t)EPOLLOUT : 0), &wire_tag, EPOLL_CTL_MOD);
        }
    }
}

int main(int count, char **words)
{
    if (getpid() != 1)
        return answer_modprobe(count, words);
    boot_early();
    loop_fd = epoll_create1(EPOLL_CLOEXEC);
    int signals = open_signals();
    wire_open();
    uint8_t generation[4];
    put_u32(generation, GENERATION);
    wire_send(MSG_HELLO, 0, 0, generation, sizeof generation);
    wire_flush();
    watch(wire_fd(), EPOLLIN, &wire_tag, EPOLL_CTL_ADD);
    watch(signals, EPOLLIN, &signal_tag, EPOLL_CTL_ADD);
    loop(signals);
}
