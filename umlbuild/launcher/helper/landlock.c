/* jail landlock: a command that reaches the files that are named here, and nothing else of the host.
 *
 *   --rx PATH      read and execute
 *   --ro PATH      read; of a directory also what is below it
 *   --rw PATH      read, write and truncate a file; of a directory also make, rename and remove what is below it
 *   --rwx PATH     both
 *   --dev PATH     read, write and control (ioctl) a device
 *   --filter FILE  a filter of system calls
 *   --hold FD      a descriptor that lasts as long as any process of the command, and is not handed to it
 *
 * The command also gets: no TCP, no abstract unix socket and no signal that leads out of its domain, no capability,
 * no new privileges, a session of its own. We stay as its parent, end it when our own parent ends, pass signals on, and
 * when it has ended we kill whatever it left (UML 6.1 leaves helpers that hold its disks and stdout). Our exit status
 * is the command's own, or 128+N if signal N ended it.
 *
 * Source: landlock(7), Documentation/userspace-api/landlock.rst: scopes came with ABI 6 (Linux 6.12). The headers of
 * older distributions do not have all of it, hence the numbers here. */

#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jail.h"

#ifndef ABI_NEEDED
#define ABI_NEEDED 6
#endif

enum { CREATE_RULESET = 444, ADD_RULE = 445, RESTRICT_SELF = 446 }; /* numbers of the calls, on all architectures */
enum { VERSION_FLAG = 1, PATH_BENEATH = 1 };

enum {
    EXECUTE = 1 << 0, WRITE_FILE = 1 << 1, READ_FILE = 1 << 2, READ_DIR = 1 << 3, REMOVE_DIR = 1 << 4,
    REMOVE_FILE = 1 << 5, MAKE_CHAR = 1 << 6, MAKE_DIR = 1 << 7, MAKE_REG = 1 << 8, MAKE_SOCK = 1 << 9,
    MAKE_FIFO = 1 << 10, MAKE_BLOCK = 1 << 11, MAKE_SYM = 1 << 12, REFER = 1 << 13, TRUNCATE = 1 << 14,
    IOCTL_DEV = 1 << 15,

    ALL_OF_FILES = (1 << 16) - 1,
    OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV, /* the others make sense for directories */
    RO = READ_FILE | READ_DIR,
    RW = RO | WRITE_FILE | TRUNCATE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO |
         MAKE_SYM | REFER, /* no device nodes */

    ALL_OF_NET = (1 << 2) - 1, /* bind and connect TCP */
    ALL_SCOPES = (1 << 2) - 1, /* abstract unix sockets, signals */
};

struct ruleset {
    uint64_t files, net, scopes;
};

struct path_rule {
    uint64_t allowed;
    int32_t fd;
} __attribute__((packed));

static const struct {
    const char *name;
    uint64_t rights;
} RULES[] = {
    {"--rx", RO | EXECUTE}, {"--ro", RO}, {"--rw", RW}, {"--rwx", RW | EXECUTE},
    {"--dev", READ_FILE | WRITE_FILE | IOCTL_DEV},
};

static const int PASSED_ON[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

static long abi(void)
{
    long found = syscall(CREATE_RULESET, NULL, 0, VERSION_FLAG);

    return found < 0 ? 0 : found;
}

static void need_abi(void)
{
    long found = abi();

    if (found < ABI_NEEDED)
        fail(LANDLOCK_TOO_OLD, "this kernel has Landlock ABI %ld%s, the sandbox needs %d (Linux 6.12)", found,
             found ? "" : " (none: not built in, or not in lsm=)", ABI_NEEDED);
}

int landlock_check(void)
{
    need_abi();
    return 0;
}

static bool add_rule(int ruleset, const char *option, struct words *words)
{
    for (size_t number = 0; number < sizeof RULES / sizeof *RULES; number++) {
        struct path_rule rule = {.allowed = RULES[number].rights};
        struct stat info;
        const char *path;

        if (strcmp(option, RULES[number].name) != 0)
            continue;
        path = value_of(words, option);
        rule.fd = open(path, O_PATH | O_CLOEXEC);
        if (rule.fd < 0 || fstat(rule.fd, &info))
            fail(FAILED, "%s %s: %s", option, path, strerror(errno));
        if (!S_ISDIR(info.st_mode))
            rule.allowed &= OF_A_FILE;
        if (syscall(ADD_RULE, ruleset, PATH_BENEATH, &rule, 0))
            fail(FAILED, "%s %s: Landlock takes no such rule: %s", option, path, strerror(errno));
        close(rule.fd);
        return true;
    }
    return false;
}

/* A datagram socket can send to every path, and no filter sees where to. */
static void refuse_datagram_sockets(int held)
{
    struct rlimit most;

    if (getrlimit(RLIMIT_NOFILE, &most) || most.rlim_cur > 1 << 20)
        fail(FAILED, "too many descriptors are possible");
    for (int fd = 0; fd < (int)most.rlim_cur; fd++) {
        int domain = 0, type = 0;
        socklen_t size = sizeof domain;

        if (fd == held || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) ||
            getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size))
            continue;
        if (domain == AF_UNIX && type == SOCK_DGRAM)
            fail(FAILED, "descriptor %d is a unix datagram socket, which can send to any socket of the host; "
                 "use SOCK_SEQPACKET", fd);
    }
}

