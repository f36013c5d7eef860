"""A dialog with empty, broken and foreign words, in both of its forms, and the text that it is written as."""

TURNS = [
    {"speaker": "ann", "text": "Hello there!"},
    {"speaker": "bob", "text": "Snow  fell, 🥊 and\nthe river… "},
    {"speaker": "ann", "text": ""},
    {"speaker": "bob", "text": "bob: I am well"},
]
MESSAGES = [{"role": turn["speaker"], "content": turn["text"]} for turn in TURNS]
WRITTEN = "ann: Hello there!\nbob: Snow  fell, 🥊 and\nthe river… \nann: \nbob: bob: I am well\n"
