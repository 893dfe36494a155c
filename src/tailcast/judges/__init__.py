"""Judges: is this completion a hit?"""

from tailcast.judges.build import asks_a_model, build_judge
from tailcast.judges.refusal import REFUSAL_PHRASES, is_refusal
from tailcast.judges.screen import screened
from tailcast.judges.verdicts import judge_texts

__all__ = [
    "REFUSAL_PHRASES",
    "asks_a_model",
    "build_judge",
    "is_refusal",
    "judge_texts",
    "screened",
]
