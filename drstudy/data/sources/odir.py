"""ODIR: eyes of a challenge on eight diseases, here those that are normal, or have diabetic retinopathy (DR) or AMD.

What is known of each eye comes from two columns of its ``labels.csv``. The grade of DR is in ``grade``; an empty cell is *not annotated*.
AMD has no grade in this set. Whether an eye has it (``amd``) follows from its diagnostic keywords by :func:`amd_of`.
"""

from __future__ import annotations

from collections import Counter

from drstudy.data.sources.base import Reading, SourceError, add, name_unlabelled, read_grade, scan
from drstudy.data.sources.tables import need_columns, needed, read_csv

LAYOUT = (
    "ODIR has labels.csv (image, patient_id, eye, grade, class3, keywords) and "
    "preprocessed_images/<patient>_<left|right>.jpg."
)

AMD = "age-related macular degeneration"
"""Keyword of AMD, ``dry`` or ``wet``; the words before it are no part of it."""

NORMAL = "normal fundus"

DOUBTFUL = (
    "drusen",
    "atroph",
    "pigment",
    "maculopathy",
    "membranous change",
    "neovascular",
    "retinal degeneration",
    "scar",
)
"""Parts of keywords that may be signs of AMD, early or late: an eye that has one of them without :data:`AMD` is not known to be free of it.
(A membrane on the retina, ``epiretinal``, is none of them.)"""

CLASSES = ("normal", "dr", "amd")
"""Values of ``class3``: what the eye was chosen for."""


def keywords_of(text: str) -> list[str]:
    """The diagnostic keywords of one eye, in lower case."""
    return [
        part.strip().lower() for part in text.replace("；", ";").replace("，", ";").split(";") if part.strip()
    ]


def amd_of(text: str) -> int | None:
    """Whether an eye has AMD, by its diagnostic keywords.

    1 if a keyword names AMD. 0 if none does and none of :data:`DOUBTFUL` is in any: the keywords list everything that the readers found in
    the eye, and the challenge itself takes a disease as absent where no keyword names it (``docs/sources.md``, C5). ``None``, not known, if
    there are no keywords, or a doubtful one, such as ``drusen`` beside DR.

    Args:
        text: Keywords, separated by semicolons.
    """
    words = keywords_of(text)
    if any(AMD in word for word in words):
        return 1
    if not words or any(part in word for word in words for part in DOUBTFUL):
        return None
    return 0


def read(reading: Reading) -> None:
    """Read ``labels.csv``.

    Raises:
        SourceError: If a row's ``class3`` is unknown, or contradicts its keywords or its grade: then the table is not the one whose rules
            are written here.
    """
    table = read_csv(needed(reading, "labels.csv"), reading)
    need_columns(reading, table, "labels.csv", "image", "patient_id", "eye", "grade", "class3", "keywords")
    files = scan(reading, "preprocessed_images")
    found: Counter[int | None] = Counter()
    for row in table.to_dict("records"):
        macular = amd_of(row["keywords"])
        _agree(reading, row, macular)
        found[macular] += 1
        grade = row["grade"] or None
        extra = {"amd": macular, "keywords": row["keywords"]}
        add(reading, files, row["image"], grade, patient=row["patient_id"], eye=row["eye"], **extra)
    name_unlabelled(reading, files)
    reading.notes.append(
        f"AMD is yes or no in ODIR, and has no grade: {found[1]} eyes with it, {found[0]} without, {found[None]} of which the keywords "
        "leave it open. Eyes chosen for AMD have no grade of DR: not annotated, not grade 0."
    )


def _agree(reading: Reading, row: dict[str, str], macular: int | None) -> None:
    """Refuse a row whose columns contradict each other; see :func:`read`."""
    kind, where = row["class3"].strip().lower(), reading.show("labels.csv")
    if kind not in CLASSES:
        raise SourceError(
            f"{where}: class3 of {row['image']!r} is {row['class3']!r}; it must be one of {', '.join(CLASSES)}. {LAYOUT}"
        )
    if (kind == "amd") != (macular == 1):
        raise SourceError(
            f"{where}: {row['image']!r} is of class3 {row['class3']!r}, but its keywords are {row['keywords']!r}. Correct the row, or leave "
            "it out."
        )
    grade, _ = read_grade(row["grade"])
    if grade is not None and (kind == "normal") != (grade == 0):
        raise SourceError(
            f"{where}: {row['image']!r} is of class3 {row['class3']!r}, but its grade is {row['grade']}. Correct the row, or leave it out."
        )
    if kind == "normal" and NORMAL not in keywords_of(row["keywords"]):
        raise SourceError(
            f"{where}: {row['image']!r} is of class3 'normal', but its keywords {row['keywords']!r} do not name {NORMAL!r}. Correct the row, "
            "or leave it out."
        )
