"""Let a model write rows of text with its answers, which keep it near them while it learns, and store them beside it.

accelerate launch recipes/generate_rehearsal.py --model gpt2 --output_dir out/gpt2-old

The same as `ewc-hf rehearse`, for those who launch everything from `recipes/`.
"""

import sys

from ewc_hf.cli import main

if __name__ == "__main__":
    main(["rehearse", *sys.argv[1:]])
