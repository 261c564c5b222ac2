"""The few Linux calls that Python's standard library does not wrap."""

import ctypes
import os

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWPID = 0x20000000
CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
# Made once: a forked child pays for every page it touches.
_NO_CAPABILITIES = (ctypes.c_uint32 * 6)()
_CAPABILITY_HEADER = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)


def prctl(option, argument, third=0):
    """Make the system call prctl.

    Raises:
        OSError: the kernel refused.
    """
    _check(_libc.prctl(option, argument, third, 0, 0))


def unshare(flags):
    """Make the system call unshare."""
    _check(_libc.unshare(flags))


def setns(fd, kind):
    """Make the system call setns."""
    _check(_libc.setns(fd, kind))


def drop_capabilities():
    """Empty the effective, permitted and inheritable sets of this process."""
    _check(_libc.capset(_CAPABILITY_HEADER, _NO_CAPABILITIES))


def drop_inheritable_capabilities():
    """Empty the inheritable set, which survives a change of user."""
    sets = (ctypes.c_uint32 * 6)()
    _check(_libc.capget(_CAPABILITY_HEADER, sets))
    sets[2] = sets[5] = 0  # (effective, permitted, inheritable), twice 32 bits
    _check(_libc.capset(_CAPABILITY_HEADER, sets))


def flush_c_streams():
    """Write out what C code left in stdio's buffers."""
    _libc.fflush(None)


def _check(result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
