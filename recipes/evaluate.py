"""Measure a model's perplexity on held-out text, by token, word and byte, with a bootstrap interval.

accelerate launch recipes/evaluate.py --model out/tuned --text books_test.parquet --max_documents 33

The same as `ewc-hf perplexity`, for those who launch everything from `recipes/`.
"""

import sys

from ewc_hf.cli import main

if __name__ == "__main__":
    main(["perplexity", *sys.argv[1:]])
