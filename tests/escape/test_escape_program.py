"""Programs of system calls, run on this host as they are."""

from __future__ import annotations

import subprocess
from pathlib import Path

from umlbuild.attack.program import NOT_REACHED, Program

MARK = b"0123456789abcdef"


def run(program: Program, where: Path) -> bytes:
    path = where / "program"
    path.write_bytes(program.elf())
    path.chmod(0o755)
    return subprocess.run([path], capture_output=True, timeout=30, check=True).stdout


def test_calls_and_their_results(tmp_path: Path) -> None:
    (tmp_path / "read").write_text("what it holds\n")
    program = Program(MARK)
    program.show(str(tmp_path / "read"))
    program.names(str(tmp_path))
    program.put(str(tmp_path / "made"), b"content", label="put")
    program.call("openat", -100, "/nonexistent", 0, label="missing")
    program.call("getpid", label="pid")
    program.int80(20, label="pid-of-32-bit")
    output = run(program, tmp_path)
    assert b"what it holds\n" in output and b"read\0" in output and b"made\0" not in output
    assert (tmp_path / "made").read_text() == "content"
    results = program.results(output)
    assert results is not None
    assert results["missing"] == -2 and results["put"] >= 0
    assert results["pid"] > 1 and results["pid-of-32-bit"] in (results["pid"], -38)


def test_a_child(tmp_path: Path) -> None:
    program = Program(MARK)
    pid = program.child()
    program.put(str(tmp_path / "by-child"), b"x")
    program.end_child()
    program.sleep(1)
    program.call("kill", pid, 9, label="kill")
    results = program.results(run(program, tmp_path))
    assert results == {"kill": 0} and (tmp_path / "by-child").exists()


def test_sections_report_for_themselves(tmp_path: Path) -> None:
    program = Program(MARK)
    sections = []
    for word in ("one", "two", "three"):
        with program.section() as made:
            program.write(word.encode())
            program.call("chdir", "/" if word == "one" else "nonexistent", label="chdir")
            program.call("kill", program.call("getpid"), 9 if word == "two" else 0, label="kill")
        sections += made
    output = run(program, tmp_path)
    one, two, three = (program.report(section, output) for section in sections)
    assert one is not None and two is not None and three is not None
    assert (one.output, one.results) == (b"one", {"chdir": 0, "kill": 0})
    assert two.output.startswith(b"two") and two.results is None  # it killed itself, and the next one came
    assert (three.output, three.results) == (b"three", {"chdir": -2, "kill": 0})
    assert program.report(sections[2], output[: output.rindex(b"E0002")]) is None


def test_repetition_and_threads(tmp_path: Path) -> None:
    program = Program(MARK)
    with program.repeat(5):
        program.write(b"x")
    program.thread(label="thread")
    program.names("/proc/self/task")
    output = run(program, tmp_path)
    results = program.results(output)
    assert results is not None and results["thread"] > 1
    assert output.startswith(b"xxxxx") and b"xxxxxx" not in output
    assert f"{results['thread']}\0".encode() in output


def test_a_program_that_did_not_end() -> None:
    program = Program(MARK)
    program.call("getpid", label="pid")
    assert program.results(b"") is None and program.results(MARK + b"short") is None
    assert NOT_REACHED < 0
