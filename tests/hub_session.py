"""What a user does with the Hub, as one program that `test_hub.py` starts with the stand-in's address.

python tests/hub_session.py FOLDER
"""

import json
import sys
from pathlib import Path

from small_runs import arguments, examples
from tiny import SENTENCES, tiny_gpt2, tiny_tokenizer
from transformers import default_data_collator

from ewc_hf import Consolidation, EWCTrainer, estimate_importance
from ewc_hf.__main__ import main as command
from ewc_hf.plan import read_config
from ewc_hf.rehearsal import Rehearsal, answer_rehearsal


def refused(act):
    try:
        act()
    except ValueError as error:
        return str(error)
    return "nothing"


def main():
    folder, told = Path(sys.argv[1]), {}
    model = tiny_gpt2()
    model.push_to_hub("someone/old")
    made = estimate_importance(model, examples(8), num_examples=8, progress=False)
    rows = answer_rehearsal(model, examples(4), progress=False)

    # 1. Beside the old model, whose weights are the anchor; in a folder of it; alone and private.
    told["url"] = made.push_to_hub("someone/old", anchor_source="someone/old")
    made.push_to_hub("someone/old", subfolder="with/anchor")
    made.push_to_hub("someone/alone", private=True, commit_message="alone")
    rows.push_to_hub("someone/old")
    told["no write"] = refused(lambda: rows.push_to_hub("someone/alone", token="hf_other"))
    told["wrong token"] = refused(lambda: Consolidation.from_pretrained("someone/alone", token="hf_other"))
    for source in ("someone/old", "someone/old@main/with/anchor", "hf://someone/alone"):
        got = Consolidation.from_pretrained(source)
        assert got.metadata["importance_fingerprint"] == made.metadata["importance_fingerprint"]
        told.setdefault("anchors", []).append(got.metadata["anchor"])
    in_folder = Consolidation.from_pretrained("someone/old", subfolder="with/anchor")
    assert in_folder.importance.keys() == made.importance.keys()
    assert len(Rehearsal.from_pretrained("someone/old", revision="main")) == 4
    told["planned"] = read_config("someone/old@main").n_layer
    told["a folder as anchor"] = refused(lambda: made.push_to_hub("someone/old", anchor_source=str(folder)))

    # 2. The same by command, of a folder that holds both.
    made.save_pretrained(folder / "both")
    rows.save_pretrained(folder / "both")
    command(["push", "--folder", str(folder / "both"), "--repo", "someone/both", "--subfolder", "old"])

    # 3. A run that is held by what the Hub has, and pushes its model with its card.
    args = arguments(
        folder / "out", push_to_hub=True, hub_model_id="someone/tuned", save_strategy="no", eval_on_start=True,
        ewc_lambda=3, rehearsal_rows=1,
    )  # fmt: skip
    trainer = EWCTrainer(
        model=tiny_gpt2(), args=args, train_dataset=examples(20), eval_dataset=examples(4),
        consolidation="someone/old", rehearsal="someone/old", data_collator=default_data_collator,
        processing_class=tiny_tokenizer(), retention_texts={"books": SENTENCES},
    )  # fmt: skip
    trainer.train()
    trainer.evaluate()
    trainer.push_to_hub()
    for key in ("eval_loss", "eval_books_perplexity"):
        values = [log[key] for log in trainer.state.log_history if key in log]
        told[key] = [f"{value:.4g}" for value in (values[0], values[-1])]
    (folder / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
