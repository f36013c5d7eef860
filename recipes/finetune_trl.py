r"""Fine-tune a chat model with TRL's `SFTTrainer`, whole or by LoRA, held to what it knew.

accelerate launch recipes/finetune_trl.py --model_name_or_path gpt2 --chat_template_path chatml.jinja \
    --task chats.jsonl --assistant_only_loss --consolidation out/gpt2-old --use_peft --max_steps 200 \
    --output_dir out/tuned

It takes every argument of TRL's `SFTConfig` and `ModelConfig`. `--rehearsal FOLDER` holds the model at its old
answers, with the penalty or in its place. A YAML file gives defaults: `--config FILE.yaml`. TRL comes with the extra
`ewc_hf[trl]`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import AutoTokenizer

try:
    from trl import ModelConfig, get_peft_config, get_quantization_config
except ImportError as error:
    raise ImportError(f"this needs TRL, got {error}: pip install 'ewc_hf[trl]'") from error

from ewc_hf.cli import evaluate_and_tell, parse_arguments, publish, train_and_save
from ewc_hf.data import document_texts, load_texts
from ewc_hf.sft import EWCSFTConfig, EWCSFTTrainer


@dataclass
class ChatArguments:
    """What is learned, and what must not be forgotten."""

    task: str = field(metadata={"help": "Chats or text to learn, as TRL takes them: a file, folder or Hub dataset."})
    task_test: str | None = field(default=None, metadata={"help": "Held-out chats or text of the task."})
    consolidation: str | None = field(default=None, metadata={"help": "What to remember: a folder or a Hub id."})
    rehearsal: str | None = field(
        default=None, metadata={"help": "Rows with the old model's answers: a folder or a Hub id."}
    )
    retention_test: str | None = field(
        default=None, metadata={"help": "Held-out old text, for `eval_retention_perplexity`; needs task_test."}
    )
    resume: bool = field(default=False, metadata={"help": "Go on from the last complete checkpoint in output_dir."})
    max_test_documents: int = field(default=30, metadata={"help": "Held-out documents of each kind."})


def main() -> None:
    """Fine-tune, evaluate and save."""
    args, training, model = parse_arguments(ChatArguments, EWCSFTConfig, ModelConfig, description=__doc__)
    if args.retention_test is not None and args.task_test is None:
        raise ValueError("expected task_test beside retention_test, got None; both are read in one evaluation")

    # 1. Chats, which TRL writes by the tokenizer's template, and held-out text of both kinds.
    name, trusted = model.model_name_or_path, training.trust_remote_code
    tokenizer = AutoTokenizer.from_pretrained(name, revision=model.model_revision, trust_remote_code=trusted)
    if training.assistant_only_loss and tokenizer.chat_template is None and training.chat_template_path is None:
        raise ValueError(
            f"expected a chat template, got none with the tokenizer of '{name}'; pass as chat_template_path a .jinja "
            "file, or a model whose tokenizer has one"
        )
    task, held_out, retention_texts = load_texts(args.task), None, {}
    if args.task_test is not None:
        held_out = load_texts(args.task_test, split="test", max_documents=args.max_test_documents)
    if args.retention_test is not None:
        texts = load_texts(args.retention_test, split="test", max_documents=args.max_test_documents)
        retention_texts["retention"] = document_texts(texts, tokenizer=tokenizer)
    training.eval_on_start |= held_out is not None  # perplexities before, for the model card

    # 2. Training, of adapters with `--use_peft`: a consolidation of the base model holds them too.
    loading = {"dtype": model.dtype or "float32", "revision": model.model_revision}
    loading["attn_implementation"] = model.attn_implementation
    training.model_init_kwargs = {**loading, **(training.model_init_kwargs or {})}
    trainer = EWCSFTTrainer(
        name,
        training,
        train_dataset=task,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=get_peft_config(model),
        quantization_config=get_quantization_config(model),
        consolidation=args.consolidation,
        rehearsal=args.rehearsal,
        retention_texts=retention_texts,
    )
    train_and_save(trainer, args.resume)

    # 3. How well both are known.
    if held_out is not None:
        evaluate_and_tell(trainer)
    publish(trainer)


if __name__ == "__main__":
    main()
