/* jail packet IFNAME: a packet socket on an interface, behind a filter that nobody can take away again.
 *
 *   --filter FILE   a classic BPF program that says which frames come in
 *   --fd N          the descriptor under which the command gets the socket
 *   --inherited     the socket is there already as that descriptor: look whether it is what we would have made
 *   --buffer BYTES  how much may wait in it, each way
 *
 * Until the filter is locked the socket is bound to no protocol, so no frame comes in before. The interface hears all
 * frames (promiscuous), since a guest has another address than it.
 *
 * Source: packet(7); socket(7), SO_LOCK_FILTER; Documentation/networking/filter.rst. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "jail.h"

static void set_buffer(int fd, int size)
{
    const struct {
        int forced, plain;
    } ways[] = {{SO_RCVBUFFORCE, SO_RCVBUF}, {SO_SNDBUFFORCE, SO_SNDBUF}};

    for (size_t number = 0; number < 2; number++)
        if (setsockopt(fd, SOL_SOCKET, ways[number].forced, &size, sizeof size) &&
            setsockopt(fd, SOL_SOCKET, ways[number].plain, &size, sizeof size))
            fail(FAILED, "--buffer %d: %s", size, strerror(errno));
}

/* Whether descriptor `fd` is a packet socket on the interface, behind exactly this filter, which is locked. */
static void inspect(int fd, const char *name, const struct filter *filter)
{
    struct sock_filter found[FILTER_MOST];
    struct sockaddr_ll address = {0};
    socklen_t size = sizeof(int), length = sizeof address, count = FILTER_MOST;
    int domain = 0, type = 0, locked = 0;

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) || domain != AF_PACKET ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) || type != SOCK_RAW)
        fail(FAILED, "descriptor %d is no packet socket", fd);
    if (getsockname(fd, (struct sockaddr *)&address, &length) || address.sll_ifindex != (int)if_nametoindex(name))
        fail(FAILED, "descriptor %d is not bound to interface %s", fd, name);
    if (getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, found, &count) || count != filter->length ||
        memcmp(found, filter->code, count * sizeof *found))
        fail(FAILED, "descriptor %d does not have this packet filter", fd);
    if (getsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &locked, &size) || !locked)
        fail(FAILED, "descriptor %d: its packet filter is not locked", fd);
}

int packet(struct words *words)
{
    const char *option, *name = NULL;
    struct filter filter = {0, NULL};
    long target = -1, buffer = -1;
    bool inherited = false;
    int fd, on = 1;

    if (*words->at && (*words->at)[0] != '-')
        name = *words->at++;
    while ((option = next_option(words))) {
        if (strcmp(option, "--filter") == 0 && !filter.code)
            filter = read_filter(value_of(words, option));
        else if (strcmp(option, "--fd") == 0 && target < 0)
            target = number_of(value_of(words, option), option, 3, 65535);
        else if (strcmp(option, "--buffer") == 0 && buffer < 0)
            buffer = number_of(value_of(words, option), option, 1, 1 << 30);
        else if (strcmp(option, "--inherited") == 0)
            inherited = true;
        else
            fail(FAILED, "%s: unknown, or given twice", option);
    }
    if (!name || !*name || strlen(name) >= IFNAMSIZ)
        fail(FAILED, "packet: no name of an interface");
    if (!filter.code || target < 0)
        fail(FAILED, "packet: --filter FILE and --fd N are needed");

    if (inherited) {
        inspect((int)target, name, &filter);
        become(words);
    }

    fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail(FAILED, "a packet socket: %s%s", strerror(errno), errno == EPERM ? " (it takes CAP_NET_RAW)" : "");
    struct sock_fprog program = {filter.length, filter.code};
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program))
        fail(FAILED, "the kernel does not take the packet filter: %s", strerror(errno));
    if (setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof on))
        fail(FAILED, "the packet filter cannot be locked: %s", strerror(errno));
    free(filter.code);
    if (buffer > 0)
        set_buffer(fd, (int)buffer);

    struct ifreq interface = {0};
    strcpy(interface.ifr_name, name);
    if (ioctl(fd, SIOCGIFINDEX, &interface))
        fail(FAILED, "interface %s: %s", name, strerror(errno));
    struct packet_mreq all = {.mr_ifindex = interface.ifr_ifindex, .mr_type = PACKET_MR_PROMISC};
    if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all))
        fail(FAILED, "interface %s: cannot hear all frames: %s", name, strerror(errno));
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = interface.ifr_ifindex,
    };
    if (bind(fd, (struct sockaddr *)&address, sizeof address))
        fail(FAILED, "interface %s: %s", name, strerror(errno));

    if (fd != target && dup2(fd, (int)target) < 0)
        fail(FAILED, "--fd %ld: %s", target, strerror(errno));
    if (fcntl((int)target, F_SETFD, 0))
        fail(FAILED, "--fd %ld: %s", target, strerror(errno));
    become(words);
}
