"""SandboxFusion's `run_jupyter`: a list of cells in a session that lives for one request."""

import time
from typing import Any

from agentrl.contracts.sandbox import RunResult, RunStatus, Sandbox
from agentrl.errors import SandboxError, ToolError
from agentrl.sandbox.fusion import RunJupyterRequest, cell_result
from agentrl.sandbox.wire import files_to_text


async def run_cells(sandbox: Sandbox, body: RunJupyterRequest) -> dict[str, Any]:
    """Run the cells in order, stopping at a time-out; returns the response's fields."""
    deadline = time.monotonic() + body.total_timeout
    started = time.monotonic()
    try:
        session = await sandbox.open_session()
    except (SandboxError, ToolError) as error:
        return {"status": "SandboxError", "message": str(error)}
    results: list[RunResult] = []
    files = {name: data for name, data in body.files.items() if data is not None}
    try:
        for number, code in enumerate(body.cells):
            left = deadline - time.monotonic()
            timeout_s = min(left, body.cell_timeout) if body.cell_timeout > 0 else left
            last = number == len(body.cells) - 1
            result = await session.run_cell(
                code,
                timeout_s=max(timeout_s, 0.01),
                files=files if number == 0 else {},
                fetch_files=tuple(body.fetch_files) if last else (),
            )
            results.append(result)
            if result.status is RunStatus.TIMEOUT:
                break
    except (SandboxError, ToolError) as error:
        return {"status": "SandboxError", "message": str(error)}
    finally:
        await session.close()
    timed_out = bool(results) and results[-1].status is RunStatus.TIMEOUT
    return {
        "status": "Failed" if timed_out else "Success",
        "message": "",
        "driver": {
            "status": "TimeLimitExceeded" if timed_out else "Finished",
            "execution_time": time.monotonic() - started,
            "return_code": None if timed_out else 0,
            "stdout": "",
            "stderr": "",
        },
        "cells": [cell_result(result) for result in results],
        "executor_pod_name": results[-1].sandbox_id if results else None,
        "files": files_to_text(results[-1].files) if results else {},
    }
