"""The machine as a value: what code is generated for, how large the caches are, how many cores may be used.

Selection and cost models are functions of this value, so another machine's decisions can be tested on this one.
Every reader takes the root of the file tree for the same reason, and a missing file is an answer, not an error.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from numbaconv.errors import ConvError
from numbaconv.options import options
from numbaconv.values import HashedOnce

ROOT = Path("/")
VECTOR_BYTES: dict[str, int] = {"avx512": 64, "avx2": 32, "neon": 16, "generic": 16}

#: What LLVM calls the instructions on matrix registers.
MATRIX_FEATURES = frozenset({"amx-tile", "amx-bf16", "amx-fp16", "amx-int8"})
# x86-64 Linux: the number of the system call, the request that lets a process use part of the registers' state, that part.
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18

# Sizes that nearly every CPU of the last ten years reaches, for systems that tell nothing.
DEFAULT_CACHES: dict[int, int] = {1: 32 << 10, 2: 256 << 10, 3: 4 << 20}
# glibc's _SC_LEVEL1_DCACHE_SIZE and its likes, which Python has no names for.
_GLIBC_CACHES = {1: 188, 2: 191, 3: 194}


@dataclass(frozen=True)
class Rates:
    """How fast a machine does what convolutions are made of; the defaults are assumed, `dispatch.calibration` measures them.

    Parameters
    ----------
    clock : float
        Cycles a second, where two vectors of a full register tile with its operands in the L1 take a cycle.
    row, tap : float
        Cycles to store one row of a register tile, and to address one row for one tap; starting a tile counts as one row.
    far_bytes : float
        Bytes a cycle from beyond the L2.
    copy_bytes : float
        Bytes a cycle that are copied inside the L2.
    transpose_bytes, transpose_far_bytes : float
        Bytes a cycle that a transposition reads and writes together: inside the L2, and beyond.
    matrix : float
        Cycles of a product of two matrix registers, where the machine has such.
    fourier, fourier_far : float
        How many times the cycles that are reckoned for a Fourier transform it takes, and what a working set of twice, four
        times... the L2 adds to that, a doubling: libraries' transforms have little to do with the speed of tiles.
    """

    clock: float = 3e9
    row: float = 7.0
    tap: float = 1.0
    far_bytes: float = 10.0
    copy_bytes: float = 15.0
    transpose_bytes: float = 13.0
    transpose_far_bytes: float = 7.0
    matrix: float = 24.0
    fourier: float = 1.0
    fourier_far: float = 0.35


@dataclass(frozen=True)
class Machine(HashedOnce):
    """What the choice of an algorithm may depend on.

    Parameters
    ----------
    isa : {"avx512", "avx2", "neon", "generic"}
        Vector instructions of the code that Numba generates, which need not be all that the CPU has.
    vector_bytes : int
        Width of a vector register in bytes.
    cpu : str
        LLVM's name of the target.
    features : str
        The target's features, sorted and joined by commas; see `has`.
    l1, l2, l3 : int
        Bytes of the L1 data cache of a core, of a core's share of the L2, and of the whole L3 (the L2's figure
        where there is none).
    cores : int
        Physical cores on which this process may run.
    logical : int
        Logical CPUs of the machine.
    affinity : int
        Logical CPUs on which this process may run.
    quota : float, optional
        CPU time an interval that the control group grants, in CPUs; None if unlimited.
    rates : Rates
        What cost models reckon with.
    weights_kept : bool
        Whether weights may stay in the caches from call to call; not those of a network whose layers together do not fit.
    """

    isa: str
    vector_bytes: int
    cpu: str
    features: str
    l1: int
    l2: int
    l3: int
    cores: int
    logical: int
    affinity: int
    quota: float | None = None
    rates: Rates = field(default_factory=Rates)
    weights_kept: bool = True

    __hash__ = HashedOnce.__hash__

    @classmethod
    def detect(cls, root: Path = ROOT) -> Machine:
        """Describe this machine, as far as the file tree under `root` tells.

        Raises
        ------
        ConvError
            If ``NUMBACONV_ISA`` asks for wider vectors than the target has.
        """
        triple, cpu, features = numba_target()
        if not permitted(features):
            features -= MATRIX_FEATURES
        isa = choose_isa(target_isa(triple, features), options().isa)
        allowed = allowed_cpus()
        caches = cache_sizes(root)
        return cls(
            isa=isa,
            vector_bytes=VECTOR_BYTES[isa],
            cpu=cpu,
            features=",".join(sorted(features)),
            l1=caches[1],
            l2=caches[2],
            l3=caches[3],
            cores=physical_cores(root, allowed) or len(allowed),
            logical=max(os.cpu_count() or 1, len(allowed)),
            affinity=len(allowed),
            quota=cgroup_quota(root),
        )

    @property
    def usable_cores(self) -> int:
        """How many threads are worth starting, at least 1.

        A quota is rounded down: a thread for the fraction of a CPU would make all others wait for it.
        """
        counts = [self.cores, self.logical, self.affinity]
        if self.quota is not None:
            counts.append(int(self.quota))
        return max(min(counts), 1)

    def has(self, feature: str) -> bool:
        """Whether generated code may use `feature`, by LLVM's name, such as "avx512vnni"."""
        return feature in _named(self.features)


