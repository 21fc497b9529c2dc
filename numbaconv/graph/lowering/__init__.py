"""What each operator becomes: importing this package registers all of them."""

from numbaconv.graph.lowering import bottleneck, convolution, elementwise, shapes  # noqa: F401
