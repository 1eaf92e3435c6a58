"""Fetch openly licensed photographs once, from pinned Debian packages; prints each with its license.

    python scripts/fetch_pictures.py                  # all
    python scripts/fetch_pictures.py mate-backgrounds # one package

They are fetched for measurements, never committed. Packages are taken, checked and read as scripts/fetch_corpora.py
does. The photographs lie in ${ZHIYI_CACHE:-~/.cache/zhiyi}/pictures/PACKAGE beside licenses.json, which names for
each the license and the holders that the package itself gives.

squares() cuts them into pictures of 512 x 512 px: a photograph is scaled down so that its long side is 512, 1024 or
1536 px and cut there into one, two or three squares that do not overlap. They count as pictures of their own.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from fetch_corpora import Corpus, Files, ensure_corpus
from fetch_model import FetchError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LICENSES: Final = "licenses.json"
SIDE: Final = 512  # px of a square
MOST_SQUARES: Final = 3  # of one photograph


class Photograph(NamedTuple):
    """A fetched photograph."""

    path: Path
    license: str  # as the package names it
    holders: str
    package: str

    @property
    def name(self) -> str:
        """File name without its ending."""
        return self.path.stem


# DSS was designed on these; figures are told of the others.
SEEN: Final = frozenset(
    (
        "Aqua", "Bridge_by_Sander_Klootwijk", "Dragonfly_by_Bolly", "Dune", "FallenLeaf", "Garden", "Grey",
        "Picture_0B_by_freespace", "Storm", "Wine_by_Jakkub_Mede", "Wood", "aitzgorri_by_Aitzol_Berasategi",
        "life_by_Aitzol_Berasategi", "seeding_by_Clements_Engelhardt",
    )
)  # fmt: skip


def _terms(copyright_file: str, name: str) -> tuple[str, str]:
    """License and holders of a file by the last paragraph of a DEP-5 copyright file that covers it.

    Paths there are those of the source package: a file is known by its name. Raises FetchError without one.
    """
    found: tuple[str, str] | None = None
    for paragraph in re.split(r"\n\s*\n", copyright_file):
        fields: dict[str, str] = {}
        last = ""
        for line in paragraph.splitlines():
            if line[:1] in (" ", "\t"):
                fields[last] = f"{fields.get(last, '')}\n{line.strip()}"
            elif ":" in line:
                last, _, rest = line.partition(":")
                fields[last] = rest.strip()
        patterns = [p for p in fields.get("Files", "").split() if p == "*" or not p.endswith("/*")]
        if "License" in fields and any(fnmatch(name, p.rpartition("/")[2]) for p in patterns):
            holders = " ".join(fields.get("Copyright", "").split())
            found = fields["License"].splitlines()[0], holders
    if found is None:
        raise FetchError(f"the package's copyright file says nothing of {name}")
    return found


def _chosen(names: tuple[str, ...], folder: str, files: Files) -> dict[str, bytes]:
    """The named photographs of one folder, and their licenses by the package's copyright file."""
    text = next(b for n, b in files.items() if n.endswith("/copyright")).decode()
    out = {name: files[f"{folder}/{name}"] for name in names}
    return {**out, LICENSES: _listed({name: _terms(text, name) for name in names})}


def _plasma(names: tuple[str, ...], files: Files) -> dict[str, bytes]:
    """The named wallpapers at 2560 x 1600, and their licenses by their own metadata."""
    out, terms = {}, {}
    for name in names:
        folder = f"/usr/share/wallpapers/{name}"
        out[f"{name}.jpg"] = files[f"{folder}/contents/images/2560x1600.jpg"]
        plugin = json.loads(files[f"{folder}/metadata.json"])["KPlugin"]
        holders = ", ".join(author["Name"] for author in plugin["Authors"])
        terms[f"{name}.jpg"] = (plugin["License"], holders)
    return {**out, LICENSES: _listed(terms)}


def _listed(terms: dict[str, tuple[str, str]]) -> bytes:
    rows = {name: {"license": a, "holders": b} for name, (a, b) in sorted(terms.items())}
    return (json.dumps(rows, indent=1, ensure_ascii=False) + "\n").encode()


def _package(
    name: str,
    version: str,
    pool: str,
    sha256: str,
    license: str,
    extract: Callable[[Files], dict[str, bytes]],
) -> Corpus:
    return Corpus(name, name, version, f"pool/main/{pool}", sha256, license, "/usr/share/", extract)


