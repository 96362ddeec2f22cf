"""What stands between text that others wrote and a screen, and how milliseconds are written on it.

Names of classes, files and tensors, stored texts and the errors of libraries may hold what a terminal obeys:
escape sequences, and marks that turn the direction of writing. All that is printed for people goes through
:func:`displayed`; JSON is data and escapes by itself.
"""

from __future__ import annotations

_LONGEST_LINE = 20_000


def displayed(text: str, *, longest: int = _LONGEST_LINE, lines: bool = True) -> str:
    """Text as it may be printed: what is not visible is spelled as Python's escapes.

    Escaped are control characters, marks of direction and other invisible formats, separators of lines and
    paragraphs, surrogates (of file names that are no UTF-8) and characters without meaning; a space of any
    other kind becomes a plain one.

    Args:
        text: Any.
        longest: Of each line, in characters; what is more is cut, and how much it was is said.
        lines: Whether a line feed begins a new line, as in a message; else it is escaped, as in a cell.
    """
    if lines and "\n" in text:
        return "\n".join(displayed(line, longest=longest) for line in text.split("\n"))
    if len(text) > longest:
        text = f"{text[:longest]}... ({len(text):,} characters)"
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _spelled(character) for character in text)


def _spelled(character: str) -> str:
    if character.isspace() and ord(character) not in _BREAKS:
        return " "
    return repr(character)[1:-1]


_BREAKS = frozenset({*range(0x20), 0x7F, *range(0x80, 0xA0), 0x2028, 0x2029})
"""Of what Python counts as space, what moves a cursor or ends a line."""


def ms_text(value: float) -> str:
    """Milliseconds to a hundredth, or, below one, to a thousandth."""
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"
