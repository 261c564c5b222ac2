"""One request: files in, one or two steps (compile, run), files out, a clean slot."""

import errno
import os
import time

import verdict
import workdir
from process import Process

MEGABYTE = 1024 * 1024


class Execution:
    """Runs the steps of one request in one slot and hands the result frame to `finished`."""

    def __init__(self, slot, request, blobs, finished):
        self._slot, self._request, self._finished = slot, request, finished
        self._code, self._stdin, *self._contents = blobs
        self._steps = list(request["steps"])
        self._process = None
        self._evidence = verdict.Evidence(slot.counters)
        self._totals = {"duration_s": 0.0, "cpu_s": 0.0, "peak_kib": 0.0}

    def start(self):
        """Place the files and begin the first step."""
        try:
            self._source = self._slot.folder.place(self._request["file"], self._code)
            for name, content in zip(self._request["files"], self._contents, strict=True):
                self._slot.folder.put(name, content)
            for name in self._request["fetch"]:
                workdir.check_relative(name)
        except workdir.RefusedPathError as error:
            self._finish({"status": "refused", "reason": str(error)})
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
            status = "disk_limit" if full else "refused"
            self._finish({"status": status, "reason": f"{error.filename}: {error.strerror}"})
        else:
            self._begin()

    def cancel(self):
        """The caller is gone: end the program."""
        if self._process is not None:
            self._process.kill("cancelled")

    def _begin(self):
        step = self._steps.pop(0)
        self._compiling = step["name"] == "compile"
        order = self._slot.order(step, self._request, self._source)
        self._cpu_limit_s = order["limits"]["CPU"]
        self._process = Process(
            self._slot.loop,
            self._slot.zygote,
            order,
            [_as_file(b"" if self._compiling else self._stdin)],
            self._request["max_output_bytes"],
            self._step_ended,
        )
        self._process.end_at(time.monotonic() + step["timeout_s"])

    def _step_ended(self, report):
        if report is None:
            self._finish({"status": "sandbox_error", "reason": "the slot's fork server died"})
            return
        process = self._process
        self._totals["duration_s"] += report["duration_s"]
        self._totals["cpu_s"] += report["cpu_s"]
        self._totals["peak_kib"] = max(self._totals["peak_kib"], report["peak_kib"])
        report["out_of_cpu"] = report["cpu_s"] >= self._cpu_limit_s
        status = self._evidence.status(
            report, bytes(process.stderr.data), self._slot.folder.full(), self._compiling
        )
        if status == "ok" and self._steps:
            self._begin()
            return
        code, number = verdict.split(report["status"])
        self._finish({"status": status, "exit_code": code, "signal": number})

    def _finish(self, outcome):
        wanted = self._request["fetch"] if outcome["status"] != "refused" else ()
        names, contents = self._slot.folder.fetch_all(wanted, self._slot.disk_bytes)
        streams, truncated = [b"", b""], []
        if self._process is not None:
            streams = [bytes(self._process.stdout.data), bytes(self._process.stderr.data)]
            captured = {"stdout": self._process.stdout, "stderr": self._process.stderr}
            truncated = [name for name, stream in captured.items() if stream.truncated]
        header = {**self._totals, **outcome, "files": names, "truncated": truncated}
        self._finished(header, [*streams, *contents])


def _as_file(content):
    """Return a descriptor from which a program reads `content`."""
    if not content:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    fd = os.memfd_create("stdin")
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
