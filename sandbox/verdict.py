"""How an execution ended: one status from exit code, signal, kernel counters and last words."""

import os
import signal

MEMORY_WORDS = (b"MemoryError", b"std::bad_alloc", b"heap out of memory", b"Cannot allocate memory")
PROCESS_WORDS = (
    b"Resource temporarily unavailable",
    b"can't start new thread",
    b"errno = 11",
    b"EAGAIN",
)
DISK_WORDS = (b"No space left on device", b"File too large", b"ENOSPC")
LAST_WORDS_BYTES = 2048


class Evidence:
    """What was counted before and after one execution."""

    def __init__(self, counters):
        self._counters = counters
        self._oom_before = counters.oom_kills()
        self._forks_before = counters.refused_forks()

    def status(self, report, stderr, disk_full, compiling):
        """Name the limit that was hit, or `ok`, `error` or `compile_error`."""
        code, number = split(report["status"])
        failed = code != 0
        forks_refused = self._counters.refused_forks() > self._forks_before
        if self._counters.oom_kills() > self._oom_before and (failed or report["killed"]):
            return "memory_limit"
        if forks_refused and (failed or report["killed"] == "timeout"):
            return "process_limit"
        if report["killed"]:
            return report["killed"]
        if number == signal.SIGXCPU or (number == signal.SIGKILL and report["out_of_cpu"]):
            return "timeout"
        if number == signal.SIGXFSZ or (failed and disk_full):
            return "disk_limit"
        if failed:
            return _limit_named_in(stderr) or ("compile_error" if compiling else "error")
        return "ok"


def split(wait_status):
    """Return (exit code or None, signal or None)."""
    if os.WIFSIGNALED(wait_status):
        return None, os.WTERMSIG(wait_status)
    return os.WEXITSTATUS(wait_status), None


def _limit_named_in(stderr):
    """Read the last words: rlimits leave no other trace than the error the program died of."""
    tail = stderr[-LAST_WORDS_BYTES:]
    for status, words in (
        ("memory_limit", MEMORY_WORDS),
        ("process_limit", PROCESS_WORDS),
        ("disk_limit", DISK_WORDS),
    ):
        if any(word in tail for word in words):
            return status
    return None
