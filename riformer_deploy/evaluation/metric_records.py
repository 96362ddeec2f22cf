"""How far one set of outputs is from another, as records; ``metrics`` computes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """The distance of ``got`` from ``reference``, computed in float64.

    Attributes:
        finite: Whether every value of ``got`` is a finite number; if not, there are no figures.
        max_abs: Largest absolute difference.
        max_relative: Largest absolute difference divided by the largest absolute reference value.
        relative_l2: ``||got - reference|| / ||reference||``.
        sqnr_db: Signal to quantisation noise, ``-20 log10(relative_l2)``; None where nothing differs.
        cosine: Cosine of the angle between the two as vectors.
        elementwise_used: Largest ``|difference| / (atol + rtol |reference|)``; above 1 is out
            (the criterion of ``numpy.testing.assert_allclose``).
    """

    finite: bool
    max_abs: float | None
    max_relative: float | None
    relative_l2: float | None
    sqnr_db: float | None
    cosine: float | None
    elementwise_used: float | None


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Whether two sets of class scores name the same classes.

    Attributes:
        images: Number of images compared.
        top1_agreement: Fraction of images with the same first class.
        flips: Images whose first class differs.
        decided_flips: Those among them whose reference margin (first minus second score) is larger
            than twice the tolerance, so that no permitted error explains the flip.
    """

    images: int
    top1_agreement: float
    flips: int
    decided_flips: int
