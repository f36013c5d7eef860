"""Text for the offline demo: chapters of a book to learn first, chat dialogs to fine-tune on.

The chapters tell of one fixed world, whose people and places keep their facts, so that there is something to forget.
The dialogs use many of the book's words in other ways, so that learning them interferes. Nothing is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from types import SimpleNamespace

from .tables import (
    BONDS,
    BOOK_WORDS,
    CHAT_WORDS,
    CLOSINGS,
    DIALOGS,
    FAREWELLS,
    MATERIALS,
    MEN,
    OBJECTS,
    OPENINGS,
    PLACES,
    PRONOUNS,
    SCENES,
    TEMPERS,
    TRADES,
    WOMEN,
)

WORLD_SEED = 1851


class Entity(SimpleNamespace):
    """A person or a place of the book: its facts are attributes, and templates show it as its name."""

    def __str__(self) -> str:
        """Return the name."""
        return self.name


@cache
def world() -> dict[str, Entity]:
    """Return the people of the book by name, the same in every process.

    Their facts are `name`, the pronouns `he`, `him`, `his`, `trade`, `tool`, `treasure`, `temper`, `home` (a place and
    its facts), and a relative in another place: `kin`, a name, who is the person's `kinship`.
    """
    rng = Random(WORLD_SEED)
    keys, *rows = (line.split(" | ") for line in PLACES.strip().splitlines())
    places = [Entity(**dict(zip(keys, row, strict=True))) for row in rows]
    names = [(name, 0) for name in WOMEN.split()] + [(name, 1) for name in MEN.split()]
    rng.shuffle(names)
    treasures = rng.sample([f"{made} {thing}" for made in MATERIALS.split() for thing in OBJECTS.split()], len(names))
    people = {}
    for elder in range(0, len(names), 2):
        bond, homes = rng.choice(BONDS.split()).split("/"), rng.sample(places, 2)
        for i in range(2):
            (name, man), (kin, kin_is_man) = names[elder + i], names[elder + 1 - i]
            he, him, his = PRONOUNS[man]
            trade, tool = rng.choice(TRADES.split()).split(":")
            people[name] = Entity(
                name=name, he=he, him=him, his=his, trade=trade, tool=tool, treasure=treasures[elder + i],
                temper=rng.choice(TEMPERS.split()), home=homes[i], kinship=bond[2 - 2 * i + kin_is_man], kin=kin,
            )  # fmt: skip
    return people


class Slots(dict[str, object]):
    """What a text's slots stand for; one that is not given draws a word that no other slot has, and keeps it."""

    def __init__(self, rng: Random, words: Mapping[str, Sequence[str]], **given: object) -> None:
        """Keep the words to draw from by slot name, and the slots that are given."""
        super().__init__(given)
        self.rng, self.words = rng, words

    def __missing__(self, slot: str) -> object:
        """Draw a slot's word; digits at the end of its name only tell it from other slots."""
        unused = [word for word in self.words[slot.rstrip("0123456789")] if word not in self.values()]
        self[slot] = self.rng.choice(unused)
        return self[slot]


def read_words(table: str) -> dict[str, list[str]]:
    """Read `name: word, word; name: word` into lists of words by slot name."""
    rows = (row.split(": ") for row in re.split(r"; |\n(?=\w+: )", table.strip()))
    return {name: re.split(r",\s", words) for name, words in rows}


def read_stanzas(table: str) -> list[list[str]]:
    """Read stanzas, each a list of lines."""
    return [stanza.split("\n  ") for stanza in re.split(r"\n(?! )", table.strip())]


def tell(rng: Random, stanza: Sequence[str], count: int, slots: Slots) -> list[str]:
    """Fill in the first line of a stanza and `count` of the others, in their order, each beginning with a capital."""
    chosen = [0, *sorted(rng.sample(range(1, len(stanza)), count))]
    lines = [stanza[i].format_map(slots) for i in chosen]
    return [line[0].upper() + line[1:] for line in lines]


def book_texts(num_documents: int, seed: int) -> list[str]:
    """Write chapters of about 260 words in five paragraphs about the people of the one world.

    The same seed gives the same chapters, and more of them begin with the fewer; another seed tells other events.
    """
    rng, people, words = Random(seed), world(), read_words(BOOK_WORDS)
    openings, scenes, closings = (read_stanzas(table) for table in (OPENINGS, SCENES, CLOSINGS))
    chapters = []
    for _ in range(num_documents):
        hero = rng.choice(list(people.values()))
        relative = people[hero.kin]
        other = rng.choice([p for p in people.values() if p.home not in (hero.home, relative.home)])
        slots = Slots(rng, words, a=hero, b=relative, c=other)
        stanzas = [rng.choice(openings), *rng.sample(scenes, 3), *closings]
        chapters.append("\n\n".join(" ".join(tell(rng, stanza, rng.randint(2, 3), slots)) for stanza in stanzas))
    return chapters


def dialogs(num_dialogs: int, seed: int) -> list[list[dict[str, str]]]:
    """Hold chats of 6 to 12 turns `{"speaker": "user" | "assistant", "text": ...}`; the user begins.

    The same seed gives the same chats, and more of them begin with the fewer.
    """
    rng, words = Random(seed), read_words(CHAT_WORDS) | {"name": list(world())}
    topics, farewells = read_stanzas(DIALOGS), FAREWELLS.strip().splitlines()
    chats = []
    for _ in range(num_dialogs):
        slots = Slots(rng, words)
        lines = tell(rng, rng.choice(topics), rng.randint(1, 4), slots)
        lines += tell(rng, [rng.choice(farewells)], 0, slots)
        turns = [zip(("user", "assistant"), line.split(" | "), strict=True) for line in lines]
        chats.append([{"speaker": speaker, "text": text} for turn in turns for speaker, text in turn])
    return chats
