"""What the benchmarks share: interleaved timing, peak memory, and a table of ratios."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from accelerate.utils import get_gpu_info
from torch.profiler import ProfilerActivity, profile
from tqdm.auto import tqdm
from transformers import GPT2Config, GPT2LMHeadModel

from ewc_hf.storage import replaced, write_json


def interleaved(contenders: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 1) -> dict[str, list[float]]:
    """Return each contender's seconds, one number a round; a round runs every contender once, in turn.

    So what changes on the machine meanwhile changes all of them alike, and the ratios within a round stay.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in tqdm(range(warmup + repeats), desc="benchmark", unit="round"):
        for name, run in contenders.items():
            _wait()
            start = time.perf_counter()
            run()
            _wait()
            if round_ >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Sequence[float], baseline: Sequence[float]) -> dict[str, float]:
    """Return the smallest, median and largest ratio of two contenders' times in the same round."""
    ratios = [a / b for a, b in zip(seconds, baseline, strict=True)]
    return {"min": min(ratios), "median": median(ratios), "max": max(ratios)}


def shown(ratios: Mapping[str, float], digits: int = 2) -> str:
    """Return a ratio as a table shows it: 'median (min to max)'."""
    return f"{ratios['median']:.{digits}f} ({ratios['min']:.{digits}f} to {ratios['max']:.{digits}f})"


def extra_peak_bytes(run: Callable[[], Any]) -> int:
    """Return the bytes of tensors that `run` allocates at its peak, beyond those that were there before."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes, initial=0))


def random_gpt2(n_embd: int, n_layer: int, vocab_size: int, context: int) -> GPT2LMHeadModel:
    """Return a GPT-2 with random weights, the same each time."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=n_embd,
        n_layer=n_layer,
        n_head=n_embd // 64,
        vocab_size=vocab_size,
        n_positions=context,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
        loss_type="ForCausalLM",
    )
    return GPT2LMHeadModel(config)


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    gpu = get_gpu_info()[0][0] if torch.cuda.is_available() else None
    processor = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return {"device": gpu or processor, "torch": torch.__version__, "transformers": transformers.__version__}


def write_results(path: Path, title: str, notes: str, rows: Sequence[Mapping[str, str]], record: Any) -> None:
    """Write `path.json` with all that was measured and `path.md` with the table, and print the table."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(row[column] for column in columns) + " |" for row in rows]
    text = "\n".join([f"# {title}", "", notes, "", *lines, ""])
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path.with_suffix(".json")) as temporary:
        write_json(temporary, {"machine": machine(), **record})
    with replaced(path.with_suffix(".md")) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
