"""A run that trackers follow, as one program that `test_trackers.py` starts: python tests/tracked_run.py FOLDER."""

import json
import os
import sys
from pathlib import Path

from small_runs import arguments, examples
from tiny import SENTENCES, tiny_gpt2, tiny_tokenizer
from transformers import default_data_collator

from ewc_hf import EWCTrainer, estimate_importance
from ewc_hf.rehearsal import answer_rehearsal


def main():
    folder, model = Path(sys.argv[1]), tiny_gpt2()
    os.chdir(folder)
    old = {
        "consolidation": estimate_importance(model, examples(8), num_examples=8, progress=False),
        "rehearsal": answer_rehearsal(model, examples(4), progress=False),
    }
    args = arguments(
        folder / "out", report_to=["tensorboard", "wandb", "trackio"], run_name="held", project="ewc", logging_steps=1,
        eval_strategy="steps", eval_steps=2, ewc_lambda=3, rehearsal_rows=1, max_forgetting=1e-4, max_steps=4,
        learning_rate=1e-2,
    )  # fmt: skip
    trainer = EWCTrainer(
        model=model, args=args, train_dataset=examples(20), eval_dataset=examples(4),
        data_collator=default_data_collator, processing_class=tiny_tokenizer(), retention_texts={"books": SENTENCES},
        **old,
    )  # fmt: skip
    trainer.train()
    (folder / "history.json").write_text(json.dumps(trainer.state.log_history))


if __name__ == "__main__":
    main()
