"""Sentences as books, and greetings as dialogs."""

from tiny import SENTENCES

BOOKS = [" ".join(SENTENCES[number:] + SENTENCES[:number]) for number in (0, 1, 2)] * 4
DIALOGS = [[{"speaker": name, "text": f"Hello {name}, how are you?"} for name in pair] for pair in ("ab", "xy")] * 6
