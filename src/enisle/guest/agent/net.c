/* NICs: found by their MAC, named, addressed, routed, over rtnetlink(7). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"

#define UP 1u /* IFF_UP */
#define MAX_ADDRESSES 16
#define MAX_ROUTES 64

struct ip {
    uint8_t length; /* 0: none, 4, 16 */
    uint8_t raw[16];
    uint8_t prefix;
};

struct nic {
    char name[16];
    uint8_t mac[6];
    uint32_t mtu;
    struct ip addresses[MAX_ADDRESSES];
    uint32_t address_count;
    struct ip gateways[2];
    struct {
        struct ip destination, via;
    } routes[MAX_ROUTES];
    uint32_t route_count;
};

struct request {
    struct nlmsghdr head;
    uint8_t body[512];
};

static void take_ip(struct reader *r, struct ip *ip)
{
    uint32_t length;
    const uint8_t *raw = take_bytes(r, &length);
    ip->prefix = take_u8(r);
    if (length != 0 && length != 4 && length != 16)
        r->bad = true;
    if (r->bad)
        length = 0;
    ip->length = (uint8_t)length;
    if (length)
        memcpy(ip->raw, raw, length);
}

struct nic *take_nic(struct reader *r)
{
    struct nic *nic = calloc(1, sizeof *nic);
    uint32_t length;
    char *name = take_string(r);
    const uint8_t *mac = take_bytes(r, &length);
    if (!nic || length != 6 || strlen(name) >= sizeof nic->name)
        r->bad = true;
    else {
        memcpy(nic->name, name, strlen(name));
        memcpy(nic->mac, mac, 6);
        nic->mtu = take_u32(r);
        nic->address_count = take_u32(r);
        for (uint32_t i = 0; i < nic->address_count && !r->bad; i++)
            if (i < MAX_ADDRESSES)
                take_ip(r, &nic->addresses[i]);
            else
                r->bad = true;
        take_ip(r, &nic->gateways[0]);
        take_ip(r, &nic->gateways[1]);
        nic->route_count = take_u32(r);
        for (uint32_t i = 0; i < nic->route_count && !r->bad; i++)
            if (i < MAX_ROUTES) {
                take_ip(r, &nic->routes[i].destination);
                take_ip(r, &nic->routes[i].via);
            } else
                r->bad = true;
    }
    free(name);
    if (r->bad) {
        free(nic);
        return NULL;
    }
    return nic;
}

static void add(struct request *request, uint16_t kind, const void *value, size_t length)
{
    struct rtattr *attribute = (void *)((uint8_t *)request + NLMSG_ALIGN(request->head.nlmsg_len));
    if (NLMSG_ALIGN(request->head.nlmsg_len) + RTA_LENGTH(length) > sizeof *request)
        return;
    attribute->rta_type = kind;
    attribute->rta_len = (uint16_t)RTA_LENGTH(length);
    memcpy(RTA_DATA(attribute), value, length);
    request->head.nlmsg_len = NLMSG_ALIGN(request->head.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
}

static void *begin(struct request *request, uint16_t kind, uint16_t flags, size_t size)
{
    memset(request, 0, sizeof *request);
    request->head.nlmsg_len = (uint32_t)NLMSG_LENGTH(size);
    request->head.nlmsg_type = kind;
    request->head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    return request->body;
}

static bool exchange(struct request *request)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct {
        struct nlmsghdr head;
        struct nlmsgerr error;
        uint8_t rest[1024];
    } answer = {0};
    bool good = fd >= 0 && send(fd, request, request->head.nlmsg_len, 0) >= 0 &&
                recv(fd, &answer, sizeof answer, 0) >= (ssize_t)sizeof answer.head;
    if (fd >= 0)
        close(fd);
    if (good && answer.head.nlmsg_type == NLMSG_ERROR && answer.error.error) {
        errno = -answer.error.error;
        return errno == EEXIST;
    }
    return good;
}

