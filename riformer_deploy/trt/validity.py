"""What a flavor of TensorRT says of a plan before it is loaded."""

from __future__ import annotations

from riformer_deploy.trt.bindings import Log, TensorRT, started


def validity(trt: TensorRT, plan: bytes) -> tuple[str, tuple[str, ...]] | None:
    """What the runtime of this flavor thinks of a plan without loading it; a driver must be there.

    Args:
        trt: The bindings.
        plan: The plan.

    Returns:
        ``VALID``, ``SUBOPTIMAL`` or ``INVALID`` with the names of the diagnostics; None where the
        flavor cannot tell.
    """
    if not trt.has_validity_check:
        return None
    runtime = started(trt.module.Runtime, Log(trt))
    if runtime is None:
        return None
    verdict, bits = runtime.get_engine_validity(plan)
    known = trt.module.EngineInvalidityDiagnostics.__members__.items()
    return verdict.name, tuple(name for name, value in known if int(bits) & int(value))
