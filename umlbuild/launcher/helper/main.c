/* The helper of a bundle's launcher: what POSIX sh cannot do. Made by umlbuild.
 *
 *   jail check                      whether this host can confine a process by Landlock as we need it
 *   jail landlock OPTION... -- WORD...   run a command in a sandbox made of Landlock and a filter of system calls
 *   jail packet IFNAME OPTION... -- WORD...   open a filtered packet socket for a command
 *   jail relay LISTENER HOST LOOPBACK   move frames between UML and slirp4netns
 *
 * The two with a command end in the words behind "--", so they can be chained, and with setpriv, setarch and so on.
 * Whatever goes wrong before that: one line on stderr, exit status 125 (121: Landlock is too old), nothing started. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jail.h"

void fail(int status, const char *format, ...)
{
    char line[1024];
    va_list values;

    va_start(values, format);
    vsnprintf(line, sizeof line, format, values);
    va_end(values);
    for (char *c = line; *c; c++) /* one line, whatever was in our arguments */
        if ((unsigned char)*c < ' ')
            *c = '?';
    dprintf(2, "jail: %s\n", line);
    exit(status);
}

const char *next_option(struct words *words)
{
    const char *word = *words->at;

    if (!word)
        fail(FAILED, "no \"--\" with a command behind it");
    words->at++;
    if (strcmp(word, "--") != 0)
        return word;
    if (!*words->at)
        fail(FAILED, "no command behind \"--\"");
    return NULL;
}

char *value_of(struct words *words, const char *name)
{
    if (!*words->at || strcmp(*words->at, "--") == 0)
        fail(FAILED, "%s: a value is missing", name);
    return *words->at++;
}

long number_of(const char *text, const char *name, long least, long most)
{
    char *end;
    long number;

    errno = 0;
    number = strtol(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || number < least || number > most)
        fail(FAILED, "%s %s: not a number from %ld to %ld", name, text, least, most);
    return number;
}

struct filter read_filter(const char *path)
{
    const size_t most = FILTER_MOST * sizeof(struct sock_filter);
    struct filter filter;
    struct stat info;
    size_t size = 0;
    ssize_t got;
    /* O_NONBLOCK: the opening of a fifo would wait. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &info))
        fail(FAILED, "filter %s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        fail(FAILED, "filter %s: is not a file", path);
    filter.code = malloc(most + 1);
    if (!filter.code)
        fail(FAILED, "filter %s: no memory", path);
    while (size <= most && (got = read(fd, (char *)filter.code + size, most + 1 - size)) > 0)
        size += (size_t)got;
    close(fd);
    if (size == 0 || size > most || size % sizeof(struct sock_filter))
        fail(FAILED, "filter %s: is no program of 1 to %d instructions of %zu bytes", path, FILTER_MOST,
             sizeof(struct sock_filter));
    filter.length = (unsigned short)(size / sizeof(struct sock_filter));
    return filter;
}

void become(struct words *words)
{
    execvp(words->at[0], words->at);
    fail(FAILED, "%s: cannot be started: %s", words->at[0], strerror(errno));
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    struct words words = {argc > 1 ? argv + 2 : argv};

    if (strcmp(name, "check") == 0 && argc == 2)
        return landlock_check();
    if (strcmp(name, "landlock") == 0)
        return landlock(&words);
    if (strcmp(name, "packet") == 0)
        return packet(&words);
    if (strcmp(name, "relay") == 0)
        return relay(words.at);
    fail(FAILED, "usage: jail check | jail landlock OPTION... -- WORD... | jail packet IFNAME OPTION... -- WORD... | "
                 "jail relay LISTENER HOST LOOPBACK");
}
