"""Short numbered scripts, for `accelerate launch recipes/NAME.py` and for the commands of `ewc-hf`."""
