"""Trainings with a budget in several processes; `test_distributed_budget.py` launches it and does the same in one."""

from distributed_cases import WORDS, Case
from distributed_refusals import message
from distributed_run import begin, make_trainer, save, weights
from transformers import AutoModelForCausalLM

from ewc_hf.rehearsal import generate_rehearsal

ENGINES = {"torch": ("ddp", "fsdp2"), "zero": ("zero1", "zero2")}
BUDGET = 0.01


def case_of(engine):
    return Case(engine, "decoupled", 1, "adamw", ewc_lambda=0.0)


def texts(folder):
    """What the model wrote before it was trained: whatever it learns, it forgets some of that."""
    model = AutoModelForCausalLM.from_pretrained(folder / "llama-torch.float64")
    return generate_rehearsal(model, WORDS, 24, 15, progress=False).texts(WORDS)


def train(engine, folder, said, **options):
    begin(engine)
    given = {"retention_texts": {"own": said}, "processing_class": WORDS}
    trainer = make_trainer(case_of(engine), folder, given=given, max_forgetting=BUDGET, **options)
    metrics = trainer.train().metrics
    return weights(trainer), {key: value for key, value in metrics.items() if key.startswith("forgetting")}


def main(folder, engines):
    begin("ddp")
    said = texts(folder)
    for engine in ENGINES[engines]:
        save(folder, f"budget-{engine}", *train(engine, folder, said, output_dir=str(folder / "kept" / engine)))
    if engines == "zero":
        refused = message(lambda: train("zero3", folder, said))
        (folder / "said.txt").write_text(refused)
