"""Samples by vLLM, where it is installed. Written against vLLM 0.10 and later; it was not run in this repository.

Every sample is a request with a seed of its own, made from (seed, index of the problem, number of the sample), so that
neither the order nor the batch decides about it; vLLM itself promises equal samples for equal seeds only on the same
version and hardware. vLLM does not tell the full distribution of a token, so there is no token entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from entropilot.errors import UserError
from entropilot.evaluation.sampling.sampler import Sample
from entropilot.inputs.messages import render_prompt

BLOCK = 2048  # completions that are asked for at once, and kept on disk when they are there


class VLLM:
    """Draws with vLLM; takes what `Transformers.draw` takes.

    Raises:
        UserError: vLLM is not installed, or the folder holds adapters only.
    """

    name = "vllm"

    def __init__(self, source: str, dtype: str = "auto", seed: int = 0) -> None:
        if (Path(source) / "adapter_config.json").is_file() and not (Path(source) / "config.json").is_file():
            raise UserError(
                f"--engine vllm takes no adapters, and {source} holds some; merge them into a model first, or choose "
                "--engine transformers."
            )
        try:
            import vllm  # type: ignore[import-not-found]
        except ImportError as error:
            raise UserError(
                f"--engine vllm needs vLLM, which is not installed ({error}); pip install vllm, or choose "
                "--engine transformers."
            ) from error
        # "vllm": the sampling settings of generation_config.json are not applied.
        self.llm = vllm.LLM(model=source, dtype=dtype, seed=seed, generation_config="vllm")
        self.params = vllm.SamplingParams
        self.tokenizer: Any = self.llm.get_tokenizer()

    def context(self) -> int | None:
        """Return the tokens that prompt and completion may have together."""
        config = getattr(getattr(self.llm, "llm_engine", None), "model_config", None)
        return getattr(config, "max_model_len", None)

    def draw(
        self,
        prompts: Sequence[Any],
        indices: Sequence[int],
        *,
        samples: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seed: int,
        report: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[list[int], list[list[Sample]]]]:
        """Yield (indices, samples_P_G) of one block of whole problems after the other."""
        per_block = max(1, BLOCK // samples)
        done = 0
        for start in range(0, len(prompts), per_block):
            here = list(indices[start : start + per_block])
            requests, params = [], []
            for prompt, index in zip(prompts[start : start + per_block], here, strict=True):
                text = render_prompt(prompt, self.tokenizer)
                ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
                for k in range(samples):
                    requests.append({"prompt_token_ids": ids})
                    own = int(np.random.SeedSequence([seed, index, k]).generate_state(1)[0]) % 2**31
                    params.append(
                        self.params(temperature=temperature, top_p=top_p, max_tokens=max_new_tokens, seed=own)
                    )
            answers = self.llm.generate(requests, params, use_tqdm=False)
            found = [
                Sample(list(output.token_ids), output.text, None, output.finish_reason == "length")
                for output in (answer.outputs[0] for answer in answers)
            ]
            done += len(found)
            if report is not None:
                report(done)
            yield here, [found[row : row + samples] for row in range(0, len(found), samples)]
