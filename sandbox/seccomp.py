"""Our own system-call filter, stacked on whatever the container runtime already forbids.

The filter is assembled once, as classic BPF over `struct seccomp_data`, from `seccomp.json`.
A denied call fails with EPERM; a call made through another machine's ABI kills the process.
"""

import ctypes
import json
import os
import platform
import struct

import kernel

INSTRUCTION = struct.Struct("HBBI")
LOAD_WORD = 0x20
JUMP_ALWAYS = 0x05
JUMP_EQUAL = 0x15
JUMP_GREATER_EQUAL = 0x35
JUMP_ANY_BIT = 0x45
RETURN = 0x06
ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
FAIL_WITH = 0x00050000
EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97
NUMBER, ARCHITECTURE = 0, 4
MODE_FILTER = 2

MACHINES = {
    # name: (audit architecture, clone, clone3, socket, prlimit64)
    "x86_64": (0xC000003E, 56, 435, 41, 302),
    "aarch64": (0xC00000B7, 220, 435, 198, 261),
}
X32_BIT = 0x40000000
NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEW{USER,PID,NET,IPC,UTS,CGROUP,NS}
SOCKET_TYPE_MASK = 0xF
STREAM, DATAGRAM = 1, 2


def argument(index):
    """Return the offset of the low half of a system call's argument (little-endian machines)."""
    return 16 + 8 * index


def assemble(profile, machine):
    """Return the filter's instructions as bytes."""
    audit, clone, clone3, socket, prlimit = MACHINES[machine]
    program = [
        _load(ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, audit),
        (RETURN, 0, 0, KILL_PROCESS),
        _load(NUMBER),
    ]
    if machine == "x86_64":
        program += [(JUMP_GREATER_EQUAL, 0, 1, X32_BIT), (RETURN, 0, 0, KILL_PROCESS)]
    answers = {
        number: [(RETURN, 0, 0, FAIL_WITH | EPERM)] for number in profile["deny"][machine].values()
    }
    # clone3 hides its flags behind a pointer; with ENOSYS the C library falls back to clone.
    answers[clone3] = [(RETURN, 0, 0, FAIL_WITH | ENOSYS)]
    answers[clone] = _refuse_flags()
    answers[socket] = _only_families(profile["families"])
    answers[prlimit] = _only_own_limits()
    program += _search(sorted(answers.items()))
    return b"".join(INSTRUCTION.pack(*line) for line in program)


def _search(answers):
    """Find the number by halving: the kernel tries the filter on every number at installation."""
    if not answers:
        return [(RETURN, 0, 0, ALLOW)]
    if len(answers) == 1:
        number, body = answers[0]
        return [(JUMP_EQUAL, 0, len(body), number), *body, (RETURN, 0, 0, ALLOW)]
    middle = len(answers) // 2
    below, above = _search(answers[:middle]), _search(answers[middle:])
    # Conditional jumps reach 255 instructions; an unconditional one reaches any.
    return [
        (JUMP_GREATER_EQUAL, 0, 1, answers[middle][0]),
        (JUMP_ALWAYS, 0, 0, len(below)),
        *below,
        *above,
    ]


def _load(offset):
    return (LOAD_WORD, 0, 0, offset)


def _refuse_flags():
    return [
        _load(argument(0)),
        (JUMP_ANY_BIT, 0, 1, NAMESPACE_FLAGS),
        (RETURN, 0, 0, FAIL_WITH | EPERM),
        (RETURN, 0, 0, ALLOW),
    ]


def _only_families(families):
    body = [_load(argument(0))]
    for position, family in enumerate(families):
        body.append((JUMP_EQUAL, len(families) - position, 0, family))
    body.append((RETURN, 0, 0, FAIL_WITH | EAFNOSUPPORT))
    types = [_load(argument(1)), (0x54, 0, 0, SOCKET_TYPE_MASK)]  # and with the mask
    types += [(JUMP_EQUAL, 2, 0, STREAM), (JUMP_EQUAL, 1, 0, DATAGRAM)]
    types += [(RETURN, 0, 0, FAIL_WITH | EPERM), (RETURN, 0, 0, ALLOW)]
    return body + types


def _only_own_limits():
    return [
        _load(argument(0)),
        (JUMP_EQUAL, 1, 0, 0),
        (RETURN, 0, 0, FAIL_WITH | EPERM),
        (RETURN, 0, 0, ALLOW),
    ]


class Filter:
    """The assembled filter, ready to be installed in a child."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            profile = json.load(file)
        machine = platform.machine()
        if machine not in MACHINES:
            raise OSError(f"no seccomp profile for machine {machine!r}; have {list(MACHINES)}")
        code = assemble(profile, machine)
        self._code = ctypes.create_string_buffer(code, len(code))
        # struct sock_fprog: unsigned short count, padding, pointer to the instructions.
        self._program = ctypes.create_string_buffer(
            struct.pack("@HP", len(code) // INSTRUCTION.size, ctypes.addressof(self._code))
        )

    def install(self):
        """Filter this process and all its descendants from now on."""
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.prctl(kernel.PR_SET_SECCOMP, MODE_FILTER, ctypes.addressof(self._program))


def default_profile():
    """Return the path of the profile that lies beside this module."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "seccomp.json")
