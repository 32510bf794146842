"""Format: a reply has the form that was asked for, and is not broken.

A form is a JSON schema, a number of alternatives, a list or a heading that the instructions name, or the list of a text
that was to be reworked. Broken is what no form wants: control characters, lost characters, markup that is opened and
never closed. Length has a rule of its own (rewards.length).
"""

import json
import re
import unicodedata
from collections import Counter

from agent.brief import Brief, Kind
from agent.errors import SchemaNotMet
from agent.structure import read_reply
from agent.suggestions import distinct, split_alternatives
from rewards.layouts import asked_layout, has_heading, num_items
from rewards.part import RuleInput

_JSON_THAT_BREAKS_THE_SCHEMA = 0.25
_LEAST_ITEMS = 2
_BROKEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd\ufff0-\ufff8\ufffe\uffff\u202d\u202e\ue000-\uf8ff\ud800-\udfff]"
)
"""Control, replacement and private characters, lone surrogates, and overrides of direction."""
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)(?:\s[^<>]*)?>")
_VOID = frozenset("br hr img input meta link wbr source area base col embed".split())
_MARKS_ON_A_LETTER = re.compile(r"[^\W\d_][\u0300-\u036f\u0489]{3,}")
"""Marks piled up on one letter."""


class Format:
    """Whether a reply has its form and is whole."""

    name = "format"

    def judge(self, given: RuleInput) -> float:
        """See format_value."""
        return format_value(given.sample.text, given.sample.brief)


def format_value(text: str, brief: Brief) -> float:
    """0 for a broken reply and for no JSON where a schema was asked for; else the worst of what was asked for.

    JSON that breaks the schema is worth a quarter. Alternatives and items of a list count by their share, a heading
    that was asked for and is missing costs half.
    """
    if is_broken(text):
        return 0.0
    if brief.schema is not None:
        return _schema_value(text, brief.schema)
    if brief.num_alternatives is not None:
        return len(distinct(split_alternatives(text), brief.num_alternatives)) / brief.num_alternatives
    if brief.kind in (Kind.CORRECT, Kind.TRANSLATE):
        return _items_kept(text, brief.text)
    return 1.0 if brief.kind is Kind.CHAT else _layout_value(text, brief.instructions)


def is_broken(text: str) -> bool:
    """True for text with characters or markup that no reader or program can use."""
    if text.isascii() and text.isprintable() and not any(mark in text for mark in "<`*"):
        return False
    return (
        _BROKEN.search(text) is not None
        or text.count("```") % 2 == 1
        or (text.count("**") % 2 == 1 and "\n" not in text.strip())
        or _MARKS_ON_A_LETTER.search(unicodedata.normalize("NFC", text)) is not None
        or _has_open_tags(text)
    )


def _has_open_tags(text: str) -> bool:
    balance: Counter[str] = Counter()
    for closing, name in _TAG.findall(text):
        if name.lower() not in _VOID:
            balance[name.lower()] += -1 if closing else 1
    return any(balance.values())


def _schema_value(text: str, schema: str) -> float:
    try:
        read_reply(text, schema)
    except SchemaNotMet:
        return _JSON_THAT_BREAKS_THE_SCHEMA if _is_json(text) else 0.0
    return 1.0


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _items_kept(text: str, source: str) -> float:
    """How many of a text's list items are still ones, where it has a list."""
    num_wanted = num_items(source)
    return 1.0 if num_wanted < _LEAST_ITEMS else min(1.0, num_items(text) / num_wanted)


def _layout_value(text: str, instructions: str) -> float:
    asked = asked_layout(instructions)
    listed = min(1.0, num_items(text) / _LEAST_ITEMS) if asked.is_list else 1.0
    return min(listed, 0.5 if asked.has_heading and not has_heading(text) else 1.0)
