"""Human speech with known texts, from packages that a machine can install. None of it is in this repository.

| source | content | speakers | how to get it |
|---|---|---|---|
| pocketsphinx | commands, cards, digits, LibriVox sentences, 16 kHz | 4 | Debian `pocketsphinx-testdata` |
| alsa | eight channel names, 48 kHz | 1 | Debian `alsa-utils` |
| asterisk | telephone prompts, 8 kHz | 1 | Debian `asterisk-core-sounds-en`, `-en-wav` |
| moonshine | Dickens and Beckett read aloud | 2 | model store, `human-clips` |

Texts come from the packages' own transcripts, where they have one. Prompts whose text contains a sign for a tone or a
key are left out. So are clips over 20 s, which are longer than a caller's turn.
"""

from __future__ import annotations

import gzip
import re
import wave
from collections.abc import Iterator
from pathlib import Path

from rejoinder.store.human_clips import HumanClip, moonshine_clips

LONGEST_S = 20.0
_POCKETSPHINX = Path("/usr/share/pocketsphinx/test/data")
_ALSA = Path("/usr/share/sounds/alsa")
_ASTERISK = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
_ASTERISK_TEXTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")

# Debian packages, and one file of each. The package counts as installed if the file exists. A container image without
# /usr/share/doc lacks the texts of the telephone prompts, even if their package is installed.
_PACKAGES = {
    "pocketsphinx-testdata": _POCKETSPHINX / "goforward.raw",
    "alsa-utils": _ALSA / "Front_Center.wav",
    "asterisk-core-sounds-en": _ASTERISK_TEXTS,
    "asterisk-core-sounds-en-wav": _ASTERISK / "hello.wav",
}

# Text of each audio file. The first is from pocketsphinx's goforward.gram, the second is the digits in the file's name,
# and the others are from the package's transcription files. The text of the file that ends in 0920 lacks one word of
# the transcription, which is not spoken.
_POCKETSPHINX_TEXTS = {
    "goforward.raw": "go forward ten meters",
    "tidigits/dhd.2934z.raw": "two nine three four zero",
    "cards/001.wav": "ten of clubs",
    "cards/002.wav": "four queen of clubs",
    "cards/003.wav": "seven of clubs",
    "cards/004.wav": "five five",
    "cards/005.wav": "eight of spades four of clubs seven of hearts",
    "librivox/sense_and_sensibility_01_austen_64kb-0870.wav": "and mister john dashwood had then leisure to consider"
    " how much there might be prudently in his power to do for them",
    "librivox/sense_and_sensibility_01_austen_64kb-0880.wav": "he was not an ill disposed young man",
    "librivox/sense_and_sensibility_01_austen_64kb-0890.wav": "unless to be rather cold hearted and rather selfish is"
    " to be ill disposed",
    "librivox/sense_and_sensibility_01_austen_64kb-0920.wav": "had he married a more amiable woman he might have been"
    " made still more respectable than he was",
    "librivox/sense_and_sensibility_01_austen_64kb-0930.wav": "he might even have been made amiable himself",
}
_ALSA_NAMES = [f"{row}_{side}" for row in ("Front", "Rear") for side in ("Center", "Left", "Right")]
_ALSA_NAMES += ["Side_Left", "Side_Right"]
_NOT_SPOKEN = re.compile(r"[\[\]<>*#@/]")


def human_clips(moonshine: Path, every_prompt: int = 1) -> list[HumanClip]:
    """Return the clips of the store and of all installed packages.

    Args:
        moonshine: Folder of the model `human-clips`.
        every_prompt: n, to use every n-th telephone prompt only.
    """
    return [*moonshine_clips(moonshine), *debian_clips(every_prompt)]


def debian_clips(every_prompt: int = 1) -> list[HumanClip]:
    """Return the clips of the installed Debian packages. Empty if none is installed (see `missing_packages`).

    Args:
        every_prompt: n, to use every n-th telephone prompt only.
    """
    return [*_pocketsphinx(), *_alsa(), *list(_asterisk())[::every_prompt]]


def missing_packages() -> list[str]:
    """Return the Debian packages that `debian_clips` reads and that are not installed."""
    return [name for name, file in _PACKAGES.items() if not file.exists()]


def _pocketsphinx() -> Iterator[HumanClip]:
    for file, text in _POCKETSPHINX_TEXTS.items():
        if (path := _POCKETSPHINX / file).exists():
            yield HumanClip("pocketsphinx", path.stem, path, text)


def _alsa() -> Iterator[HumanClip]:
    for name in _ALSA_NAMES:
        if (path := _ALSA / f"{name}.wav").exists():
            yield HumanClip("alsa", name, path, name.replace("_", " "))


def _asterisk() -> Iterator[HumanClip]:
    if not _ASTERISK_TEXTS.exists():
        return
    for line in gzip.decompress(_ASTERISK_TEXTS.read_bytes()).decode("utf-8", "replace").splitlines():
        name, colon, text = line.partition(":")
        path = _ASTERISK / f"{name}.wav"
        if not colon or "/" in name or _NOT_SPOKEN.search(text) or not path.exists():
            continue
        if _duration_s(path) <= LONGEST_S:
            yield HumanClip("asterisk", name, path, text.strip())


def _duration_s(path: Path) -> float:
    with wave.open(str(path)) as file:
        return int(file.getnframes()) / int(file.getframerate())
