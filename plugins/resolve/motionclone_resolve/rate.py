"""Frame rates as exact fractions."""

from fractions import Fraction

from .problem import Problem


def frame_rate(text):
    """The exact rate for what Resolve shows: `25`, `23.976`, `29.97 DF`; 23.976 stands for 24000/1001 and so on."""
    try:
        shown = Fraction(str(text).split()[0])
    except (IndexError, ValueError, ZeroDivisionError):
        raise Problem(f"Resolve gives a frame rate that is no number: {text!r}.") from None
    if not 0 < shown <= 1000:
        raise Problem(f"Resolve gives a frame rate of {text}; it must be above 0 and at most 1000.")
    whole = round(shown + Fraction(1, 20))
    broadcast = Fraction(whole * 1000, 1001)
    return broadcast if shown.denominator != 1 and abs(shown - broadcast) < Fraction(1, 100) else shown
