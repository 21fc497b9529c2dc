"""The benchmarks' oracles, which judge every runtime: what this project computes is what they say, for every operation."""

from __future__ import annotations

import pytest

from bench import peers, suites
from bench.operands import WrongResultError
from bench.worker import Server

#: An operation with stride, groups and padding of its own where it has them, for each number of axes that it knows.
LINES = (
    "c8h9w11o6k3s2p1g2",
    "transposed c6w31o8k4s3p2",
    "transposed c6h10w12o4k3s2p1g2",
    "gradients n2c6w31o5k4s3p2dil2",
    "gradients n2c4h9w11o6k3s2p1g2",
    "convolve c1w300o1k20p19",
    "convolve c1h30w40o1k5p2",
)


CASES = [
    (line, name)
    for line in LINES
    for name in ("numbaconv_cf", "numbaconv_cl")
    if suites.parse(line)[0] in peers.lookup(name)[0].operations
]


@pytest.mark.parametrize("line, name", CASES)
def test_every_operation_gives_what_its_oracle_says(line, name):
    operation, problem = suites.parse(line)
    answer = Server(name, 1).answer({"prepare": line})
    assert answer["error"] < 1e-5
    assert answer["flops"] == suites.OPERATIONS[operation] * problem.flops


def test_a_wrong_result_is_noticed():
    server = Server("numbaconv_cf", 1)
    server.answer({"prepare": LINES[-1]})
    with pytest.raises(WrongResultError, match="largest error"):
        server.operands.check(server.prepared.result() + 0.1)


@pytest.mark.parametrize("suite", suites.names())
def test_every_line_of_a_suite_is_an_operation_on_a_problem(suite):
    layers = suites.load(suite)
    assert layers
    for layer in layers:
        assert layer.operation in suites.OPERATIONS
        assert layer.flops >= layer.problem.macs
