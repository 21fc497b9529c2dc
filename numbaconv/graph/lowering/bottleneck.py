"""Bottleneck: a depthwise convolution with the 1x1 convolutions around it, fused where the cost model says that it pays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbaconv.algorithms.bottleneck import Stage
from numbaconv.dispatch.fusion import STRIPS, make_fused_plan, weigh
from numbaconv.epilogue import IDENTITY, Epilogue
from numbaconv.graph.instructions import Compiled, fused_name
from numbaconv.graph.ir import Node
from numbaconv.graph.lowering.convolution import pose
from numbaconv.graph.tensors import channels_last
from numbaconv.graph.trace import LOWERINGS, Trace, Value, lowers
from numbaconv.loops.shares import Shares


@lowers("Bottleneck")
def bottleneck(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value]:
    """Strips, or the stages one after the other."""
    nodes: tuple[Node, ...] = node.attributes["stages"]
    x = trace.tensor(operands[0])
    stages = _stages(nodes, x.shape, x.dtype)
    residual = trace.values[nodes[-1].operand(3)] if nodes[-1].operand(3) else None
    if residual is None or residual.shape == _shape(stages[-1]):
        problems, last = tuple(stage.problem for stage in stages), stages[-1]
        fusion = weigh(problems, Epilogue(last.problem.bias, residual is not None, last.activation))
        if fusion.ways[0].name == STRIPS:
            return [_fused(trace, node, nodes, stages, fusion, x, residual)]
    for stage in nodes:
        trace.node = stage
        values = [trace.values[name] if name else None for name in stage.inputs]
        (trace.values[stage.outputs[0]],) = LOWERINGS[stage.op](trace, stage, values)
    return [trace.values[nodes[-1].outputs[0]]]


def _stages(nodes: Sequence[Node], shape: tuple[int, ...], dtype: np.dtype) -> tuple[Stage, ...]:
    stages = []
    for node in nodes:
        stage = Stage(pose(node, shape, dtype), node.attributes["weights"], node.attributes.get("activation", IDENTITY))
        stages.append(stage)
        shape = _shape(stage)
    return tuple(stages)


def _shape(stage: Stage) -> tuple[int, ...]:
    return stage.problem.n, stage.problem.c_out, *stage.problem.out_spatial


def _fused(trace: Trace, node, nodes, stages, fusion, x, residual) -> Value:
    x = trace.ordered(x, channels_last)
    if residual is not None:
        residual = trace.ordered(residual, channels_last)
    out = trace.new(node.outputs[0], _shape(stages[-1]), x.dtype, channels_last)
    # the plan's pixels have no gaps, whatever the result will be a slice of
    target = out if out.is_dense(channels_last(4)) else trace.temporary(out.shape, x.dtype, channels_last)
    made = []

    def work(threads: int) -> Shares:
        if not made:
            made.append(make_fused_plan(stages, residual is not None, STRIPS, machine=trace.store.machine))
        shares = made[0].shares(threads)
        if trace.store.final:
            for stage in stages:
                stage.weights.release()
        return shares

    names = [fused_name(stage.op, None, given.activation) for stage, given in zip(nodes[:-1], stages)]
    names.append(fused_name(nodes[-1].op, residual, stages[-1].activation))
    trace.emit(
        Compiled(
            " > ".join(names),
            node.name,
            (x,) if residual is None else (x, residual),
            target,
            work,
            algorithm=STRIPS,
            problem=" > ".join(str(stage.problem) for stage in stages),
            flops=sum(stage.problem.flops for stage in stages),
            seconds=fusion.ways[0].seconds,
        )
    )
    if target is not out:
        trace.copy(target, out)
    return out
