"""What a search answers with: decided by its final run alone."""

from __future__ import annotations

from collections.abc import Sequence

from riformer_deploy.quantization.search_ledger import SearchLedger
from riformer_deploy.quantization.search_records import Race

FINAL_RUN = "the final run"
"""Purpose of the last race of a search."""


def fastest_of(race: Race, numbers: Sequence[int], base: int) -> int:
    """The trial with the least times in a race.

    Args:
        race: In which they ran.
        numbers: At least one.
        base: A trial that ran in it.
    """
    return max(numbers, key=lambda number: race.speed_up(base, number) or 0.0)


def proven_fastest(race: Race, numbers: Sequence[int]) -> int:
    """The first trial, or one that is proven to be faster, which none of the others is proven to beat.

    Args:
        race: In which they ran.
        numbers: At least one; the first is the one to stay with.
    """
    best = numbers[0]
    for _ in numbers:
        faster = [number for number in numbers if race.faster(best, number)]
        if not faster:
            break
        best = fastest_of(race, faster, best)
    return best


def confirmed_in(
    final: Race, ledger: SearchLedger, rivals: Sequence[int], contenders: Sequence[int], best: int | None
) -> int | None:
    """The trial that is faster than every rival, each with the whole interval; None where there is none.

    Args:
        final: The final run.
        ledger: Knows how accurate trials are.
        rivals: Plain forms; those that failed in the final run cannot be shipped and need not be beaten.
        contenders: Who may be the answer; those beside ``best`` are forms without any tuning.
        best: What the search found; it is taken before the others where it is faster than they are, or as
            fast and as accurate.
    """
    beaten = [number for number in rivals if final.times_of(number)]
    proven = [
        number
        for number in contenders
        if beaten and final.times_of(number) and all(final.faster(rival, number) for rival in beaten)
    ]
    others = [number for number in contenders if number != best and final.times_of(number)]
    if best in proven and all(_preferred(final, ledger, best, other) for other in others):
        return best
    rest = [number for number in proven if number != best]
    return fastest_of(final, rest, beaten[0]) if rest else best if best in proven else None


def _preferred(final: Race, ledger: SearchLedger, number: int, other: int) -> bool:
    if final.faster(other, number):
        return True
    as_accurate = ledger.sqnr_of(number) >= ledger.sqnr_of(other)
    return as_accurate and not final.faster(number, other)


def held_or(plain: int, held: Sequence[int], final: Race | None, ledger: SearchLedger) -> int:
    """A plain form, unless the bundle holds its precision in another form that is not proven to be slower.

    Args:
        plain: The plain form that stays.
        held: What the bundle holds.
        final: The final run; None where there was none.
        ledger: Knows the configs.
    """
    precision = ledger.trials[plain].config.precision
    for number in held:
        same = ledger.trials[number].config.precision is precision and ledger.holds(number)
        if same and (final is None or not final.faster(number, plain)):
            return number
    return plain
