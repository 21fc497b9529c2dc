"""Options of the pytest benchmarks."""


def pytest_addoption(parser):
    group = parser.getgroup("convolution benchmarks")
    group.addoption("--conv-suite", nargs="+", default=["resnet50", "vgg16", "mobilenetv2"], help="suites to run")
    group.addoption("--conv-threads", type=int, default=1, help="threads of every runtime")
    group.addoption("--conv-min-time", type=float, default=0.1, help="seconds that each case is timed for")