PACKAGES: Final = {
    c.name: c
    for c in (
        _package(
            "lomiri-wallpapers-16.04",
            "20.04.0-2",
            "l/lomiri-wallpapers/lomiri-wallpapers-16.04_20.04.0-2_all.deb",
            "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
            "CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0: each its own",
            partial(
                _chosen,
                (
                    "Bridge_by_Sander_Klootwijk.jpg", "Dragonfly_by_Bolly.jpg", "Picture_0B_by_freespace.jpg",
                    "Picture_1A_by_freespace.jpg", "Wine_by_Jakkub_Mede.jpg", "aitzgorri_by_Aitzol_Berasategi.jpg",
                    "free_by_Peter_Nerlich.jpg", "friends_by_Aitzol_Berasategi.jpg", "greentock_by_Peter_Nerlich.jpg",
                    "life_by_Aitzol_Berasategi.jpg", "picosdeeuropa_by_Aitzol_Berasategi.jpg",
                    "seeding_by_Clements_Engelhardt.jpg", "sunset_by_Aitzol_Berasategi.jpg",
                ),
                "/usr/share/backgrounds",
            ),
        ),
        _package(
            "lomiri-wallpapers-20.04",
            "20.04.0-2",
            "l/lomiri-wallpapers/lomiri-wallpapers-20.04_20.04.0-2_all.deb",
            "d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709",
            "CC-BY-SA-3.0",
            partial(_chosen, ("Kleiber_by_Lukas_Baubkus.jpg",), "/usr/share/backgrounds"),
        ),
        _package(
            "mate-backgrounds",
            "1.26.0-1",
            "m/mate-backgrounds/mate-backgrounds_1.26.0-1_all.deb",
            "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
            "GPL-2.0-or-later",
            partial(
                _chosen,
                (
                    "Aqua.jpg", "Blinds.jpg", "Dune.jpg", "FreshFlower.jpg", "Garden.jpg", "GreenMeadow.jpg",
                    "LadyBird.jpg", "RainDrops.jpg", "Storm.jpg", "TwoWings.jpg", "Wood.jpg", "YellowFlower.jpg",
                ),
                "/usr/share/backgrounds/mate/nature",
            ),
        ),
        _package(
            "plasma-workspace-wallpapers",
            "4:5.27.5-2",
            "p/plasma-workspace-wallpapers/plasma-workspace-wallpapers_5.27.5-2_all.deb",
            "32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b",
            "GPL-2.0-or-later, each picture by its own metadata",
            partial(
                _plasma,
                (
                    "BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey",
                    "Kite", "OneStandsOut", "Path", "summer_1am",
                ),
            ),
        ),
    )
}  # fmt: skip


def photographs() -> list[Photograph]:
    """All photographs, by package and name. Raises FetchError as ensure_corpus."""
    out = []
    for package in PACKAGES.values():
        folder = ensure_corpus(package, shelf="pictures")
        listed = json.loads((folder / LICENSES).read_text(encoding="utf-8"))
        out += [Photograph(folder / n, t["license"], t["holders"], package.name) for n, t in listed.items()]
    return out


def squares(*, seen: bool) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Pictures of 512 x 512 px, RGB, with their names; seen: those that DSS was designed on, else the others.

    # (512, 512, 3)
    """
    import numpy as np
    from PIL import Image

    for photograph in photographs():
        if (photograph.name in SEEN) is not seen:
            continue
        with Image.open(photograph.path) as file:
            image = file.convert("RGB")
        width, height = image.size
        count = min(MOST_SQUARES, max(width, height) // SIDE)
        while count > 1 and min(width, height) * count * SIDE < SIDE * max(width, height):
            count -= 1  # so long that the short side would be under 512
        part = count * SIDE / max(width, height)
        if min(width, height) * part < SIDE:
            part, count = SIDE / min(width, height), 1
        image = image.resize((round(width * part), round(height * part)), Image.Resampling.LANCZOS)
        width, height = image.size
        for i in range(count):
            left = i * SIDE if width >= height else (width - SIDE) // 2
            top = (height - SIDE) // 2 if width >= height else i * SIDE
            cut = image.crop((left, top, left + SIDE, top + SIDE))
            yield f"{photograph.name}-{i}", np.array(cut, dtype=np.uint8)


if __name__ == "__main__":
    wanted = sys.argv[1:] or list(PACKAGES)
    if unknown := sorted(set(wanted) - set(PACKAGES)):
        sys.exit(f"error: no package {', '.join(unknown)}; there are {', '.join(PACKAGES)}")
    try:
        for each in wanted:
            ensure_corpus(PACKAGES[each], shelf="pictures")
        for photo in photographs() if wanted == list(PACKAGES) else ():
            print(f"{photo.path}: {photo.license}, {photo.holders}")
    except FetchError as error:
        sys.exit(f"error: {error}")
