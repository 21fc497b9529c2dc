"""Algorithms, in the order of preference among equals; the reference stands last."""

from __future__ import annotations

from numbaconv.algorithms.abreast import Abreast
from numbaconv.algorithms.banded import Banded, BandedPlanes
from numbaconv.algorithms.base import Algorithm
from numbaconv.algorithms.depthwise import Depthwise
from numbaconv.algorithms.direct import Direct
from numbaconv.algorithms.fft import Fft
from numbaconv.algorithms.grouped import Grouped
from numbaconv.algorithms.im2col import Im2col
from numbaconv.algorithms.indirect import Indirect
from numbaconv.algorithms.plane_sums import PlaneSums
from numbaconv.algorithms.pointwise import Pointwise
from numbaconv.algorithms.reference import Reference
from numbaconv.algorithms.split import Split
from numbaconv.algorithms.split_planes import SplitPlanes
from numbaconv.algorithms.strassen import Strassen
from numbaconv.algorithms.tiled import TiledAlgorithm
from numbaconv.algorithms.winograd import Winograd
from numbaconv.algorithms.winograd_depthwise import DEPTHWISE_SIZES, WinogradDepthwise
from numbaconv.algorithms.winograd_form import SIZES
from numbaconv.codegen.halves import KINDS

ALGORITHMS: tuple[Algorithm, ...] = (
    Depthwise(),
    *map(WinogradDepthwise, DEPTHWISE_SIZES),
    Grouped(),
    Pointwise(),
    Strassen(),
    *map(Winograd, SIZES),
    Direct(),
    Abreast(),
    Indirect(),
    Im2col(),
    PlaneSums(),
    *map(Split, KINDS),
    *map(SplitPlanes, KINDS),
    *map(Banded, KINDS),
    *map(BandedPlanes, KINDS),
    Fft(),
    Reference(),
)

#: Those for weights that are new in each call: Winograd transforms them on the way.
REPACKED: tuple[Algorithm, ...] = (
    *(algorithm for algorithm in ALGORITHMS if algorithm.repacked),
    *(Winograd(m, forms=(False,)) for m in SIZES),
)

#: Those that multiply matrices both of which are computed; see `algorithms.matmul`.
MATMULS: tuple[TiledAlgorithm, ...] = tuple(
    algorithm for algorithm in ALGORITHMS if isinstance(algorithm, TiledAlgorithm) and algorithm.operand is not None
)
