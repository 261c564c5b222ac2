"""A stateful session: cells come in over a control pipe and run in one namespace.

What a cell says about itself is not trusted by the supervisor beyond that cell.
"""

import ast
import linecache
import os
import signal
import struct
import sys

import interpreter

LENGTH = struct.Struct(">I")


def serve(control):
    """Run cells until the control socket closes. Never returns."""
    main = interpreter.new_main([""])
    number = 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        source = _read_cell(control)
        if source is None:
            break
        number += 1
        try:
            failed = _run(source.decode("utf-8", "replace"), f"<cell {number}>", main.__dict__)
        except KeyboardInterrupt:
            failed = 1  # the interrupt came in the instant between the cell's end and its report
        _flush()
        os.write(control, b"1" if failed else b"0")
    interpreter.finish(0)


def _run(source, name, namespace):
    # Registered so that tracebacks can show the cell's lines.
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)

    def action():
        tree = ast.parse(source, name)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)
        exec(compile(tree, name, "exec"), namespace)
        if last is not None:
            sys.displayhook(eval(compile(last, name, "eval"), namespace))

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return interpreter.guarded(action)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _read_cell(control):
    head = _read_exactly(control, LENGTH.size)
    return _read_exactly(control, LENGTH.unpack(head)[0]) if head else None


def _read_exactly(fd, size):
    data = b""
    while len(data) < size:
        piece = os.read(fd, size - len(data))
        if not piece:
            return b""
        data += piece
    return data


def _flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
