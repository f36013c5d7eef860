"""Measure a model on held-out texts and benchmarks; beside the old one, what it gained and lost.

accelerate launch recipes/evaluate.py --model out/tuned --base gpt2 --text books=books_test.parquet

The same as `ewc-hf evaluate`, for those who launch everything from `recipes/`.
"""

import sys

from ewc_hf.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
