"""Rehearsal in several processes; `test_distributed_rehearsal.py` launches it and does the same in one process."""

import torch
from distributed_cases import MODELS, Case
from distributed_run import begin, make_trainer, save, weights
from tiny import tiny_tokenizer

from ewc_hf.engines import num_processes
from ewc_hf.rehearsal import answer_rehearsal, generate_rehearsal

ENGINES = {"torch": ("ddp", "fsdp2"), "zero": ("zero1", "zero2", "zero3")}
ROWS_TOGETHER = 8
"""Rows of a step: of all processes and micro-batches."""
CASES = [
    Case(engine, "decoupled", accumulation, "adamw", ewc_lambda)
    for engines in ENGINES.values()
    for engine in engines
    for accumulation, ewc_lambda in ((1, 0.0), (4, 3.0))
]


def answered():
    """Rows of several lengths, longer and shorter than the task's, answered by another model than the one trained."""
    draws = torch.Generator().manual_seed(8)
    rows = [{"input_ids": torch.randint(0, 40, (length,), generator=draws)} for length in (5, 12, 9, 7, 3, 11)]
    model = MODELS["llama"]()
    for p in model.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=draws, dtype=p.dtype)
    return answer_rehearsal(model, rows, top_k=6, batch_size=2, progress=False)


def generated():
    return generate_rehearsal(MODELS["llama"](), tiny_tokenizer(), 10, 9, top_k=4, batch_size=3, progress=False)


def trainer_of(case, folder, **options):
    """The rows lie in the session's folder; one process takes as many as several together."""
    processes = 1 if case.engine == "one" else num_processes()
    return make_trainer(
        case,
        folder,
        given={"rehearsal": folder / "answered"},
        rehearsal_weight=2.0,
        rehearsal_rows=ROWS_TOGETHER // processes // case.accumulation,
        **options,
    )


def train(case, folder):
    trainer = trainer_of(case, folder)
    trainer.train()
    return weights(trainer), [entry["rehearsal_kl"] for entry in trainer.state.log_history if "rehearsal_kl" in entry]


def resumed(case, folder):
    options = {"output_dir": str(folder / "rehearsed" / case.engine), "save_strategy": "steps", "save_steps": 3}
    trainer_of(case, folder, **options).train()
    second = trainer_of(case, folder, **options)
    second.train(resume_from_checkpoint=str(folder / "rehearsed" / case.engine / "checkpoint-3"))
    return weights(second)


def main(folder, engines):
    begin("ddp")
    for engine in ENGINES[engines]:
        for case in CASES:
            if case.engine == engine:
                save(folder, f"rehearsed-{case.name}", *train(case, folder))
        save(folder, f"rehearsed-again-{engine}", resumed(Case(engine, "decoupled", 4, "adamw"), folder))
    if engines == "torch":
        for name, rows in (("answered", answered()), ("generated", generated())):
            rows.save_pretrained(folder / f"{name}-together")