@lru_cache(maxsize=16)
def _named(features: str) -> frozenset[str]:
    return frozenset(features.split(","))


@lru_cache(maxsize=1)
def machine() -> Machine:
    """This machine, looked at once."""
    return Machine.detect()


def numba_target() -> tuple[str, str, frozenset[str]]:
    """Triple, CPU name and enabled features that Numba generates code for.

    They come from Numba's code generator, which has applied ``NUMBA_CPU_NAME``, ``NUMBA_CPU_FEATURES`` and
    ``NUMBA_ENABLE_AVX`` already.
    """
    from numba.core.registry import cpu_target

    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    return triple, cpu, enabled_features(features)


def enabled_features(text: str) -> frozenset[str]:
    """The features that LLVM's "+avx2,-avx512f" form leaves enabled; a later sign wins."""
    signs = {}
    for entry in text.split(","):
        entry = entry.strip()
        if entry[:1] in ("+", "-"):
            signs[entry[1:]] = entry[0] == "+"
    return frozenset(name for name, enabled in signs.items() if enabled)


@lru_cache(maxsize=1)
def permitted(features: frozenset[str]) -> bool:
    """Whether this process may use the matrix registers that a target has: Linux wants to be asked, since they are large.

    All threads and children may, once it has said yes.
    """
    if not features & MATRIX_FEATURES or not sys.platform.startswith("linux"):
        return False
    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0


def target_isa(triple: str, features: frozenset[str]) -> str:
    """The widest of our ISAs that a target has."""
    architecture = triple.partition("-")[0]
    if architecture in ("aarch64", "arm64"):
        return "neon"
    if architecture in ("x86_64", "i686", "i386"):
        if "avx512f" in features:
            return "avx512"
        if {"avx2", "fma"} <= features:
            return "avx2"
    return "generic"


def choose_isa(target: str, wanted: str | None) -> str:
    """`wanted` if the target can hold its vectors, `target` if nothing is wanted.

    Raises
    ------
    ConvError
        If `wanted` has wider vectors than `target`.
    """
    if wanted is None:
        return target
    if VECTOR_BYTES[wanted] > VECTOR_BYTES[target]:
        raise ConvError(
            f"NUMBACONV_ISA={wanted!r} has vectors of {VECTOR_BYTES[wanted]} bytes, but Numba generates code for "
            f"{target!r} with {VECTOR_BYTES[target]}; vectors can be narrowed, not widened"
        )
    return wanted


