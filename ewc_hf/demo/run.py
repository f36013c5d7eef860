"""The whole main job with nothing at hand: generated books to know, generated dialogs to learn, and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from ..config import EWCConfig
from ..data import document_texts, pack
from ..study import Measurement, RunRecord, StudyData, TextNames, parse_settings, require_one_gpu, run_study
from .world import book_texts, dialogs

NAMES = TextNames(task="dialogs", retention="books")
BLOCK = 128
END_OF_TEXT = "<|endoftext|>"
PRETRAINING_STEPS, FINETUNING_STEPS = 250, 30
NUM_EXAMPLES, NUM_ROWS = 256, 256
HELD_OUT = 30
_QUIET: dict[str, Any] = {"report_to": "none", "save_strategy": "no", "dataloader_pin_memory": False}
SETTINGS = ("fisher:decoupled:5,20,60", "rehearsal:0.1,0.3,1", "fisher:decoupled:5:rehearsal_weight=0.1,0.3,1")


def run_demo(output_dir: str) -> list[RunRecord]:
    """Pretrain a small GPT-2 on generated books, fine-tune it on generated dialogs, and report what it forgets.

    Everything is generated and seeded; nothing is downloaded. A second call with the same folder goes on where the
    first was interrupted.

    Args:
        output_dir: gets the pretrained model, the importances and `report.json`, `.md`, `.png` and `.html`.

    Returns:
        The records of the report.
    """
    folder = Path(output_dir)
    training = EWCConfig(
        str(folder / "study"),
        max_steps=FINETUNING_STEPS,
        per_device_train_batch_size=16,
        learning_rate=1e-3,
        logging_steps=1000,
        **_QUIET,
    )
    require_one_gpu(training)
    pretrained = folder / "pretrained"
    data = demo_data(pretrained, PRETRAINING_STEPS)
    measurement = Measurement(num_examples=NUM_EXAMPLES, rehearsal_num_rows=NUM_ROWS, stride=BLOCK - 16)
    return run_study(str(pretrained), data, parse_settings(SETTINGS), [0, 1], training, measurement)


def demo_data(pretrained: str | Path, steps: int = PRETRAINING_STEPS) -> StudyData:
    """Return generated books and dialogs, with a small GPT-2 that knows the books in a folder.

    >>> data = demo_data("out/demo/pretrained")

    Args:
        pretrained: the model's folder; a model that is there already is left as it is.
        steps: of its training.
    """
    books = Dataset.from_dict({"text": book_texts(2500, seed=0)})
    talk = Dataset.from_dict({"turns": dialogs(1500, seed=0)})
    held_out_talk = Dataset.from_dict({"turns": dialogs(2 * HELD_OUT, seed=1)})
    tokenizer = _train_tokenizer(document_texts(books) + document_texts(talk))
    blocks = pack(books, tokenizer, BLOCK)
    if not (Path(pretrained) / "training_args.bin").is_file():
        _pretrain(tokenizer, blocks, Path(pretrained), steps)
    return StudyData(
        retention_examples=blocks,
        task_examples=pack(talk, tokenizer, BLOCK),
        retention_texts=book_texts(HELD_OUT, seed=1),
        task_texts=document_texts(held_out_talk),
        names=NAMES,
    )


def _train_tokenizer(texts: list[str]) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE like GPT-2's, with 1,024 entries."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=1024, special_tokens=[END_OF_TEXT], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)


def _pretrain(tokenizer: PreTrainedTokenizerBase, blocks: Dataset, folder: Path, steps: int) -> None:
    """Train a two-layer GPT-2 from scratch, about twenty seconds on two cores."""
    set_seed(0)
    config = GPT2Config(
        n_layer=2,
        n_embd=128,
        n_head=4,
        n_positions=BLOCK,
        vocab_size=len(tokenizer),
        activation_function="gelu_pytorch_tanh",  # GPT-2's own formula in one kernel
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    args = TrainingArguments(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=16,
        learning_rate=2e-3,
        warmup_steps=20,
        logging_steps=50,
        **_QUIET,
    )
    trainer = Trainer(
        GPT2LMHeadModel(config),
        args,
        train_dataset=blocks,
        data_collator=default_data_collator,
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model()
