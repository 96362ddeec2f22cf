"""What results say of the machine and its GPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine, without anything that identifies it.

    Attributes:
        cpu: Model name.
        cores: Logical cores that this process may use.
        memory_bytes: Installed memory, or None where the system does not say.
        system: Operating system and machine type.
        python: Version.
        libraries: Versions of the libraries that are installed.
        gpus: Name, compute capability and the driver's CUDA of each NVIDIA GPU.
        instruction_sets: Those of the CPU that int8 and half precision run in, as Linux names them, such as
            ``avx512_vnni``; none where the system does not say.
    """

    cpu: str
    cores: int
    memory_bytes: int | None
    system: str
    python: str
    libraries: dict[str, str]
    gpus: tuple[str, ...] = ()
    instruction_sets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """CUDA's first GPU at a moment; None is what NVML does not say of it.

    Attributes:
        name: As the driver gives it.
        driver: Version of the driver.
        sm_clock_mhz: Clock of the multiprocessors.
        sm_clock_max_mhz: The highest it can be.
        memory_clock_mhz: Clock of the memory.
        temperature_c: Of the chip.
        power_w: Drawn now.
        memory_used_bytes: By everybody.
        throttling: Why clocks are below what they could be, by NVML's names; idling is no reason.
        mig: The instance of the GPU (MIG) that CUDA runs on, by name, where it is divided into such; the
            other figures are of the whole GPU.
    """

    name: str | None
    driver: str | None
    sm_clock_mhz: int | None
    sm_clock_max_mhz: int | None
    memory_clock_mhz: int | None
    temperature_c: int | None
    power_w: float | None
    memory_used_bytes: int | None
    throttling: tuple[str, ...] | None
    mig: str | None = None


@dataclass(frozen=True, kw_only=True)
class GpuWatch:
    """CUDA's first GPU around a measurement.

    Attributes:
        before: The GPU before it, or None where it could not be asked.
        after: The GPU after it, or None where it could not be asked.
        under_load: The GPU right after each series of timed calls.
        problem: Why it could not be asked, or None.
    """

    before: GpuState | None
    after: GpuState | None
    problem: str | None
    under_load: tuple[GpuState, ...] = ()

    @property
    def warning(self) -> str | None:
        """What to warn of: reasons that held the clocks down, or that nobody could look."""
        if self.problem is not None:
            return f"the GPU's clocks are not known: {self.problem}"
        states = [state for state in (self.before, *self.under_load, self.after) if state is not None]
        reasons = sorted({reason for state in states for reason in state.throttling or ()})
        if not reasons and any(state.throttling is None for state in states):
            return "the GPU does not say whether its clocks were held down"
        return f"the GPU's clocks were held down: {', '.join(reasons)}" if reasons else None
