r"""Fine-tune a language model on dialogs or text, plainly or held to what it knew, and report both perplexities.

accelerate launch recipes/finetune.py --model gpt2 --consolidation out/gpt2-ewc --task dialogs.parquet \
    --task_test dialogs_test.parquet --retention_test books_test.parquet \
    --max_steps 200 --learning_rate 5e-4 --output_dir out/tuned

`--rehearsal FOLDER` holds it at the old model's answers, with the penalty or in its place. `--ewc_lambda 0`, or no
consolidation, and no rehearsal is plain fine-tuning. A YAML file gives defaults: `--config FILE.yaml`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import default_data_collator

from ewc_hf import EWCConfig, EWCTrainer
from ewc_hf.cli import CodeArguments, HeldOutTask, evaluate_and_tell, parse_arguments, publish, train_and_save
from ewc_hf.data import document_texts, load_texts, pack, require_within_context
from ewc_hf.evaluation import position_nll


@dataclass
class FinetuneArguments:
    """Which model learns what, and what it must not forget."""

    model: str = field(metadata={"help": "Pretrained checkpoint: a folder or a Hub id."})
    task: str = field(metadata={"help": "Dialogs or text to learn: a file, a folder or a Hub dataset."})
    consolidation: str | None = field(default=None, metadata={"help": "What to remember: a folder or a Hub id."})
    rehearsal: str | None = field(
        default=None, metadata={"help": "Rows with the old model's answers: a folder or a Hub id."}
    )
    task_test: str | None = field(default=None, metadata={"help": "Held-out text of the task, for `eval_nll`."})
    retention_test: str | None = field(
        default=None, metadata={"help": "Held-out old text, for `eval_retention_perplexity`; needs task_test."}
    )
    retention_name: str = field(default="retention", metadata={"help": "What `eval_{name}_perplexity` calls it."})
    task_column: str | None = field(default=None, metadata={"help": "Column of the task's text or dialogs."})
    retention_column: str | None = field(default=None, metadata={"help": "Column of the held-out text."})
    learn_from: str | None = field(default=None, metadata={"help": "Speaker or role whose words are learned."})
    block_size: int = field(default=128, metadata={"help": "Tokens an example."})
    resume: bool = field(default=False, metadata={"help": "Go on from the last complete checkpoint in output_dir."})
    max_test_documents: int = field(default=30, metadata={"help": "Held-out documents of each kind."})
    max_document_tokens: int | None = field(
        default=None, metadata={"help": "Cut held-out old documents after so many tokens."}
    )


def main() -> None:
    """Fine-tune, evaluate and save."""
    args, training, code = parse_arguments(FinetuneArguments, EWCConfig, CodeArguments, description=__doc__)
    if args.retention_test is not None and args.task_test is None:
        raise ValueError("expected task_test beside retention_test, got None; both are read in one evaluation")
    if args.max_document_tokens is not None and args.retention_test is None:
        raise ValueError("expected retention_test beside max_document_tokens, got None; nothing else is cut")

    # 1. The model, and packed blocks to learn: with `max_steps` only as many, of documents drawn by the seed.
    tokenizer, model = code.tokenizer(args.model), code.model(args.model)
    require_within_context(model, args.block_size)
    how = {"column": args.task_column, "learn_from": args.learn_from}
    blocks_a_step = training.train_batch_size * training.gradient_accumulation_steps * training.world_size
    max_blocks = training.max_steps * blocks_a_step if training.max_steps > 0 else None
    texts = load_texts(args.task)
    task = pack(texts, tokenizer, args.block_size, max_blocks=max_blocks, seed=training.seed, **how)

    # 2. Held-out text of both kinds, for `trainer.evaluate()`.
    held_out, retention_texts = None, {}
    if args.task_test is not None:
        texts = load_texts(args.task_test, split="test", max_documents=args.max_test_documents)
        held_out = pack(texts, tokenizer, args.block_size, **how)
    if args.retention_test is not None:
        texts = load_texts(args.retention_test, split="test", max_documents=args.max_test_documents)
        retention_texts[args.retention_name] = document_texts(
            texts, args.retention_column, tokenizer, args.max_document_tokens
        )

    training.eval_on_start |= held_out is not None  # perplexities before, for the model card

    # 3. Training: the penalty acts where there is a consolidation and lambda is not 0, rehearsal where there are rows.
    trainer = EWCTrainer(
        model=model,
        args=training,
        consolidation=args.consolidation,
        rehearsal=args.rehearsal,
        retention_texts=retention_texts,
        preprocess_logits_for_metrics=position_nll,
        compute_metrics=HeldOutTask(),
        train_dataset=task,
        eval_dataset=held_out,
        data_collator=default_data_collator,
        processing_class=tokenizer,
    )
    train_and_save(trainer, args.resume)
    if held_out is not None:
        evaluate_and_tell(trainer)
    publish(trainer)


if __name__ == "__main__":
    main()
