"""libpcap by ctypes, in this process: the judge of our interpreter. The product itself asks tcpdump."""

from __future__ import annotations

import ctypes
import ctypes.util
from types import TracebackType

import pytest

from umlbuild.bpf.program import Program, unpacked

_ETHERNET = 1
_NETMASK = 0
"""As tcpdump has it without an interface: "ip broadcast" is then 255.255.255.255 and 0.0.0.0 alone."""


class _BpfProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint), ("rows", ctypes.c_void_p)]


class _Header(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("micros", ctypes.c_long), ("kept", ctypes.c_uint32),
                ("length", ctypes.c_uint32)]  # fmt: skip


class Compiled:
    """One expression, compiled by libpcap; `with` frees it."""

    def __init__(self, expression: str, *, optimize: bool = True) -> None:
        name = ctypes.util.find_library("pcap")
        if name is None:
            pytest.skip("libpcap is not installed")
        self._library = ctypes.CDLL(name)
        self._library.pcap_open_dead.restype = ctypes.c_void_p
        self._library.pcap_geterr.restype = ctypes.c_char_p
        self._handle = ctypes.c_void_p(self._library.pcap_open_dead(_ETHERNET, 262_144))
        self._program = _BpfProgram()
        done = self._library.pcap_compile(
            self._handle, ctypes.byref(self._program), expression.encode(), int(optimize),
            ctypes.c_uint32(_NETMASK),
        )  # fmt: skip
        if done != 0:
            wrong = self._library.pcap_geterr(self._handle).decode()
            self._library.pcap_close(self._handle)
            raise ValueError(f"{expression}: {wrong}")

    @property
    def program(self) -> Program:
        """Its instructions."""
        return unpacked(ctypes.string_at(self._program.rows, 8 * self._program.length))

    def passes(self, frame: bytes) -> bool:
        """libpcap's own verdict."""
        header = _Header(0, 0, len(frame), len(frame))
        return bool(self._library.pcap_offline_filter(ctypes.byref(self._program), ctypes.byref(header), frame))

    def __enter__(self) -> Compiled:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.pcap_freecode(ctypes.byref(self._program))
        self._library.pcap_close(self._handle)
