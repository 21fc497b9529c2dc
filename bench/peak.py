"""The machine's FMA peak: a loop that touches nothing but vector registers.

It is measured as one more runtime in every round, so that a percentage of it refers to the clock frequency that the
convolutions of the same round had.
"""

import os
import platform

import numpy as np
from llvmlite import binding, ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from bench.peers import Prepared

F32_BYTES = 4
FLOPS_PER_FMA = 2
# A fused multiply-add takes 4 cycles and two start in each, so 8 chains fill both units; more hide uneven issue.
UNROLL = 4
FLOPS_PER_CALL = 2e8


def _vector_bytes() -> int:
    """Width of the widest vectors that code is generated for; asked of the processor where numbaconv cannot say."""
    try:
        from numbaconv.machine import machine

        return machine().vector_bytes
    except ImportError:
        features = binding.get_host_cpu_features()
        return 64 if features.get("avx512f") else 32 if features.get("avx") else 16


LANES = _vector_bytes() // F32_BYTES
# AVX-512 and NEON have 32 registers, AVX2 16; an accumulator that spills would measure the memory instead.
ACCUMULATORS = 24 if LANES == 16 or platform.machine() in ("aarch64", "arm64") else 12


@intrinsic(prefer_literal=True)
def _fma_chains(typingctx, accumulators, lanes, unroll, n, scale, offset):
    """Sum over all lanes of `accumulators` vectors after `n * unroll` steps of acc = acc * scale + offset each."""
    chains, steps = accumulators.literal_value, unroll.literal_value
    f32, i64 = ir.FloatType(), ir.IntType(64)
    vector = ir.VectorType(f32, lanes.literal_value)

    def codegen(context, builder, signature, args):
        _, _, _, n, scale, offset = args
        name = f"llvm.fma.v{vector.count}f32"
        fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
        scale, offset = (_splat(builder, vector, value) for value in (scale, offset))
        entry, loop, done = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        i = builder.phi(i64)
        phis = [builder.phi(vector) for _ in range(chains)]
        values = phis
        for _ in range(steps):
            values = [builder.call(fma, [value, scale, offset]) for value in values]
        i_next = builder.add(i, i64(1))
        i.add_incoming(i64(0), entry)
        i.add_incoming(i_next, loop)
        for c, (phi, value) in enumerate(zip(phis, values)):
            # Chains that begin alike would be merged into one.
            phi.add_incoming(ir.Constant(vector, [float(c + 1)] * vector.count), entry)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", i_next, n), loop, done)
        builder.position_at_end(done)
        total = values[0]
        for value in values[1:]:
            total = builder.fadd(total, value)
        result = builder.extract_element(total, ir.IntType(32)(0))
        for lane in range(1, vector.count):
            result = builder.fadd(result, builder.extract_element(total, ir.IntType(32)(lane)))
        return result

    signature = types.float32(accumulators, lanes, unroll, types.int64, types.float32, types.float32)
    return signature, codegen


def _splat(builder, vector, scalar):
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, zeros)


@njit
def _work(n, scale, offset):
    return _fma_chains(ACCUMULATORS, LANES, UNROLL, n, scale, offset)


@njit(parallel=True)
def _work_on_every_thread(n, scale, offset, sums):
    for t in prange(sums.size):
        sums[t] = _work(n, scale, offset)


def version() -> str:
    return f"{8 * F32_BYTES * LANES}-bit vectors, {ACCUMULATORS} accumulators"


def prepare(problem, operands, threads, variant, algorithm) -> Prepared:
    """The loop on each of `threads` threads; the problem does not matter."""
    flops_per_step = ACCUMULATORS * LANES * UNROLL * FLOPS_PER_FMA
    n = int(FLOPS_PER_CALL / flops_per_step)
    # The recurrence converges to 2, so that neither overflow nor denormals slow it down.
    scale, offset = np.float32(0.5), np.float32(1.0)
    sums = np.zeros(threads, np.float32)
    if threads == 1:
        return Prepared(lambda: _work(n, scale, offset), None, flops=n * flops_per_step)
    return Prepared(lambda: _work_on_every_thread(n, scale, offset, sums), None, flops=threads * n * flops_per_step)


def main() -> None:
    """Print the peak on one thread and on all: `python -m bench.peak`."""
    from numbaconv.cli.serving import sample

    for threads in sorted({1, os.cpu_count()}):
        prepared = prepare(None, None, threads, "", None)
        gflops = prepared.flops / np.median(sample(prepared.call, 0.3)) / 1e9
        print(f"{threads} thread{'s' * (threads > 1)}: {gflops:.0f} GFLOP/s ({version()})")


if __name__ == "__main__":
    main()