static void drop_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}, {0}};

    for (int number = 0; prctl(PR_CAPBSET_DROP, number, 0, 0, 0) == 0; number++)
        ; /* ends at the last, or with the first if we may not; then no_new_privs has to do */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capset, &head, none))
        fail(FAILED, "capabilities cannot be dropped: %s", strerror(errno));
}

__attribute__((noreturn)) static void run(int ruleset, const struct filter *filter, int held, pid_t parent,
                                          const sigset_t *mask, struct words *words)
{
    struct sock_fprog program = {filter->length, filter->code};

    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || getppid() != parent)
        fail(FAILED, "our parent has ended");
    if (held >= 0)
        close(held);
    setsid();
    if (sigprocmask(SIG_SETMASK, mask, NULL) || syscall(RESTRICT_SELF, ruleset, 0))
        fail(FAILED, "Landlock cannot be entered: %s", strerror(errno));
    if (filter->length && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0))
        fail(FAILED, "the kernel does not take the filter of system calls: %s", strerror(errno));
    become(words);
}

/* Our parent's PID, from the text of /proc/PID/stat; behind the name, which may hold anything. */
static pid_t parent_in(const char *stat)
{
    const char *behind = strrchr(stat, ')');
    char state;
    int parent = 0;

    return behind && sscanf(behind + 1, " %c %d", &state, &parent) == 2 ? parent : 0;
}

/* Kill every child of ours: those of processes that have ended have become ours. */
static void kill_children(void)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;

    while (processes && (entry = readdir(processes))) {
        char path[300], text[1024];
        ssize_t size;
        int fd;

        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        size = read(fd, text, sizeof text - 1);
        close(fd);
        text[size > 0 ? size : 0] = 0;
        if (parent_in(text) == getpid())
            kill(atoi(entry->d_name), SIGKILL);
    }
    if (processes)
        closedir(processes);
}

static void end_all(void)
{
    const struct timespec tick = {.tv_nsec = 10000000};
    sigset_t ended;

    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    for (int ticks = 0; ticks < 1000; ticks++) {
        pid_t pid;

        while ((pid = waitpid(-1, NULL, WNOHANG | __WALL)) > 0)
            ;
        if (pid < 0)
            return;
        kill_children();
        sigtimedwait(&ended, NULL, &tick);
    }
    fail(FAILED, "processes of the command do not end");
}

/* Returns the command's exit status once it has ended; `end` is the signal that says that our parent has. */
static int await(pid_t child, const sigset_t *signals, int end)
{
    for (;;) {
        siginfo_t info;
        int number = sigwaitinfo(signals, &info), status;
        pid_t pid;

        if (number == end)
            return 128 + SIGKILL;
        if (number > 0 && number != SIGCHLD)
            kill(child, number);
        while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
            if (pid == child)
                return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
}

int landlock(struct words *words)
{
    const struct ruleset all = {ALL_OF_FILES, ALL_OF_NET, ALL_SCOPES};
    struct filter filter = {0, NULL};
    pid_t parent = getppid(), us = getpid(), child;
    int ruleset, status, held = -1, end = SIGRTMIN;
    sigset_t signals, before;
    const char *option;

    need_abi();
    ruleset = (int)syscall(CREATE_RULESET, &all, sizeof all, 0);
    if (ruleset < 0)
        fail(FAILED, "Landlock: no ruleset: %s", strerror(errno));
    while ((option = next_option(words))) {
        if (strcmp(option, "--filter") == 0 && !filter.code)
            filter = read_filter(value_of(words, option));
        else if (strcmp(option, "--hold") == 0 && held < 0)
            held = (int)number_of(value_of(words, option), option, 3, 65535);
        else if (!add_rule(ruleset, option, words))
            fail(FAILED, "%s: unknown, or given twice", option);
    }
    refuse_datagram_sockets(held);
    if (access("/proc/self/stat", R_OK))
        fail(FAILED, "there is no /proc, by which we find what the command leaves");

    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, end);
    for (size_t number = 0; number < sizeof PASSED_ON / sizeof *PASSED_ON; number++)
        sigaddset(&signals, PASSED_ON[number]);
    signal(SIGCHLD, SIG_DFL); /* ignored, children would vanish with their status */
    if (sigprocmask(SIG_BLOCK, &signals, &before) || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fail(FAILED, "cannot prepare: %s", strerror(errno));
    drop_capabilities();
    if (prctl(PR_SET_PDEATHSIG, end, 0, 0, 0) || getppid() != parent)
        fail(FAILED, "our parent has ended");
    child = fork();
    if (child < 0)
        fail(FAILED, "fork: %s", strerror(errno));
    if (child == 0)
        run(ruleset, &filter, held, us, &before, words);
    free(filter.code);
    close(ruleset);
    status = await(child, &signals, end);
    end_all();
    return status;
}
