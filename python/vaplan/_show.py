"""The timeline of one video, as text and as a picture for notebooks."""

from __future__ import annotations

import html
from typing import Any, Optional

#: Colours of a segment by (label, truth); truth is None if the video has no dense truth.
_COLOURS = {
    (True, True): "#2a9d5c",
    (True, False): "#e9b44c",
    (True, None): "#3a86c8",
    (False, True): "#d1495b",
    (False, False): "#eeeeee",
    (False, None): "#eeeeee",
}
_MEANINGS = {
    (True, True): "label, true",
    (True, False): "label, not true",
    (True, None): "label",
    (False, True): "true, no label",
    (False, False): "no label",
    (False, None): "no label",
}


class Timeline:
    """The labels, truth and scores of one video."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.video: str = given["video"]
        self.split: str = given["split"]
        self.segments: int = given["segments"]
        self.segment_seconds: float = given["segment_seconds"]
        self.weak_labels: list[str] = given["weak_labels"]
        self.guessed: bool = given["guessed"]
        """Whether the video has no weak label, and ``weak_labels`` are candidates that were guessed from its scores."""
        self.imported: bool = given["imported"]
        """Whether labels of the video are those of another program."""
        self.tracks: list[dict[str, Any]] = given["tracks"]
        """One dict per modality and class: ``modality`` (``audio``, ``visual`` or ``audio_visual``), ``class``, ``labels``,
        ``truth``, ``scores``, ``threshold`` and ``flips`` (segments that PLD flipped)."""
        self._text: str = given["text"]

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"<vaplan.Timeline of {self.video!r}, {self.segments} segments>"

    def _repr_html_(self) -> str:
        what = "candidate classes guessed from the scores" if self.guessed else "weak label"
        if self.imported:
            what = f"labels of another program, {what}"
        heading = f"{html.escape(self.video)} · {html.escape(self.split)} · {what}: " + html.escape(
            ", ".join(self.weak_labels) or "none"
        )
        rows = "".join(self._row(track) for track in self.tracks)
        return (
            f'<div style="font-family:sans-serif;font-size:12px"><div style="margin-bottom:4px">{heading}</div>'
            f'<table style="border-spacing:1px;border-collapse:separate">{rows}</table></div>'
        )

    def _row(self, track: dict[str, Any]) -> str:
        cells = "".join(self._cell(track, segment) for segment in range(self.segments))
        name = f"{html.escape(track['modality'])} · {html.escape(track['class'])}"
        return f'<tr><th style="text-align:left;font-weight:normal;padding-right:8px">{name}</th>{cells}</tr>'

    def _cell(self, track: dict[str, Any], segment: int) -> str:
        truth: Optional[bool] = None if track["truth"] is None else track["truth"][segment]
        state = (track["labels"][segment], truth)
        begin = segment * self.segment_seconds
        words = [f"{begin:g} to {begin + self.segment_seconds:g} s", _MEANINGS[state]]
        if track["scores"] is not None:
            words.append(f"score {track['scores'][segment]:.4g}")
            if track["threshold"] is not None:
                words.append(f"threshold {track['threshold']:.4g}")
        flipped = segment in track["flips"]
        if flipped:
            words.append("flipped by PLD")
        border = "2px solid #444" if flipped else "2px solid transparent"
        title = html.escape(", ".join(words), quote=True)
        return (
            f'<td title="{title}" style="width:18px;height:14px;padding:0;background:{_COLOURS[state]};border:{border}"></td>'
        )
