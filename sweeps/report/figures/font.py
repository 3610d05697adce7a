"""The font of the figures: DejaVu Sans without the scripts that hardly any name is written in.

A PDF holds the letters that it shows, which are cut out of their font. Of all of DejaVu Sans, with
the rules by which its 6,000 letters join, that takes four times as long.
"""

from __future__ import annotations

import atexit
import io
import shutil
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

import matplotlib as mpl
from fontTools import subset
from matplotlib import font_manager

from cifake.data.locate import cache_folder
from cifake.files import write_aside

WHOLE = "DejaVu Sans"
"""What is cut, and has the letters that were left out."""

CUT = "DejaVu Sans for figures"

_LETTERS = (
    range(0x0020, 0x0180),  # Latin
    range(0x0370, 0x0460),  # Greek, Cyrillic
    range(0x2000, 0x20D0),  # punctuation, superscripts, currencies
    range(0x2190, 0x2300),  # arrows, mathematics
)

_FAMILY_RECORDS = (1, 4, 16)
"""Where a font says what family it is of, as OpenType numbers its names."""


@cache
def families() -> tuple[str, ...]:
    """Fonts that a letter is looked for in, in this order; matplotlib knows them from now on."""
    font_manager.fontManager.addfont(cut_font())
    return (CUT, WHOLE)


def cut_font() -> Path:
    """The cut font's file: in the cache folder, or where that cannot be written in one that goes.

    It holds the same wherever it lies.
    """
    name = f"{CUT} of matplotlib {version('matplotlib')} by fonttools {version('fonttools')}.ttf"
    path = cache_folder() / "fonts" / name.replace(" ", "-")
    if path.is_file():
        return path
    content = _cut(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    try:
        write_aside(path, content)
    except OSError:
        folder = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder) / path.name
        path.write_bytes(content)
    return path


def _cut(font: Path) -> bytes:
    """A font with some of its letters, which lie and join as before, under another name."""
    options = subset.Options(layout_features=["*"], glyph_names=True, notdef_outline=True)
    options.drop_tables += ["FFTM"]
    opened = subset.load_font(str(font), options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=[code for letters in _LETTERS for code in letters])
    cutter.subset(opened)
    for record in opened["name"].names:
        if record.nameID in _FAMILY_RECORDS:
            record.string = CUT
    content = io.BytesIO()
    opened.save(content)
    return content.getvalue()
