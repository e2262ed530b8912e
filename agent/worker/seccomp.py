"""System calls that a worker never needs, refused by the kernel.

Sockets of every kind, processes, programs, and the ways around Landlock.  A deny-list and no
allow-list: onnxruntime, numpy and the C library are free to change what else they call.
Architectures that are not listed go without this layer.
"""

import ctypes
import errno
import platform
import struct
import sys

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD_WORD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_JUMP_SET = 0x45
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _ARCH_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # in struct seccomp_data, little-endian
_CLONE_THREAD = 0x10000
_CLONE3 = 435  # its flags lie in memory, where a filter cannot look: the C library then uses clone
_X32 = 0x40000000  # the other calling convention of x86-64, with numbers of its own

# socket connect bind execve execveat ptrace process_vm_readv process_vm_writev mount unshare setns
# bpf perf_event_open keyctl userfaultfd io_uring_setup pidfd_getfd, and fork vfork where there are;
# then the number of clone, which makes threads and nothing else.
_DENIED = {
    "x86_64": (
        0xC000003E,
        (41, 42, 49, 59, 322, 101, 310, 311, 165, 272, 308, 321, 298, 250, 323, 425, 438, 57, 58),
        56,
    ),
    "aarch64": (
        0xC00000B7,
        (198, 203, 200, 221, 281, 117, 270, 271, 40, 97, 268, 280, 241, 219, 282, 425, 438),
        220,
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
    code = denying(*known)
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    mode = ctypes.c_ulong(_MODE_FILTER)
    if libc.prctl(_PR_SET_SECCOMP, mode, ctypes.byref(program)) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    return True


def denying(arch: int, numbers: tuple[int, ...], clone: int) -> bytes:
    """A BPF program: kill on another architecture, EPERM for `numbers` and for a `clone` that makes
    a process, ENOSYS for clone3, allow the rest.
    """
    refuse_at = len(numbers) + 6  # from the first comparison, over the rest and what follows
    steps = [
        _step(_LOAD_WORD, 0, 0, _ARCH_AT),
        _step(_JUMP_EQUAL, 1, 0, arch),
        _step(_RETURN, 0, 0, _KILL),
        _step(_LOAD_WORD, 0, 0, _NUMBER_AT),
        _step(_JUMP_AT_LEAST, refuse_at, 0, _X32),
        *(_step(_JUMP_EQUAL, refuse_at - 1 - i, 0, n) for i, n in enumerate(numbers)),
        _step(_JUMP_EQUAL, 0, 1, _CLONE3),
        _step(_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        _step(_JUMP_EQUAL, 0, 2, clone),
        _step(_LOAD_WORD, 0, 0, _FIRST_ARGUMENT_AT),
        _step(_JUMP_SET, 0, 1, _CLONE_THREAD),
        _step(_RETURN, 0, 0, _ALLOW),
        _step(_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    return b"".join(steps)


def _step(code: int, if_true: int, if_false: int, operand: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
