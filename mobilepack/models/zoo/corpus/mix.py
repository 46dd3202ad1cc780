"""What share of what the training text holds."""

from dataclasses import dataclass
from typing import Final, Literal

MixName = Literal["even", "copying"]


@dataclass(frozen=True, slots=True)
class Mix:
    """Relative frequencies: of the sorts of documents, and of the kinds of drills in a chat."""

    documents: dict[str, float]
    drills: dict[str, float]


MIXES: Final[dict[MixName, Mix]] = {
    "even": Mix(
        {"text": 30, "drills": 50, "reading": 12, "mixed": 8},
        {
            "add": 5.0,
            "subtract": 1.0,
            "next": 1.5,
            "recall": 3.0,
            "copy": 1.5,
            "reverse": 2.0,
            "sort": 2.0,
            "count": 2.0,
            "largest": 2.0,
            "fact": 2.0,
        },
    ),
    # Looking something up in the context is learnt last of all and needs the most examples.
    "copying": Mix(
        {"text": 12, "drills": 45, "reading": 18, "mixed": 7, "echo": 18},
        {
            "add": 4.0,
            "subtract": 0.5,
            "next": 1.5,
            "recall": 5.0,
            "copy": 4.0,
            "reverse": 3.0,
            "sort": 1.5,
            "count": 0.7,
            "largest": 2.0,
            "fact": 2.5,
        },
    ),
}
