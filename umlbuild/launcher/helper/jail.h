/* What the parts of the helper share. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LANDLOCK_TOO_OLD = 121, /* exit status: the host's kernel cannot confine; nothing was started */
    FAILED = 125,           /* exit status: refused, or could not be done; nothing was started */
    FILTER_MOST = 4096,     /* instructions, the kernel's limit (BPF_MAXINSNS) */
};

/* The options of a subcommand, taken one by one up to "--". */
struct words {
    char **at;
};

/* A classic BPF program as it lies in a file: an array of struct sock_filter in the host's byte order. */
struct filter {
    unsigned short length;
    void *code;
};

/* Ends the helper with one line on stderr. */
__attribute__((noreturn, format(printf, 2, 3))) void fail(int status, const char *format, ...);

/* The next option, or NULL at "--"; fails if there is no "--" with a command behind it. */
const char *next_option(struct words *words);

/* What follows the option `name`. */
char *value_of(struct words *words, const char *name);

/* A decimal number from `least` to `most`. */
long number_of(const char *text, const char *name, long least, long most);

struct filter read_filter(const char *path);

/* Becomes the command behind "--"; fails if that cannot be. */
__attribute__((noreturn)) void become(struct words *words);

int landlock(struct words *words);
int landlock_check(void);
int packet(struct words *words);
int relay(char **words);
