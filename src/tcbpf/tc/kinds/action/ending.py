"""The words that many kinds of action share: how an action ends, and its index.

Source:  parse_action_control() and print_action_control(), tc/tc_util.c of iproute2 6.1.
"""

from __future__ import annotations

from tcbpf.control.args import LOCAL, USAGE, Quit, Words, c_number, matches
from tcbpf.control.codes import control_code, control_word
from tcbpf.control.sheet import Sheet
from tcbpf.tables.actions import VALUE_MASK

CONTROLS = ("continue", "pass", "reclassify", "drop", "pipe", "stolen", "trap", "shot", "ok")
"""The control words that tc(8) takes, in the order in which it matches abbreviations."""

GACT_USAGE = """\
Usage: ... gact CONTROL [ index INDEX ]
CONTROL := reclassify | drop | continue | pass | pipe | stolen | trap | goto chain CHAIN | jump COUNT
"tc actions help" names the other kinds"""


def read_control(word: str, words: Words) -> str | None:
    """Return the control that `word` begins, its number taken from `words`; None when it begins none.

    Raises:  Quit.
    """
    if matches(word, "goto"):
        if words.take() != "chain":
            raise Quit(USAGE, '"chain index" expected', GACT_USAGE)
        number = _take_count(words, 'Illegal "chain index"')
        return f"goto chain {number}"
    if matches(word, "jump"):
        number = _take_count(words, f'Invalid "jump count" ({words.next})')
        return f"jump {number}"
    return next((control_word(control_code(name)) for name in CONTROLS if matches(word, name)), None)


def _take_count(words: Words, refusal: str) -> int:
    value = c_number(words.take())
    if value is None or value > VALUE_MASK:
        raise Quit(USAGE, refusal, GACT_USAGE)
    return value


def take_control(words: Words, default: str = "pipe") -> str:
    """Take the control word that may end an action; any other word is not the action's.

    Raises:  Quit.
    """
    if not words or words.next in ("action", "index"):
        return default
    word, at = words.next, words.mark()
    words.take()
    found = read_control(word, words)
    if found is None:
        words.back(at)
    return found or default


def take_index(words: Words, kind: str = "") -> int:
    """Take `index N`, or return 0.

    Raises:  Quit.
    """
    return take_index_number(words, kind) if words.accept("index", prefix=True) else 0


def take_index_number(words: Words, kind: str = "") -> int:
    """Take the number of an index.

    Raises:  Quit.
    """
    value = c_number(words.take())
    if value is None or value > 0xFFFFFFFF:
        raise Quit(LOCAL, f'{kind}: Illegal "index"' if kind else 'Illegal "index"')
    return value


def show_control(sheet: Sheet, word: str, before: str = " ", after: str = "") -> None:
    """Put how an action ends: "drop", "goto chain 3", "jump 2"."""
    name, number = word.rpartition(" ")[::2] if word[-1:].isdigit() else (word, "")
    with sheet.object("control_action"):
        sheet.put("type", name.removesuffix(" chain"), before + "{}")
        if number and name.endswith("chain"):
            sheet.put("chain", int(number), " chain {}")
        elif number:
            sheet.put("jump", int(number), " {}")
    sheet.say(after)


def show_index(sheet: Sheet, index: int, before: str = "\t ") -> None:
    """Put an index, on a line of its own."""
    sheet.line()
    sheet.put("index", index, before + "index {}")
