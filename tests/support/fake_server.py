"""A server that speaks vLLM's or SGLang's protocol, in a process of its own, for faults.

It writes its own weights' number as every token, and takes it off every log-probability of a
prompt, so that an answer says what served it. Usage:
`fake_server.py PORT {vllm,sglang,strange} DELAY_S`. Posting /hang makes it accept and never answer.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

PORT, MAKE, DELAY_S = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
ARGUMENTS = '{"a": 2, "b": 3}'
STATE: dict[str, Any] = {"weights": 0, "paused": False, "hang": False, "served": 0}
REFUSE = {"times": 0, "status": 429}


async def answer(request: Request) -> JSONResponse:
    path, body = request.url.path, await request.json() if await request.body() else {}
    if path in ("/v1/completions", "/generate"):
        return JSONResponse(await generate(body))
    if path == "/v1/chat/completions":
        return JSONResponse({"choices": [{"message": chat(body)}]})
    if MAKE == "strange" and path == "/pause":
        return JSONResponse({"error": "no such path"}, status_code=404)
    if path in ("/pause", "/pause_generation"):
        STATE["paused"] = True
    elif path == "/collective_rpc":
        load(body["args"][0])
    elif path == "/update_weights_from_disk":
        load(body["model_path"])
    elif path in ("/resume", "/continue_generation"):
        STATE["paused"] = False
    elif path == "/hang":
        STATE["hang"] = True
    elif path == "/refuse":
        REFUSE.update(body)
    return JSONResponse({"data": [{"id": "fake"}]} | STATE)


def chat(body: dict[str, Any]) -> dict[str, Any]:
    """Call the first tool once, then repeat what it said."""
    last = body["messages"][-1]
    if last["role"] == "tool":
        assert json.loads(body["messages"][-2]["tool_calls"][0]["function"]["arguments"])
        return {"role": "assistant", "content": f"it said {last['content']}"}
    name = body["tools"][0]["function"]["name"]
    call = {"id": "x", "type": "function", "function": {"name": name, "arguments": ARGUMENTS}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def load(folder: str) -> None:
    assert (Path(folder) / "model.safetensors").exists()
    assert STATE["paused"]
    STATE["weights"] = int(Path(folder).name.split("-")[1])


async def generate(body: dict[str, Any]) -> dict[str, Any]:
    STATE["served"] += 1
    await asyncio.sleep(3600 if STATE["hang"] else DELAY_S)
    token = STATE["weights"]
    if MAKE == "strange":
        return {"choices": [{}]}
    if MAKE == "sglang":
        count = body["sampling_params"]["max_new_tokens"]
        meta: dict[str, Any] = {
            "finish_reason": {"type": "length"},
            "output_token_logprobs": [[-0.5, token, None]] * count,
            "input_token_logprobs": [
                [None, 1, None],
                *[[-1.5 - token, t, None] for t in body["input_ids"][1:]],
            ],
        }
        return {"output_ids": [token] * count, "meta_info": meta}
    count = body["max_tokens"]
    prompt = [None, *[{str(t): {"logprob": -1.5 - token}} for t in body["prompt"][1:]]]
    choice = {
        "finish_reason": "length",
        "token_ids": [token] * count,
        "logprobs": {"token_logprobs": [-0.5] * count},
        "prompt_logprobs": prompt,
    }
    return {"choices": [choice]}


async def refuse_or_answer(request: Request) -> JSONResponse:
    if REFUSE["times"] > 0 and request.url.path in ("/v1/completions", "/generate"):
        REFUSE["times"] -= 1
        return JSONResponse({"error": "refused"}, status_code=REFUSE["status"])
    return await answer(request)


app = Starlette(routes=[Route("/{path:path}", refuse_or_answer, methods=["GET", "POST"])])
uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="critical")
