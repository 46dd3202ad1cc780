"""What share of what the training text holds."""

from dataclasses import dataclass
from typing import Final, Literal

MixName = Literal["even", "copying", "sums", "lookup", "final"]


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
    # Once copying has begun: sums, and questions about whole stories.
    "sums": Mix(
        {"text": 17, "drills": 50, "reading": 26, "mixed": 6, "echo": 1},
        {
            "add": 9.0,
            "subtract": 1.0,
            "next": 3.0,
            "recall": 6.0,
            "copy": 2.0,
            "reverse": 0.7,
            "sort": 1.0,
            "count": 0.7,
            "largest": 1.5,
            "fact": 3.0,
        },
    ),
    "lookup": Mix(
        {"text": 10, "drills": 45, "reading": 22, "mixed": 5, "echo": 18},
        {
            "add": 3.0,
            "subtract": 0.5,
            "next": 1.0,
            "recall": 5.0,
            "lookup": 5.0,
            "copy": 5.0,
            "reverse": 2.0,
            "sort": 0.7,
            "count": 0.4,
            "largest": 0.6,
            "fact": 1.5,
        },
    ),
    "final": Mix(
        {"text": 18, "drills": 46, "reading": 23, "mixed": 7, "echo": 6},
        {
            "add": 5.0,
            "subtract": 1.0,
            "next": 1.5,
            "recall": 4.0,
            "lookup": 3.0,
            "copy": 3.0,
            "reverse": 1.5,
            "sort": 1.5,
            "count": 1.0,
            "largest": 1.5,
            "fact": 3.0,
        },
    ),
}
