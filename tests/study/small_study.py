"""A study of a tiny model, two seeds and three settings, of a few seconds."""

from books_and_dialogs import BOOKS, DIALOGS
from datasets import Dataset
from tiny import tiny_tokenizer

from ewc_hf import EWCConfig
from ewc_hf.data import document_texts, pack
from ewc_hf.study import Measurement, StudyData, TextNames, parse_settings, run_study

SETTINGS = ["plain", "fisher:decoupled:10", "l2:loss:1"]
NAMES = ["plain", "fisher-decoupled-10", "l2-loss-1"]
SEEDS = [0, 1]
TEXTS = TextNames("dialogs", "books")
MEASUREMENT = Measurement(num_examples=8)


def small_data(block_size=16):
    books, dialogs = Dataset.from_dict({"text": BOOKS}), Dataset.from_dict({"turns": DIALOGS})
    return StudyData(
        retention_examples=pack(books, tiny_tokenizer(), block_size),
        task_examples=pack(dialogs, tiny_tokenizer(), block_size),
        retention_texts=BOOKS[:3],
        task_texts=document_texts(dialogs)[:2],
        names=TEXTS,
    )


def training(folder, **options):
    return EWCConfig(
        str(folder),
        **{
            "max_steps": 3,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "report_to": "none",
            "save_strategy": "no",
            "use_cpu": True,
            "disable_tqdm": True,
            **options,
        },
    )


def small_study(model, data, folder, shared=None, **options):
    settings = parse_settings(SETTINGS)
    return run_study(model, data, settings, SEEDS, training(folder, **options), MEASUREMENT, shared)
