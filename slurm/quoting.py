"""Quoting: a word for bash, and a value for an #SBATCH line, which has rules of its own."""

import os
import shlex

from slurm.errors import BadInput


def quote_word(word: str) -> str:
    """Quote a word for bash, on one line whatever it holds.

    Raises:
        BadInput: a NUL, which no argument can hold.
    """
    if "\0" in word:
        raise BadInput(f"{word!r}: an argument can't hold a NUL")
    if word.isprintable():
        return shlex.quote(word)
    # sbatch refuses a script with carriage returns, and lone surrogates are file names that are not UTF-8.
    return "$'" + "".join(_escape(character) for character in word) + "'"


def quote_words(words) -> str:
    return " ".join(quote_word(word) for word in words)


def directive(option: str, value: str | int | None = None) -> str:
    """Return an #SBATCH line.

    Raises:
        BadInput: a control character in the value; a newline there would begin a line of its own.
    """
    if value is None or value == "":
        return f"#SBATCH {one_line('option', option)}"
    text = one_line(option, str(value))
    if any(character in text for character in " \"'#\\"):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"#SBATCH {option}={text}"


def one_line(what: str, text: str) -> str:
    """Return the text if it is printable, as values of #SBATCH lines have to be."""
    if not text.isprintable():
        raise BadInput(f"{what} {text!r}: a value that goes to sbatch can't hold a newline or another control character")
    return text


def _escape(character: str) -> str:
    if character in "\\'":
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
