"""A task of the harness that needs no network: which of four endings a text has."""

import json
import random


def write_book_endings(folder, texts, words=8):
    """Write the task `book_endings` into a folder: each text's beginning, its ending and three others'."""
    folder.mkdir(parents=True, exist_ok=True)
    split = [text.split() for text in texts]
    endings = [" ".join(each[words : 2 * words]) for each in split]
    draw, rows = random.Random(0), []
    for number, each in enumerate(split):
        choices = [endings[number], *draw.sample(endings[:number] + endings[number + 1 :], 3)]
        order = draw.sample(range(4), 4)
        rows.append(
            {
                "beginning": " ".join(each[:words]),
                "endings": [choices[place] for place in order],
                "right": order.index(0),
            }
        )
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "book_endings.yaml").write_text(
        f"""task: book_endings
dataset_path: json
dataset_kwargs:
  data_files:
    test: {questions}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{beginning}}}}"
doc_to_choice: "{{{{endings}}}}"
doc_to_target: right
metric_list:
  - metric: acc
  - metric: acc_norm
""",
        encoding="utf-8",
    )
    return rows
