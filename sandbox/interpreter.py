"""Running a Python source file in a forked interpreter as `python FILE` would."""

import atexit
import builtins
import os
import signal
import sys
import threading
import traceback
import types

import kernel

GUEST_FOLDER = os.path.dirname(os.path.abspath(__file__))
GUEST_MODULES = tuple(
    name.removesuffix(".py") for name in os.listdir(GUEST_FOLDER) if name.endswith(".py")
)


def prepare(folder):
    """Make `sys` look like a fresh interpreter's, once, in the slot's zygote."""
    for name in GUEST_MODULES:
        sys.modules.pop(name, None)
    sys.path[:] = [folder] + [path for path in sys.path if path != GUEST_FOLDER]


def new_main(arguments):
    """Install a fresh `__main__`, in the program's own process; returns it."""
    main = types.ModuleType("__main__")
    main.__builtins__ = builtins
    sys.modules["__main__"] = main
    sys.argv[:] = arguments
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    return main


def run(source):
    """Run `source` and leave the process with its exit code."""
    main = new_main([source])
    main.__file__ = source
    code = guarded(lambda: _execute(source, main))
    finish(code)


def _execute(source, main):
    with open(source, "rb") as file:
        text = file.read()
    exec(compile(text, source, "exec"), main.__dict__)


def guarded(action):
    """Call `action`; returns the exit code that the interpreter would end with."""
    try:
        action()
    except SystemExit as request:
        return exit_code(request)
    except KeyboardInterrupt:
        show_exception(*sys.exc_info())
        return 128 + signal.SIGINT
    except BaseException:
        show_exception(*sys.exc_info())
        return 1
    return 0


def exit_code(request):
    """Return the exit code that `sys.exit(...)` asked for, printing what it names."""
    if request.code is None:
        return 0
    if isinstance(request.code, int):
        return request.code & 0xFF
    print(request.code, file=sys.stderr)
    return 1


def show_exception(kind, error, trace):
    """Print a traceback without the fork server's own frames."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(GUEST_FOLDER):
        trace = trace.tb_next
    error = error.with_traceback(trace)
    if sys.excepthook is not sys.__excepthook__:
        try:
            sys.excepthook(kind, error, trace)
            return
        except BaseException:
            sys.stderr.write("Error in sys.excepthook:\n")
    # Unlike the built-in hook this one shows the lines of a session's cells, which are in no file.
    traceback.print_exception(kind, error, trace)


def finish(code):
    """End as the interpreter does: threads, exit functions, buffers."""
    code = max(code, guarded(threading._shutdown))
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            code = code or 120
    kernel.flush_c_streams()
    os._exit(code)
