/* lib/xstate.so of a bundle: lets a UML that was made before AMX run on processors that have it. Made by umlbuild.
 *
 * Such a UML keeps 2696 bytes of a guest process's floating point and vector registers. Linux takes back, by
 * PTRACE_SETREGSET, no less than all that the processor has, which is 11008 bytes with AMX: the guest's first process
 * would be its last ("fatal_sigsegv"). This library is loaded before the C library and hands over what UML has, with
 * zeros behind it. They mean nothing: the header in the first bytes says which parts are there, and a process that has
 * not asked for AMX has none of that. Linux takes of a larger buffer what it needs.
 *
 * It is compiled without any header, by gcc or tcc. Not for threads: one thread of UML traces.
 *
 * Source: arch/x86/um/os-Linux/registers.c and user-offsets.c (HOST_FP_SIZE) of 6.1 and 6.12; arch/x86/kernel/fpu/regset.c,
 * xstateregs_set; kernel/ptrace.c, ptrace_regset; measured: 6.1 and 6.12 panic on a host with AMX. */

enum { SYS_PTRACE = 101, PEEK_FIRST = 1, PEEK_LAST = 3, SETREGSET = 0x4205, X86_XSTATE = 0x202 };

struct piece {
    void *start;
    unsigned long size;
};

extern long syscall(long number, ...);

static unsigned long whole[2048];

long ptrace(int request, int pid, unsigned long address, struct piece *data)
{
    struct piece larger = {whole, sizeof whole};
    unsigned long at;
    long word = 0, status;

    if (request >= PEEK_FIRST && request <= PEEK_LAST) { /* the C library returns the word, the kernel writes it */
        status = syscall(SYS_PTRACE, request, pid, address, &word);
        return status < 0 ? status : word;
    }
    if (request == SETREGSET && address == X86_XSTATE && data->size < sizeof whole) {
        for (at = 0; at < data->size / sizeof *whole; at++)
            whole[at] = ((unsigned long *)data->start)[at];
        data = &larger;
    }
    return syscall(SYS_PTRACE, request, pid, address, data);
}
