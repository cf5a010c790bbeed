"""Runs a program as in a kernel without IPv6: no_ipv6.py PROGRAM ARGUMENT... Its sockets of AF_INET6 fail with EAFNOSUPPORT."""

import ctypes
import errno
import os
import platform
import socket
import struct
import sys

SYS_SOCKET = {"x86_64": 41, "aarch64": 198}[platform.machine()]
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
RET_ALLOW, RET_ERRNO = 0x7FFF0000, 0x00050000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06


def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


STEPS = [
    step(LOAD, 0),  # the number of the system call
    step(JUMP_IF_EQUAL, SYS_SOCKET, 0, 3),
    step(LOAD, 16),  # its first argument
    step(JUMP_IF_EQUAL, socket.AF_INET6, 0, 1),
    step(RETURN, RET_ERRNO | errno.EAFNOSUPPORT),
    step(RETURN, RET_ALLOW),
]

libc = ctypes.CDLL(None, use_errno=True)
program = Program(len(STEPS), b"".join(STEPS))
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
    raise OSError(ctypes.get_errno(), "the filter cannot be installed")
os.execvp(sys.argv[1], sys.argv[1:])