def allowed_cpus() -> frozenset[int]:
    """Numbers of the logical CPUs on which this process may run; all where the system does not tell."""
    try:
        return frozenset(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return frozenset(range(os.cpu_count() or 1))


def physical_cores(root: Path, allowed: frozenset[int]) -> int | None:
    """Distinct cores among the `allowed` CPUs; None where the system does not tell."""
    siblings = {_siblings(root, cpu) for cpu in allowed}
    return None if not siblings or frozenset() in siblings else len(siblings)


def cache_sizes(root: Path) -> dict[int, int]:
    """Bytes of the data caches, by level 1 to 3: the kernel's figures, else the C library's, else assumed ones."""
    sizes = _kernel_caches(root) or _glibc_caches()
    if not sizes:
        return dict(DEFAULT_CACHES)
    # An ARM core may lack an L3; its L2 is then the last that keeps anything.
    l1 = sizes.get(1, DEFAULT_CACHES[1])
    l2 = sizes.get(2, max(DEFAULT_CACHES[2], l1))
    return {1: l1, 2: l2, 3: sizes.get(3, l2)}


def _kernel_caches(root: Path) -> dict[int, int]:
    sizes = {}
    threads = max(len(_siblings(root, 0)), 1)
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, size = parse_count(_read(folder / "level")), parse_count(_read(folder / "size"))
        if not level or not size or _read(folder / "type") == "Instruction":
            continue
        if level == 2:
            sharing = len(parse_cpu_list(_read(folder / "shared_cpu_list")))
            size //= max(sharing // threads, 1)
        sizes[level] = size
    return sizes


def _glibc_caches() -> dict[int, int]:
    try:
        if not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return {}
        sizes = {level: os.sysconf(name) for level, name in _GLIBC_CACHES.items()}
    except (AttributeError, OSError, ValueError):
        return {}
    return {level: size for level, size in sizes.items() if size > 0}


def cgroup_quota(root: Path) -> float | None:
    """CPUs' worth of time that control groups grant this process; None if unlimited.

    A group is bound by its ancestors too, so the least of all from the process's own group up to the root counts.
    Both versions are read, as systems mount them side by side.
    """
    found = []
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        # A path can lead out of the mount (".."), where the group is mounted as the root.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        if controllers == "":
            mounts, read = ("sys/fs/cgroup", "sys/fs/cgroup/unified"), _quota_v2
        elif "cpu" in controllers.split(","):
            mounts, read = (f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"), _quota_v1
        else:
            continue
        for mount in mounts:
            found += [read(root.joinpath(mount, *parts[:depth])) for depth in range(len(parts) + 1)]
    return min((quota for quota in found if quota is not None), default=None)


def _quota_v2(folder: Path) -> float | None:
    """From ``cpu.max``: "max 100000" or microseconds and period."""
    quota, _, period = (_read(folder / "cpu.max") or "").partition(" ")
    return _ratio(quota, period or "100000")


def _quota_v1(folder: Path) -> float | None:
    """From ``cpu.cfs_quota_us``, which is -1 where there is no limit, and the period."""
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _ratio(quota: str | None, period: str | None) -> float | None:
    quota, period = parse_count(quota), parse_count(period)
    return quota / period if quota and period else None


def _siblings(root: Path, cpu: int) -> frozenset[int]:
    """The logical CPUs of the core that `cpu` belongs to; empty where the system does not tell."""
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    return parse_cpu_list(_read(folder / "core_cpus_list") or _read(folder / "thread_siblings_list"))


def parse_count(text: str | None) -> int | None:
    """ "48K", "2M" or "3" as a number; None for anything else."""
    digits, unit = (text[:-1], text[-1]) if text and text[-1] in "KMG" else (text or "", "")
    if not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits) << {"": 0, "K": 10, "M": 20, "G": 30}[unit]


def parse_cpu_list(text: str | None) -> frozenset[int]:
    """ "0-1,4" as the set {0, 1, 4}; empty for anything else."""
    cpus = set()
    for entry in (text or "").split(","):
        first, _, last = entry.partition("-")
        first, last = parse_count(first), parse_count(last or first)
        if first is not None and last is not None:
            cpus.update(range(first, last + 1))
    return frozenset(cpus)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
