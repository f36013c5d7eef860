"""What a user would type wrong, in each command: one line that names it, exit code 2, and nothing is written."""

import re
import shlex

import pytest
from tiny import SENTENCES, save_tiny_checkpoint

from ewc_hf.__main__ import _COMMANDS, main

pytestmark = [
    pytest.mark.usefixtures("datasets_cache"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated"),  # TRL asks for it
]

IN_ANY_COMMAND = {
    "--modle m": r"unknown options \['--modle'\]",
    "--modle m --txet t": r"unknown options \['--modle', '--txet'\]",
    "--sparsity_of_all 1": "unknown options",
    "stray": "expected an option before each value|the following arguments are required",
    "--config no.yaml": "expected a YAML file, got 'no.yaml', unreadable",
}
NO_FILE = "expected a file, a folder or a Hub dataset, got 'no.txt', which does not exist; check it"
NO_MODEL = r"got '\./no_model.*check the path, the name and the network"
TOO_LONG = "expected sequences of at most 16 tokens, the model's context, got 4096; cut the text into blocks of 16"
NO_NUMBER = r"argument --\S+: invalid (int|float) value: 'many'"
MODEL, TEXT, PAIR = "--model old", "--text books.txt", "--base old --tuned tuned"
SLID = f"{PAIR} --retention books.txt --output_dir out"
LINE = f"{SLID} --task books.txt"
STUDY = (
    f"{MODEL} --retention books.txt --retention_test books.txt --task books.txt --task_test books.txt --block_size 8 "
    "--output_dir out --report_to none"
)
CHATS = "--model_name_or_path old --task books.txt --use_cpu --bf16 false --report_to none"
TASKS = STUDY.replace("--task ", "--tasks ").replace("--task_test ", "--tasks_test ")
OWN = {
    "demo": {
        "--output_dir": "expected one argument",
        "--output_dir a b": "expected an option before each value, got ['b'] without one",
        "--outputdir x": "nearest are ['--output_dir']",
        "--max_steps 3": "unknown options ['--max_steps']",
        "--output_dir books.txt": "books.txt",
    },
    "estimate": {
        MODEL: "expected text or rehearsal, got None and None; give one of them",
        f"{MODEL} --text no.txt --block_size 8": NO_FILE,
        f"--model ./no_model {TEXT} --output_dir out": NO_MODEL,
        f"{MODEL} {TEXT} --method fischer": "invalid choice: 'fischer'",
        f"{MODEL} {TEXT} --num_examples many": NO_NUMBER,
        f"{MODEL} {TEXT} --num_examples 0 --block_size 8": "expected num_examples >= 1, got 0",
        f"{MODEL} {TEXT} --block_size 4096": TOO_LONG,
        f"{MODEL} {TEXT} --block_size 8 --column words": "expected a column named words, got ['text']",
        f"{MODEL} --rehearsal old --column words": "text for column, which has no effect else, got column=words",
        f"{MODEL} {TEXT} --method mas --labels sampled": "expected method fisher for labels",
        f"{MODEL} {TEXT} --mas_output logits": "expected method mas for mas_output",
        f"{MODEL} --rehearsal old": "expected the file 'rehearsal_config.json' in 'old', got no such file",
    },
    "rehearse": {
        f"{MODEL} --num_rows 0": "expected num_rows >= 1, got 0",
        f"{MODEL} --num_tokens 4096": TOO_LONG,
        f"{MODEL} --temperature 0": "expected a temperature above 0, got 0.0",
        f"{MODEL} --chat true": "expected a tokenizer with a chat template for chat=True, got one without",
        f"{MODEL} --text no.txt": NO_FILE,
        f"{MODEL} --top_k many": NO_NUMBER,
        "--model ./no_model --output_dir out": NO_MODEL,
    },
    "finetune": {
        MODEL: "the following arguments are required: --task",
        "--model ./no_model --task books.txt": NO_MODEL,
        f"{MODEL} --task no.txt --block_size 8": NO_FILE,
        f"{MODEL} --task books.txt --ewc_lambda -1": "expected ewc_lambda to be a finite number >= 0, got -1.0",
        f"{MODEL} --task books.txt --learning_rate many": NO_NUMBER,
        f"{MODEL} --task books.txt --ewc_coupling tight": "select one of ['loss', 'decoupled']",
        f"{MODEL} --task books.txt --retention_test books.txt": "expected task_test beside retention_test, got None",
        f"{MODEL} --task books.txt --block_size 8 --consolidation old": "expected the file 'ewc_config.json' in 'old'",
        f"{MODEL} --task books.txt --block_size 8 --max_forgetting 0.1": "expected retention_texts",
    },
    "finetune-trl": {
        "--model_name_or_path old": "the following arguments are required: --task",
        f"{CHATS} --model_name_or_path ./no_model": "./no_model",
        f"{CHATS} --task no.txt": NO_FILE,
        f"{CHATS} --ewc_lambda -1": "expected ewc_lambda to be a finite number >= 0, got -1.0",
        f"{CHATS} --learning_rate many": NO_NUMBER,
        f"{CHATS} --retention_test books.txt": "expected task_test beside retention_test, got None",
        f"{CHATS} --consolidation old": "expected the file 'ewc_config.json' in 'old'",
        f"{CHATS} --assistant_only_loss true": "expected a chat template, got none with the tokenizer of 'old'",
    },
    "tasks": {
        TASKS.replace("--tasks books.txt", "--tasks no.txt"): NO_FILE,
        f"{TASKS} --tasks books.txt books.txt": "expected as many tasks_test as tasks",
        f"{TASKS} --seeds 0 0": "each seed once",
        f"{TASKS} --settings nothing:1": "expected settings like",
        f"{TASKS} --settings lora:8": "expected settings that are plain, a penalty",
        f"{TASKS} --decay many": NO_NUMBER,
        f"{TASKS} --tasks_names a b": "expected a name for each of tasks in tasks_names, none",
        f"{TASKS} --tasks_by text --tasks_names a": "none with tasks_by, got ['a'] for 1 and 1 and the column 'text'",
        f"{TASKS} --task_column words": "expected a column named words, got ['text']",
        f"{TASKS} --learn_from a": "learn_from",
    },
    "evaluate": {
        MODEL: "expected something to measure, got neither --text nor --benchmarks",
        f"{MODEL} --text books.txt books.txt": "expected texts of different names, got two of 'books.txt'",
        f"{MODEL} --text no.txt": NO_FILE,
        f"--model ./no_model {TEXT}": NO_MODEL,
        f"{MODEL} {TEXT} --max_questions 3": "expected --benchmarks beside max_questions, got none",
        f"{MODEL} {TEXT} --stride 16": "expected 1 <= stride < window (16), got 16",
        f"{MODEL} {TEXT} --dtype int8": "invalid choice: 'int8'",
    },
    "perplexity": {
        MODEL: "the following arguments are required: --text",
        f"{MODEL} --text no.txt": NO_FILE,
        f"--model ./no_model {TEXT}": NO_MODEL,
        f"{MODEL} {TEXT} --window 4096": "expected 2 <= window <= 16, the model's context, got 4096",
        f"{MODEL} {TEXT} --max_documents 0": "expected a document to be read of 'books.txt', got 0 as the most",
        f"{MODEL} --text empty.txt": "expected at least one document in 'empty.txt', got none",
        f"{MODEL} {TEXT} --output_file old": "expected a name for output_file, got the folder 'old'",
        f"{MODEL} {TEXT} --batch_size 0": "expected batch_size and max_document_tokens >= 1, got 0",
        f"--model empty {TEXT}": "expected a model that can be loaded, got 'empty'",
    },
    "diagnose": {
        SLID.replace("books.txt", "no.txt"): NO_FILE,
        SLID.replace("--base old", "--base ./no_model"): NO_MODEL,
        SLID.replace("--tuned tuned", "--tuned old"): "expected a tuned model, got one with the base's weights",
        f"{SLID} --consolidation old": "expected the file 'ewc_config.json' in 'old'",
        f"{SLID} --retention_column words": "expected a column named words, got ['text']",
        f"{SLID} --max_documents many": NO_NUMBER,
    },
    "inspect": {
        "": "expected --consolidation, or --base, --tuned and --text together, or all four",
        "--base old --tuned tuned": "base old, tuned tuned and text None",
        f"{PAIR} --text no.txt": NO_FILE,
        "--consolidation old": "expected the file 'ewc_config.json' in 'old'",
        f"{PAIR} {TEXT} --tokens 0": "expected tokens and max_document_tokens >= 1, got 0 and 400",
        f"--base old --tuned ./no_model {TEXT}": NO_MODEL,
    },
    "interpolate": {
        f"{LINE} --max_forgetting 0": "expected a positive, finite max_forgetting, got 0.0",
        f"{LINE} --max_forgetting 0.1 --max_task_loss 1%": "expected max_forgetting or max_task_loss, got both",
        f"{LINE} --max_task_loss often": "expected max_task_loss as '+2%', '2%' or 0.02, got 'often'",
        f"{LINE} --points 1": "expected points >= 2, the two ends among them, got 1",
        f"{LINE} --max_forgetting 9 --output_dir old": "expected an output_dir that holds no model",
        f"{LINE} --task_name a --retention_name a": "expected another name of the task than of the retention text",
        LINE.replace("--task books.txt", "--task no.txt"): NO_FILE,
    },
    "sweep": {
        f"{STUDY} --lambdas -1": "strengths are finite and greater than 0",
        f"{STUDY} --lambdas many": NO_NUMBER,
        f"{STUDY} --lambdas 1 1": "expected each setting once",
        f"{STUDY} --methods fischer": "invalid Method value: 'fischer'",
        f"{STUDY} --seeds 0 0": "expected each seed once, got [0, 0]",
        f"{STUDY} --ewc_lambda 3": "expected the grid in --lambdas, got --ewc_lambda 3 besides",
        f"{STUDY} --task no.txt": NO_FILE,
    },
    "study": {
        f"{STUDY} --settings nothing": "expected settings like",
        f"{STUDY} --settings fisher:tight:1": "select one of ['loss', 'decoupled']",
        f"{STUDY} --settings rehearsal:1 rehearsal:1": "expected each setting once",
        f"{STUDY} --settings plain:learning_rat=1": "'learning_rat' is no option of EWCConfig",
        f"{STUDY} --max_forgetting 0.1": "expected no max_forgetting for all runs, plain fine-tuning too, got 0.1",
        f"{STUDY} --settings plain:max_forgetting=0.1 --retention no.txt": "expected budget_text for settings",
        f"{STUDY} --budget_tokens 9": "expected budget_text beside budget_tokens 9, got None",
        f"{STUDY} --lora_rank 0": "expected lora_rank >= 1",
        f"{STUDY} --block_size 4096": "expected text for at least one block of 4096 tokens",
        f"{STUDY} --retention no.txt": NO_FILE,
        f"{STUDY} --model ./no_model": NO_MODEL,
    },
    "prune": {
        f"{MODEL} --output_dir out": "the following arguments are required: --sparsity",
        f"{MODEL} --output_dir out --sparsity 2": "expected a sparsity from 0 to 1, got 2.0",
        f"{MODEL} --output_dir out --sparsity many": NO_NUMBER,
        f"{MODEL} --output_dir out --sparsity 0.5 --criterion fisher": "expected text for the criteria",
        f"{MODEL} --output_dir out --sparsity 0.5 --scope head": "invalid choice: 'head'",
        f"{MODEL} --output_dir old --sparsity 0.5": "expected an output_dir that holds no model",
        f"{MODEL} --output_dir out --sparsity 0.5 --text_test no.txt": NO_FILE,
        "--model ./no_model --output_dir out --sparsity 0.5": NO_MODEL,
    },
    "plan": {
        "--model ./no_model": NO_MODEL,
        "--model empty": "expected a folder with a model's config.json or a Hub id, got 'empty'",
        f"{MODEL} --gpus 0": "expected 1 or more GPUs for 'one_gpu', got 0",
        f"{MODEL} --gpus many": NO_NUMBER,
        f"{MODEL} --engine fsdp": "fsdp is not a valid Engine, please select one of",
        f"{MODEL} --precision int8": "invalid choice: 'int8'",
    },
    "push": {
        "--folder old": "the following arguments are required: --repo",
        "--repo me/old": "the following arguments are required: --folder",
        "--folder old --repo me/old": "expected ewc_config.json or rehearsal_config.json in 'old', got neither",
        "--folder no --repo me/old": "expected ewc_config.json or rehearsal_config.json in 'no', got neither",
        "--folder old --repo me/old --private maybe": "got maybe but expected one of yes/no",
    },
}
"""What is typed after a command, and a part of what it is told."""


@pytest.fixture(scope="module")
def typed_in(tmp_path_factory):
    """A folder with two models, a text, an empty one, and an empty folder."""
    folder = tmp_path_factory.mktemp("typed")
    for seed, name in enumerate(("old", "tuned")):
        save_tiny_checkpoint(folder / name, seed=seed)
    (folder / "books.txt").write_text(" ".join(SENTENCES))
    (folder / "empty.txt").write_text("")
    (folder / "empty").mkdir()
    return folder


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def told(command, words, capsys):
    """The line that a mistake is answered with."""
    with pytest.raises(SystemExit) as stopped:
        main([command, *shlex.split(words)])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    *others, line = printed.err.splitlines()
    assert line.startswith(f"ewc-hf {command}: ") and not any("Traceback" in other for other in others)
    return line


@pytest.mark.parametrize("words", IN_ANY_COMMAND)
@pytest.mark.parametrize("command", _COMMANDS)
def test_in_any_command(command, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, *shlex.split(words)])
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert re.search(f"^ewc-hf {command}: .*({IN_ANY_COMMAND[words]})", told) and told.count("\n") == 1


@pytest.mark.parametrize(("command", "words"), [(command, words) for command in OWN for words in OWN[command]])
def test_of_a_command_itself(command, words, typed_in, monkeypatch, capsys):
    monkeypatch.chdir(typed_in)
    before = files(typed_in)
    line, expected = told(command, words, capsys), OWN[command][words]
    assert expected in line or re.search(expected, line)
    assert files(typed_in) == before


def test_each_command_is_asked_ten_times():
    assert OWN.keys() == _COMMANDS.keys()
    assert all(len(IN_ANY_COMMAND) + len(own) >= 10 for own in OWN.values())
