"""What each operator becomes: importing this package registers all of them."""

from numbaconv.graph.lowering import (  # noqa: F401
    activations,
    arrangement,
    bottleneck,
    branches,
    convolution,
    deformable,
    elementwise,
    normalization,
    pools,
    products,
    recurrent,
    reductions,
    resize,
    shapes,
)
