"""From a forked child of the zygote to the untrusted program.

Order matters: descriptors first, limits before the user changes, because root may set any.
"""

import os
import signal

import interpreter
import notebook
from jail import set_limits

ENDS_LOUDLY = ("SIGPIPE", "SIGXFSZ", "SIGINT", "SIGTERM", "SIGHUP")
CONTROL_FD = 3


def become(step, fds, jail):
    """Turn this process into the step's program; returns only by an exception."""
    os.setsid()
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
    os.closerange(len(fds), 1024)
    _offer_to_the_oom_killer()
    set_limits(step["limits"])
    jail.enter()
    os.chdir(step["cwd"])
    if step["argv"] is not None:
        _reset_signals()
        _execute(step)
    if step["session"]:
        notebook.serve(CONTROL_FD)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interpreter.run(step["source"])


def _offer_to_the_oom_killer():
    """Be the first to go when the container is out of memory, before the fork server."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    except OSError:
        return
    try:
        os.write(fd, b"1000")
    finally:
        os.close(fd)


def _reset_signals():
    for name in ENDS_LOUDLY:
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def _execute(step):
    try:
        os.execvp(step["argv"][0], step["argv"])
    except OSError as error:
        os.write(2, f"{step['argv'][0]}: {error.strerror}\n".encode())
        os._exit(127)
