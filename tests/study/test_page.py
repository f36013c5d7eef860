import base64
import dataclasses
from html.parser import HTMLParser

import pytest
from made_up_records import PRETRAINED, record, study

from ewc_hf.study import MissingRun, TextNames
from ewc_hf.study.contents import sections
from ewc_hf.study.page import html_report
from ewc_hf.study.records import with_forgetting

NAMES = TextNames("dialogs", "books")
VOID = {"meta", "img"}


class Page(HTMLParser):
    """What a browser would show: every tag closed, the texts of a tag, the attributes of a tag."""

    def __init__(self, html):
        super().__init__()
        self.open, self.texts, self.attributes = [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.append((tag, tuple(self.open), []))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for _, opened, texts in self.texts[::-1]:
            if opened == tuple(self.open):
                texts.append(data)
                break

    def of(self, *tags):
        return ["".join(texts) for tag, _, texts in self.texts if tag in tags]


def page(runs, names=NAMES, title="A title", missing=(), pictures=(b"PNG 1", b"PNG 2")):
    return html_report(with_forgetting(runs), names, title, missing, pictures)


def writing(run, *continuations):
    return dataclasses.replace(run, continuations=[[*row] for row in continuations])


def test_it_says_what_the_tables_say():
    shown = Page(page(study(), missing=[MissingRun("l2-loss-1", 0)]))
    expected = sections(with_forgetting(study()), NAMES)
    assert shown.of("title", "h1") == ["A title", "A title"]
    assert shown.of("h2") == [section.heading for section in expected]
    assert shown.of("th", "td") == [cell for section in expected for row in section.table for cell in row]
    assert shown.of("p")[1:] == ["".join(section.note) for section in expected]
    assert shown.of("strong") == ["Unfinished: 11 of 12 runs."]
    assert shown.of("p")[0] == " Missing: l2-loss-1, seed 0."


def test_it_stands_alone_and_fits_a_phone():
    html = page(study())
    shown = Page(html)
    sources = [attributes["src"] for tag, attributes in shown.attributes if tag == "img"]
    assert [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources] == [
        b"PNG 1",
        b"PNG 2",
    ]
    assert not {"script", "link", "iframe"} & {tag for tag, _ in shown.attributes}
    assert not [word for word in ("http", "url(", "@import") if word in html]
    viewport = {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    assert ("meta", viewport) in shown.attributes
    assert "prefers-color-scheme: dark" in html and "system-ui" in html
    wide = [opened for tag, opened, _ in shown.texts if tag == "table"]
    assert all(opened[-2:] == ("div", "table") for opened in wide) and len(wide) == 2
    assert ".wide { overflow-x: auto;" in html and html.count('<div class="wide"><table>') == 2


def test_prompts_show_what_each_setting_writes_with_its_first_seed():
    pretrained, plain, *others = study()
    second = [dataclasses.replace(run, seed=2) for run in (plain, others[0])]
    runs = [
        writing(pretrained, ["task", "a: Hi", "old"], ["retention", "Once", "upon"]),
        writing(plain, ["task", "a: Hi", "b: Hello"], ["task", "a: Bye", "b: Bye"], ["retention", "Once", "b: Hi"]),
        writing(others[0], ["task", "a: Hi", "b: Held"]),
        *(writing(run, ["task", "a: Hi", "another seed"]) for run in second),
    ]
    shown = Page(page(runs))
    assert shown.of("h2")[-2:] == ["continuations of dialogs", "continuations of books"]
    prompts = [("prompt", text) for text in shown.of("p")[2:]]
    assert [text for _, text in prompts] == ["a: Hi", "a: Bye", "Once"]
    assert list(zip(shown.of("dt"), shown.of("dd"), strict=True)) == [
        ("pretrained", "old"),
        ("plain", "b: Hello"),
        ("fisher-loss-10", "b: Held"),
        ("plain", "b: Bye"),
        ("pretrained", "upon"),
        ("plain", "b: Hi"),
    ]


def test_without_continuations_there_are_no_headings_for_them():
    assert not [text for text in Page(page(study())).of("h2") if "continuations" in text]


EVIL = "<b onclick='x'>&amp;\"$title"


@pytest.mark.parametrize("place", ["title", "name", "text name", "curve", "missing", "prompt", "continuation"])
def test_everything_is_escaped(place):
    at = {name: EVIL if name == place else name for name in ("title", "name", "text name", "curve", "missing")}
    run = record("fisher", 10, 0, 4.1, 4.5, name=at["name"], curves={at["curve"]: 1.0})
    prompt, text = (EVIL if place == name else name for name in ("prompt", "continuation"))
    runs = [PRETRAINED, record("plain", 0, 0, 4.0, 5.0), writing(run, ["task", prompt, text])]
    names = TextNames(at["text name"], "books")
    html = page(runs, names, at["title"], [MissingRun(at["missing"], 0)])
    shown = Page(html)
    assert "<b" not in html.replace("<body", "") and EVIL not in html
    everything = [text for _, _, texts in shown.texts for text in ["".join(texts)]]
    assert any(EVIL in text for text in everything), "shown as it is"
