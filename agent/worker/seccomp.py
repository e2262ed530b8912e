"""System calls that a worker never needs, refused by the kernel.

Sockets of every kind, programs, and the ways around Landlock.  A deny-list and no allow-list:
onnxruntime, numpy and the C library are free to change what else they call.  Architectures that are
not listed go without this layer.
"""

import ctypes
import errno
import platform
import struct
import sys

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD_WORD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _ARCH_AT = 0, 4  # in struct seccomp_data
_X32 = 0x40000000  # the other calling convention of x86-64, with numbers of its own

# socket connect bind execve execveat ptrace process_vm_readv process_vm_writev mount unshare setns
# bpf perf_event_open keyctl userfaultfd io_uring_setup pidfd_getfd
_DENIED = {
    "x86_64": (
        0xC000003E,
        (41, 42, 49, 59, 322, 101, 310, 311, 165, 272, 308, 321, 298, 250, 323, 425, 438),
    ),
    "aarch64": (
        0xC00000B7,
        (198, 203, 200, 221, 281, 117, 270, 271, 40, 97, 268, 280, 241, 219, 282, 425, 438),
    ),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def put_on() -> bool:
    """Refuse them from now on, in this thread and those it starts.  Needs no_new_privs.

    Raises:
        OSError: the kernel does not take the filter.
    """
    known = _DENIED.get(platform.machine())
    if sys.platform != "linux" or known is None:
        return False
    code = _filter(*known)
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    mode = ctypes.c_ulong(_MODE_FILTER)
    if libc.prctl(_PR_SET_SECCOMP, mode, ctypes.byref(program)) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    return True


def _filter(arch: int, numbers: tuple[int, ...]) -> bytes:
    """A BPF program: kill on another architecture, EPERM for `numbers`, allow the rest."""
    refuse_at = len(numbers) + 1  # from the first comparison, over the rest and the allowing return
    steps = [
        _step(_LOAD_WORD, 0, 0, _ARCH_AT),
        _step(_JUMP_EQUAL, 1, 0, arch),
        _step(_RETURN, 0, 0, _KILL),
        _step(_LOAD_WORD, 0, 0, _NUMBER_AT),
        _step(_JUMP_AT_LEAST, refuse_at, 0, _X32),
        *(_step(_JUMP_EQUAL, refuse_at - 1 - i, 0, n) for i, n in enumerate(numbers)),
        _step(_RETURN, 0, 0, _ALLOW),
        _step(_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    return b"".join(steps)


def _step(code: int, if_true: int, if_false: int, operand: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
