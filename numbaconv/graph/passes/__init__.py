"""Rewriting a graph into one that computes the same with less: pure functions from graph to graph, and the order they run in."""

from __future__ import annotations

from collections.abc import Callable

from numbaconv.graph.ir import Graph
from numbaconv.graph.passes.activations import name_activations
from numbaconv.graph.passes.batch_norm import fold_batch_norms
from numbaconv.graph.passes.bottleneck import group_bottlenecks
from numbaconv.graph.passes.common import merge_common_nodes
from numbaconv.graph.passes.constants import fold_constants
from numbaconv.graph.passes.dead_code import remove_dead_code
from numbaconv.graph.passes.dense import make_dense
from numbaconv.graph.passes.elementwise import fuse_activations
from numbaconv.graph.passes.identities import remove_identities
from numbaconv.graph.passes.layer_norm import name_layer_norms
from numbaconv.graph.passes.matmul import fuse_matrix_products
from numbaconv.graph.passes.packing import pack_weights, weight_bytes
from numbaconv.graph.passes.padding import fold_padding
from numbaconv.graph.passes.products import name_products
from numbaconv.graph.passes.residual import fuse_epilogues
from numbaconv.graph.passes.transposes import merge_transposes

#: Patterns are named before their arithmetic is folded into weights, and epilogues are filled when nothing else is left to fold.
PASSES: tuple[Callable[[Graph], Graph], ...] = (
    remove_dead_code,
    fold_constants,
    remove_identities,
    merge_transposes,
    merge_common_nodes,
    make_dense,
    name_activations,
    name_products,
    name_layer_norms,
    fold_padding,
    fold_batch_norms,
    fuse_epilogues,
    fuse_matrix_products,
    remove_dead_code,
)

#: Rounds after which it is enough, whatever the last one changed.
_ROUNDS = 8

__all__ = ["PASSES", "optimise", "pack_weights", "weight_bytes"]


def optimise(graph: Graph) -> Graph:
    """The graph after all passes, repeated until none changes anything, and with what may run as one put together."""
    for _ in range(_ROUNDS):
        before = graph
        for rewritten in PASSES:
            graph = rewritten(graph)
        if graph is before:
            break
    return group_bottlenecks(fuse_activations(graph))
