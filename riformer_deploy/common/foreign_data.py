"""The boundary around parsers of data that others wrote."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from riformer_deploy.common.errors import RIFormerDeployError

_LONGEST = 200


def reason_of(err: BaseException) -> str:
    """The first line of an error for a message, at most 200 characters; its type where it has no text."""
    if isinstance(err, OSError) and err.strerror:
        return err.strerror
    text = next(iter(str(err).strip().splitlines()), "").strip()
    if not text:
        return type(err).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


@contextlib.contextmanager
def foreign_data(
    name: Path | str, error: type[RIFormerDeployError], *, kind: str, remedy: str = ""
) -> Iterator[None]:
    """Make whatever is raised while a file is parsed the error of that file.

    A list of the exceptions that a parser is known to raise is never complete: NumPy, Pillow, protobuf,
    ``ast`` and ``zipfile`` raise a dozen kinds for damage. The toolkit's own errors pass as they are.

    Args:
        name: Named in the message.
        error: What is raised.
        kind: What the file should be, with its article, such as ``an .npz file``.
        remedy: What to do next.

    Raises:
        RIFormerDeployError: Of the type ``error``, for whatever else is raised within the block.
    """
    try:
        yield
    except RIFormerDeployError:
        raise
    except OSError as err:
        raise error(f"{name} cannot be read as {kind}: {reason_of(err)}", remedy=remedy) from err
    except Exception as err:  # the point of this function; interruptions are no Exception
        raise error(f"{name} is damaged or not {kind}: {reason_of(err)}", remedy=remedy) from err
