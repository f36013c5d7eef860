"""The generated demo text: seeded, readable, and true to one world."""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from ewc_hf.demo import world as world_module
from ewc_hf.demo.tables import PLACES, TRADES
from ewc_hf.demo.world import book_texts, dialogs, world

SEEDS = 0, 1, 2
WOMEN_KIN = "sister", "aunt", "mother", "daughter", "niece"
MEN_KIN = "brother", "uncle", "father", "son", "nephew"
WRITERS = pytest.mark.parametrize("write", [book_texts, dialogs])


@pytest.fixture(scope="module")
def chapters():
    return [chapter for seed in SEEDS for chapter in book_texts(300, seed)]


@pytest.fixture(scope="module")
def chats():
    return [chat for seed in SEEDS for chat in dialogs(300, seed)]


def words_of(texts):
    return {word for text in texts for word in re.findall(r"[a-z']+", text.lower())}


def facts_in(chapters, pattern):
    """Map each match's first group to the set of its second ones."""
    facts = defaultdict(set)
    for chapter in chapters:
        for subject, fact in re.findall(pattern, chapter):
            facts[subject].add(fact)
    return facts


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_bare_python_with_any_hash_seed_writes_the_same(hash_seed):
    code = "import sys, types; sys.modules['demo'] = demo = types.ModuleType('demo'); demo.__path__ = ['.']\n"
    code += "from demo.world import book_texts, dialogs; print(ascii((book_texts(20, 7), dialogs(20, 7))))"
    without_site_packages = [sys.executable, "-S", "-c", code]
    environment, folder = {"PYTHONHASHSEED": hash_seed}, Path(world_module.__file__).parent
    written = subprocess.run(without_site_packages, cwd=folder, env=environment, capture_output=True, text=True)
    assert written.stdout == ascii((book_texts(20, 7), dialogs(20, 7))) + "\n", written.stderr


@WRITERS
def test_fewer_texts_are_the_first_of_more(write):
    assert write(0, 3) == []
    assert write(5, 3) == write(12, 3)[:5]
    assert len(write(12, 3)) == 12


@WRITERS
def test_other_seeds_give_other_texts(write):
    assert write(5, 0) != write(5, 1)


def test_held_out_chapters_are_not_training_chapters():
    training, held_out = book_texts(1000, 0), book_texts(300, 1)
    assert len(set(training)) == len(training)
    assert not set(training) & set(held_out)


def test_chapters_are_long_and_their_vocabulary_wide(chapters):
    lengths = [len(chapter.split()) for chapter in chapters]
    assert 200 <= min(lengths) and max(lengths) <= 350
    assert 240 <= sum(lengths) / len(lengths) <= 300
    assert len(words_of(chapters)) >= 800


def test_chat_vocabulary_is_wide_and_shares_words_with_the_books(chapters, chats):
    chat_words = words_of(turn["text"] for chat in chats for turn in chat)
    assert len(chat_words) >= 400
    shared = chat_words & words_of(chapters)
    assert 100 <= len(shared) <= len(chat_words) / 2


def test_chapters_agree_on_every_persons_trade(chapters):
    trades = "|".join(trade.split(":")[0] for trade in TRADES.split())
    told = facts_in(chapters, rf"\b([A-Z][a-z]+) the ({trades})\b")
    assert told == {name: {person.trade} for name, person in world().items()}


def test_chapters_agree_on_every_persons_home(chapters):
    told = facts_in(chapters, r"^(\w+) the \w+ (?:had lived|could not remember a harder \w+) in (\w+)")
    assert len(told) >= 60
    assert told == {name: {world()[name].home.name} for name in told}


def test_chapters_agree_on_every_places_river(chapters):
    told = facts_in(chapters, r"had lived in (\w+), beside (the \w+),")
    rivers = {place: {river} for place, river, *_ in (line.split(" | ") for line in PLACES.splitlines()[2:])}
    assert told == rivers


@pytest.mark.parametrize("person", world().values(), ids=world())
def test_relatives_name_each_other_and_live_apart(person):
    relative = world()[person.kin]
    bonds = [("sister brother", "sister brother"), ("cousin", "cousin"), ("aunt uncle", "niece nephew")]
    bonds += [("mother father", "daughter son"), ("niece nephew", "aunt uncle"), ("daughter son", "mother father")]
    assert relative.kin == person.name
    assert any(person.kinship in one.split() and relative.kinship in other.split() for one, other in bonds)
    assert person.kinship not in WOMEN_KIN or relative.he == "she"
    assert person.kinship not in MEN_KIN or relative.he == "he"
    assert relative.home.name != person.home.name


def test_every_person_owns_a_treasure_of_their_own():
    assert len(world()) == len({person.treasure for person in world().values()}) >= 60


def test_chats_alternate_between_user_and_assistant(chats):
    for chat in chats:
        assert 6 <= len(chat) <= 12
        assert [turn["speaker"] for turn in chat] == ["user", "assistant"] * (len(chat) // 2)
    assert {len(chat) for chat in chats} == {6, 8, 10, 12}


def test_answer_keeps_the_words_of_its_question(chats):
    text = "\n".join(turn["text"] for chat in chats for turn in chat)
    asked = re.findall(r"^I've started (\w+)\. It's fun!\n.*always wanted to try (\w+)\.$", text, re.MULTILINE)
    assert asked and all(hobby == tried for hobby, tried in asked)


def test_sentences_are_clean(chapters, chats):
    paragraphs = [paragraph for chapter in chapters for paragraph in chapter.split("\n\n")]
    turns = [turn["text"] for chat in chats for turn in chat]
    for line in paragraphs + turns:
        assert not re.search(r"[{}|\n]|  |^\s|\s$|\s[,.?!]|[,.?!]{2}|\ba [aeiou]", line), line
        assert re.search(r'[.?!]"?$', line), line
        assert not re.search(r'(?:^|[.?!] )"?[a-z]', line), line
