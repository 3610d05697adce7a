"""Downloaded CIFAKE files, rewritten as one zip in the published layout."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from cifake.data.archives import iter_files
from cifake.errors import refuse

_PUBLISHED = re.compile(
    r"(?:^|/)((?:train|test)/(?:REAL|FAKE)/[^/]+\.(?:jpe?g|png))$", re.IGNORECASE
)


def repack(source: Path, target: Path) -> None:
    """Write the images of a folder or archive to a zip as `train|test/REAL|FAKE/NAME`.

    Folders around the layout and files beside it are left out: a repository has both, and one
    file in place of 120,000 is found, copied and removed at once.

    Raises:
        InputError: a damaged archive, no image in the layout, or two under one name.
        OSError: the zip cannot be written.
    """
    written: set[str] = set()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, blob in iter_files(source):
            match = _PUBLISHED.search(name)
            if match is None:
                continue
            if match[1] in written:
                refuse(source, "is there twice, under two folders", field=match[1])
            written.add(match[1])
            member = zipfile.ZipInfo(match[1])
            member.external_attr = 0o644 << 16
            archive.writestr(member, blob)
    if not written:
        refuse(source, "holds no image in train/REAL, train/FAKE, test/REAL or test/FAKE")
