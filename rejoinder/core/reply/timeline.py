"""Timeline of a reply: its written words, and where in the audio each of them ends.

A host stores it outside the process. After the host's death, another one finds the words that were heard from the
milliseconds of audio that the client has played.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rejoinder.core.reply.spoken.units import SpokenUnit, join_written, spoken_characters


@dataclass(slots=True)
class Timeline:
    """Words of a reply in order. Words of a segment share its audio in proportion to their spoken characters.

    Attributes:
        text: The written words.
        marks: A pair for each spoken word: the number of characters of `text` up to its end, and the milliseconds of
            audio at which it ends. Words that are not spoken, such as an emoji, count with the spoken word after them,
            or before them at the end of a segment.
        end_s: Seconds of audio at which the last segment ends.
    """

    text: str = ""
    marks: list[tuple[int, int]] = field(default_factory=list)
    end_s: float = 0.0

    def add(self, units: tuple[SpokenUnit, ...], start_s: float, length_s: float) -> None:
        """Add a segment. One without audio is left out, because its synthesis has failed.

        Args:
            units: The words of the segment.
            start_s: Seconds of audio at which it begins.
            length_s: Its length in seconds.
        """
        whole = sum(map(spoken_characters, units))
        if not length_s:
            return
        self.end_s = start_s + length_s
        spoken = 0
        for unit in units:
            self.text = join_written((SpokenUnit(self.text, ""), unit))
            if characters := spoken_characters(unit):
                spoken += characters
                self.marks.append((len(self.text), round((start_s + length_s * spoken / whole) * 1000)))
        if whole:
            self.marks[-1] = (len(self.text), self.marks[-1][1])