static bool read_number(const char *link, const char *file, int *number)
{
    char path[320], text[32] = "";
    snprintf(path, sizeof path, "/sys/class/net/%s/%s", link, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    *number = atoi(text);
    return n > 0;
}

static bool has_mac(const char *link, const uint8_t mac[6])
{
    char path[320], text[32] = "", wanted[32];
    snprintf(path, sizeof path, "/sys/class/net/%s/address", link);
    snprintf(wanted, sizeof wanted, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n >= 17 && !strncmp(text, wanted, 17);
}

static int find_link(const uint8_t mac[6])
{
    int index = 0;
    DIR *dir = opendir("/sys/class/net");
    for (struct dirent *entry; dir && !index && (entry = readdir(dir));)
        if (entry->d_name[0] != '.' && has_mac(entry->d_name, mac))
            read_number(entry->d_name, "ifindex", &index);
    if (dir)
        closedir(dir);
    return index;
}

static bool set_link(int index, const char *name, uint32_t mtu, bool up)
{
    struct request request;
    struct ifinfomsg *info = begin(&request, RTM_NEWLINK, 0, sizeof *info);
    info->ifi_index = index;
    info->ifi_change = up ? UP : 0;
    info->ifi_flags = up ? UP : 0;
    if (name)
        add(&request, IFLA_IFNAME, name, strlen(name) + 1);
    if (mtu)
        add(&request, IFLA_MTU, &mtu, sizeof mtu);
    return exchange(&request);
}

static bool add_address(int index, const struct ip *ip)
{
    struct request request;
    struct ifaddrmsg *message = begin(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof *message);
    uint32_t flags = IFA_F_NODAD;
    message->ifa_family = ip->length == 4 ? AF_INET : AF_INET6;
    message->ifa_prefixlen = ip->prefix;
    message->ifa_index = (uint32_t)index;
    add(&request, IFA_LOCAL, ip->raw, ip->length);
    add(&request, IFA_ADDRESS, ip->raw, ip->length);
    if (ip->length == 4) {
        uint32_t broadcast;
        memcpy(&broadcast, ip->raw, 4);
        uint32_t host = ip->prefix >= 32 ? 0 : 0xffffffffu >> ip->prefix;
        broadcast |= __builtin_bswap32(host);
        if (ip->prefix < 31)
            add(&request, IFA_BROADCAST, &broadcast, 4);
    } else
        add(&request, IFA_FLAGS, &flags, sizeof flags);
    return exchange(&request);
}

/* A default route that is there stays: the first NIC's. */
static bool add_route(int index, const struct ip *destination, const struct ip *via)
{
    struct request request;
    uint16_t flags = NLM_F_CREATE | (destination->length ? NLM_F_REPLACE : NLM_F_EXCL);
    struct rtmsg *message = begin(&request, RTM_NEWROUTE, flags, sizeof *message);
    const struct ip *known = via->length ? via : destination;
    uint32_t out = (uint32_t)index;
    message->rtm_family = known->length == 4 ? AF_INET : AF_INET6;
    message->rtm_dst_len = destination->length ? destination->prefix : 0;
    message->rtm_table = RT_TABLE_MAIN;
    message->rtm_protocol = RTPROT_BOOT;
    message->rtm_type = RTN_UNICAST;
    message->rtm_scope = via->length ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
    if (destination->length)
        add(&request, RTA_DST, destination->raw, destination->length);
    if (via->length)
        add(&request, RTA_GATEWAY, via->raw, via->length);
    add(&request, RTA_OIF, &out, sizeof out);
    return exchange(&request);
}

bool loopback_up(void)
{
    int index = 1;
    read_number("lo", "ifindex", &index);
    return set_link(index, NULL, 0, true);
}

static void set_ipv6(const struct nic *nic, const char *setting, const char *value)
{
    char path[128];
    snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/%s", nic->name, setting);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, value, 1) != 1)
        errno = 0; /* a kernel without IPv6 */
    close(fd);
}

/* A NIC without an IPv6 address takes none from router advertisements either; one with does not wait for its own. */
static void quieten_ipv6(const struct nic *nic)
{
    bool wanted = false;
    for (uint32_t i = 0; i < nic->address_count; i++)
        wanted = wanted || nic->addresses[i].length == 16;
    if (!wanted) {
        set_ipv6(nic, "disable_ipv6", "1");
        return;
    }
    set_ipv6(nic, "accept_ra", "0");
    set_ipv6(nic, "accept_dad", "0");
}

bool nic_up(struct nic *nic, int timeout_ms)
{
    int index;
    while (!(index = find_link(nic->mac)) && timeout_ms > 0) { /* a hot-plugged one takes its time to be found */
        usleep(5000);
        timeout_ms -= 5;
    }
    if (!index) {
        errno = ENODEV;
        return false;
    }
    int named = 0;
    read_number(nic->name, "ifindex", &named);
    bool good = set_link(index, named == index ? NULL : nic->name, nic->mtu, false);
    quieten_ipv6(nic);
    good = good && set_link(index, NULL, 0, true);
    for (uint32_t i = 0; good && i < nic->address_count; i++)
        good = add_address(index, &nic->addresses[i]);
    static const struct ip anywhere;
    for (int i = 0; good && i < 2; i++)
        if (nic->gateways[i].length)
            good = add_route(index, &anywhere, &nic->gateways[i]);
    for (uint32_t i = 0; good && i < nic->route_count; i++)
        good = add_route(index, &nic->routes[i].destination, &nic->routes[i].via);
    return good;
}

bool nic_down(const char *name)
{
    int index;
    struct request request;
    if (!read_number(name, "ifindex", &index))
        return true;
    struct ifinfomsg *info = begin(&request, RTM_NEWLINK, 0, sizeof *info);
    info->ifi_index = index;
    info->ifi_change = UP;
    return exchange(&request);
}
