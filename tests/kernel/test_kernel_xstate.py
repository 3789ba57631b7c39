"""`lib/xstate.so`: a tracer that knows less of the processor's state than the processor has, with it and without."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from umlbuild.host import elf, libraries, process, xstate
from umlbuild.host.identity import compilers_library
from umlbuild.plan.kernel import xstate_source

pytestmark = pytest.mark.skipif(process.find("gcc") is None, reason="missing: gcc")

# Takes the state of a stopped child as far as AVX (832 bytes), changes xmm0 and the upper half of ymm0, gives it back,
# lets the child say whether it has them. Prints a word of the child's memory, what PEEKUSER says of a bad place, and
# that.
# With an argument: prints how many bytes there are.
TRACER = r"""
#include <errno.h>
#include <linux/elf.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static long known = -77;

int main(int count, char **words __attribute__((unused)))
{
    static unsigned char state[65536] __attribute__((aligned(64)));
    struct iovec piece = {state, count > 1 ? sizeof state : 832};
    unsigned long long wanted[4] = {1, 2, 3, 4}, found[4] = {0};
    int status;
    pid_t child = fork();
    if (!child) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        __asm__ volatile("vxorps %%ymm0, %%ymm0, %%ymm0\n\tmov %1, %%rdi\n\tmov %2, %%rsi\n\t"
                         "mov $62, %%eax\n\tsyscall\n\t"
                         "vmovups %%ymm0, %0"
                         : "=m"(found) : "r"((long)getpid()), "r"((long)SIGSTOP)
                         : "rax", "rcx", "r11", "rdi", "rsi", "xmm0", "memory");
        _exit(memcmp(found, wanted, sizeof found) ? 1 : 0);
    }
    waitpid(child, &status, 0);
    if (ptrace(PTRACE_GETREGSET, child, NT_X86_XSTATE, &piece))
        return perror("GETREGSET"), 2;
    if (count > 1)
        return printf("%zu\n", piece.iov_len), kill(child, SIGKILL), 0;
    memcpy(state + 160, wanted, 16);
    memcpy(state + 576, wanted + 2, 16);
    state[512] |= 6;
    piece.iov_len = 832;
    if (ptrace(PTRACE_SETREGSET, child, NT_X86_XSTATE, &piece))
        return perror("SETREGSET"), kill(child, SIGKILL), 3;
    errno = 0;
    printf("%ld ", ptrace(PTRACE_PEEKDATA, child, &known, 0));
    printf("%ld ", ptrace(PTRACE_PEEKUSER, child, 1 << 20, 0));
    printf("%s ", strerror(errno));
    ptrace(PTRACE_CONT, child, 0, 0);
    waitpid(child, &status, 0);
    printf("%d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    return 0;
}
"""


@pytest.fixture(scope="module", params=["gcc", "tcc"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, as the kernel stages make it."""
    where = tmp_path_factory.mktemp(request.param)
    program = where / "linux"
    compile_tracer(program)
    libraries.put_beside(program, compilers_library)
    compiler = list(xstate.GCC)
    if request.param == "tcc":
        process.run(["apt-get", "download", "tcc"], cwd=where, log=None, timeout_s=300)
        (deb,) = where.glob("tcc_*.deb")
        process.run(["dpkg-deb", "-x", str(deb), str(where / "tcc")], log=None, timeout_s=60)
        compiler = [str(where / "tcc/usr/bin/tcc")]
    xstate.put_beside(program, xstate_source(), compiler, work=where, log=None)
    return where / "lib" / xstate.NAME


def compile_tracer(path: Path) -> None:
    argv = ["gcc", "-O1", "-x", "c", "-", "-o", str(path)]
    subprocess.run(argv, input=TRACER.encode(), check=True, timeout=60)


def test_a_tracer_that_knows_less_than_the_processor(made: Path, tmp_path: Path) -> None:
    compile_tracer(tmp_path / "tracer")
    if int(process.output([str(tmp_path / "tracer"), "size"])) <= 832:
        pytest.skip("this processor has no more state than AVX, so no tracer knows less")
    alone = subprocess.run([tmp_path / "tracer"], capture_output=True, text=True, timeout=30, check=False)
    assert (alone.returncode, alone.stdout, alone.stderr) == (3, "", "SETREGSET: Bad address\n")
    with_it = subprocess.run([tmp_path / "tracer"], env={"LD_PRELOAD": str(made)}, capture_output=True, text=True,
                             timeout=30, check=False)  # fmt: skip
    assert (with_it.returncode, with_it.stdout, with_it.stderr) == (0, "-77 -1 Input/output error 0\n", "")


def test_it_needs_nothing_and_asks_for_no_executable_stack(made: Path) -> None:
    assert elf.linkage_of(made) == elf.Linkage(None, ())
    said = subprocess.run(["readelf", "-lW", made], capture_output=True, text=True, check=True, timeout=10).stdout
    (stack,) = (line.split() for line in said.splitlines() if "GNU_STACK" in line)
    assert stack[6] == "RW"
    symbols = process.output(["readelf", "--dyn-syms", "-W", str(made)])
    wanted = [line.split()[-1] for line in symbols.splitlines() if " UND " in line]
    assert [name for name in wanted if name != "UND"] == ["syscall"]


def test_a_file_that_has_the_header_keeps_it(made: Path) -> None:
    data = made.read_bytes()
    assert elf.with_plain_stack(data) == data


def test_a_static_program_gets_none(tmp_path: Path) -> None:
    shutil.copyfile("/bin/true", tmp_path / "linux")
    xstate.put_beside(tmp_path / "linux", "no C at all", ("false",), work=tmp_path, log=None)
    assert [path.name for path in tmp_path.iterdir()] == ["linux"]


def test_the_table_of_segments_is_appended() -> None:
    data = bytearray(64 + 56)
    struct.pack_into("<16sHHIQQQIHHH", data, 0, b"\x7fELF\x02\x01", 3, 62, 1, 0, 64, 0, 0, 64, 56, 1)
    made = elf.with_plain_stack(bytes(data) + b"rest")
    assert len(made) % 16 == 0 and made[64:124] == bytes(56) + b"rest"
    assert struct.unpack_from("<Q", made, 32)[0] == 128 and struct.unpack_from("<H", made, 56)[0] == 2
    assert elf.with_plain_stack(made) == made
