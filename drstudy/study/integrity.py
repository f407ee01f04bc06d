"""Whether finished results are still what their runs wrote: every file, and every pixel of their image stores."""

from __future__ import annotations

import json

from drstudy.core import paths, records


def compare(profile: str) -> list[str]:
    """Compare all finished results of a profile with the digests in their records, and their image stores pixel by pixel.

    Args:
        profile: Name of the profile.

    Returns:
        One line per result that is not what its run wrote; empty if all are.

    Raises:
        drstudy.core.records.RecordError: If there is no finished result.
    """
    from drstudy.data import images

    base = paths.results() / profile
    files = [*sorted(base.glob("*/run.json")), *sorted(base.glob("*/*/run.json"))]
    if not files:
        raise records.RecordError(
            f"{paths.show(base)} has no finished result. Run `drstudy reproduce --profile {profile}`."
        )
    lines = []
    for file in files:
        try:
            record = records.load(file.parent)
            record.check()
            if (record.folder / "images.json").is_file():
                images.open_store(
                    json.loads(record.path("images.json").read_text(encoding="utf-8"))["store"], deep=True
                )
        except (records.RecordError, images.StoreError) as error:
            lines.append(str(error))
    return lines
