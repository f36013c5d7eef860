import json
import re

from books_and_dialogs import BOOKS, DIALOGS
from datasets import Dataset
from tiny import save_tiny_checkpoint

from ewc_hf.study import TextNames, read_report


def test_the_recipe(tmp_path, datasets_cache, run_recipe, capsys, caplog):
    model = save_tiny_checkpoint(tmp_path / "model")
    Dataset.from_dict({"text": ["", *BOOKS]}).to_parquet(tmp_path / "books.parquet")
    Dataset.from_dict({"turns": DIALOGS}).to_parquet(tmp_path / "dialogs.parquet")
    (tmp_path / "study.yaml").write_text(
        f"model: {model}\nmax_steps: 9\nlearning_rate: 1e-2\nuse_cpu: true\nreport_to: none\nsave_strategy: 'no'\n"
        "disable_tqdm: true\nblock_size: 16\nnum_examples: 4\n"
    )
    words = f"--retention {tmp_path}/books.parquet --retention_test {tmp_path}/books.parquet "
    words += f"--task {tmp_path}/dialogs.parquet --task_test {tmp_path}/dialogs.parquet --learn_from a "
    words += f"--settings l2:loss:1 --seeds 3 --max_steps 2 --output_dir {tmp_path}/out "
    words += f"--task_name chat --config {tmp_path}/study.yaml"
    run_recipe("forgetting_study.py", *words.split())
    records, names = read_report(tmp_path / "out/report.json")
    assert names == TextNames("chat", "retention")
    assert [(r.name, r.seed) for r in records] == [("pretrained", None), ("plain", 3), ("l2-loss-1", 3)]
    assert json.loads((tmp_path / "out/protocol.json").read_text())["training"]["max_steps"] == 2
    assert "| l2-loss-1 " in capsys.readouterr().out
    (told,) = [record.message for record in caplog.records if "scored whole" in record.message]
    assert re.match(r"Of 'chat' [1-9]\d% of the tokens are learned", told)
    assert [kind for kind, *_ in records[0].continuations].count("retention") == min(3, len(BOOKS))
