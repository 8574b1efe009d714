"""Texts to sentences, by rules and without downloads. ROUGE-Lsum and the extracts that serve as floors need them."""

from __future__ import annotations

import re

_ABBREVIATIONS = """
    mr mrs ms dr prof rev hon gov sen rep gen col maj capt lt sgt cpl pvt cmdr adm st sr jr messrs mmes
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri
    vs etc al cf viz approx est ed eds
    inc ltd co corp bros dept univ assn ave blvd rd ft mt a.m p.m u.s u.k u.n e.g i.e ph.d d.c
"""
#: a full stop after these ends no sentence; without their last stop, in lower case
ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())
#: these only before a number: "No. 5", "fig. 3"
BEFORE_NUMBERS = frozenset({"no", "nos", "vol", "fig", "figs", "eq", "sec", "ch", "p", "pp", "art"})
_CLOSING = "\"'’”»)\\]}"
#: a mark, what closes behind it, blanks; or the full stop of Chinese and Japanese, which needs no blank
_END = re.compile(
    rf"""(?P<mark>[.!?…]+)(?P<close>(?:\s?''|[{_CLOSING}])*)\s+(?=\S)
       | [。！？]+[」』”’）]*\s*(?=\S)""",
    re.VERBOSE,
)
#: "j", "u.s", "ph.d" behind which a full stop stands
_INITIALS = re.compile(r"(?:[^\W\d]\.)*[^\W\d]")
_OPENING = re.compile(r"[\"'‘“«(\[{`¿¡\-–—*#@\s]*")


def split_sentences(text: str) -> list[str]:
    """The sentences of ``text`` in their order, stripped, none empty.

    Lines are sentences already where there are several (CNN/DailyMail's highlights, pyrouge's files). Within a line
    a sentence ends at ``.``, ``!``, ``?`` or an ellipsis and what closes behind it, before a blank; at a full stop that
    stands alone, as in tokenised texts; not after an abbreviation or initial, nor before a word in lower case where
    the text has capitals. Full stops of Chinese and Japanese need no blank.
    """
    cased = text != text.lower()
    sentences = []
    for line in text.splitlines():
        start = 0
        for end in _END.finditer(line):
            if _is_end(line, end, cased):
                sentences.append(line[start : end.end()].strip())
                start = end.end()
        sentences.append(line[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _is_end(line: str, end: re.Match[str], cased: bool) -> bool:
    mark = end["mark"]
    if mark is None:
        return True
    before, after = line[: end.start()], line[end.end() :]
    alone = not before or before[-1].isspace()
    following = after[_OPENING.match(after).end() :]  # type: ignore[union-attr]  # it matches the empty text
    if cased and following[:1].islower():
        return False
    if mark != "." or alone or end["close"]:
        return True
    word = re.split(rf"[\s{_CLOSING}\"'‘“(\[-]", before)[-1].lower()
    if word in ABBREVIATIONS or (word in BEFORE_NUMBERS and following[:1].isdigit()):
        return False
    return not _INITIALS.fullmatch(word)
