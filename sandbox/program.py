"""From a forked child of the zygote to the untrusted program.

Order matters: descriptors first, limits before the user changes (root may set any), the filter
last of all, because the steps before it need calls that it forbids.
"""

import os
import resource
import signal

import interpreter
import kernel
import notebook

ENDS_LOUDLY = ("SIGPIPE", "SIGXFSZ", "SIGINT", "SIGTERM", "SIGHUP")
CONTROL_FD = 3


def become(step, fds, jail, system_calls):
    """Turn this process into the step's program; returns only by an exception."""
    os.setsid()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # /proc/self is ours again, as any program's is
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
    os.closerange(len(fds), 1024)
    _offer_to_the_oom_killer()
    _limit(step["limits"])
    jail.enter()
    os.chdir(step["cwd"])
    if step["argv"] is not None:
        _reset_signals()
    if system_calls is not None:
        system_calls.install()
    if step["argv"] is not None:
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


def _limit(limits):
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is None:
            continue
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        # The kernel signals at the soft CPU limit and kills at the hard one.
        resource.setrlimit(kind, (value, value + 1 if name == "CPU" else value))


def _reset_signals():
    for name in ENDS_LOUDLY:
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def _execute(step):
    try:
        os.execvp(step["argv"][0], step["argv"])
    except OSError as error:
        os.write(2, f"{step['argv'][0]}: {error.strerror}\n".encode())
        os._exit(127)
