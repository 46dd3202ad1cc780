"""ExecuTorch's own LLM runner in a process of its own: `python -m`, prints one JSON document.

Arguments: a package folder, then a JSON list of `[prompt, new tokens]`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.runtime import load_kernels


def main(folder: str, prompts: str) -> None:
    """Generate greedily for each prompt on one runner, resetting it in between."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the runner prints its statistics
    load_kernels()
    from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner

    runner = TextLLMRunner(str(Path(folder) / "model.pte"), str(Path(folder) / "tokenizer.json"))
    texts = []
    for prompt, count in json.loads(prompts):
        pieces: list[str] = []
        config = GenerationConfig(echo=False, max_new_tokens=count, temperature=0.0)
        runner.generate(prompt, config, token_callback=pieces.append)
        runner.reset()
        texts.append("".join(pieces))
    replies.write(json.dumps(texts))
    replies.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
