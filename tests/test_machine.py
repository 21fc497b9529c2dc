"""The machine is read from a file tree, so a made-up tree stands for any machine."""

import dataclasses
import os

import pytest

from numbaconv import machine as module
from numbaconv.errors import ConvError
from numbaconv.machine import (
    DEFAULT_CACHES,
    Machine,
    cache_sizes,
    cgroup_quota,
    choose_isa,
    enabled_features,
    machine,
    parse_count,
    parse_cpu_list,
    physical_cores,
    target_isa,
)
from numbaconv.options import Options

CPU = "sys/devices/system/cpu"


def grow(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
    return root


def cache(index, level, kind, size, shared):
    folder = f"{CPU}/cpu0/cache/index{index}"
    return {
        f"{folder}/level": str(level), f"{folder}/type": kind, f"{folder}/size": size,
        f"{folder}/shared_cpu_list": shared,
    }  # fmt: skip


SMT = {f"{CPU}/cpu{cpu}/topology/thread_siblings_list": f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)}


@pytest.fixture
def no_glibc(monkeypatch):
    monkeypatch.setattr(module, "_glibc_caches", dict)


def test_this_machine_describes_itself():
    here = machine()
    assert here is machine()
    assert here.isa in module.VECTOR_BYTES
    assert 0 < here.l1 <= here.l2 <= here.l3
    assert 1 <= here.usable_cores <= here.logical
    assert hash(here) == hash(Machine.detect())


def test_a_machine_that_tells_nothing_still_has_a_description(tmp_path, no_glibc):
    here = Machine.detect(tmp_path)
    assert (here.l1, here.l2, here.l3) == tuple(DEFAULT_CACHES.values())
    assert here.cores == here.affinity
    assert here.quota is None


@pytest.mark.parametrize(
    ("triple", "features", "isa"),
    [
        ("x86_64-unknown-linux-gnu", "+avx2,+fma,+avx512f", "avx512"),
        ("x86_64-apple-darwin", "+avx2,+fma,-avx512f", "avx2"),
        ("x86_64-pc-windows-msvc", "+avx2,-fma", "generic"),
        ("x86_64-unknown-linux-gnu", "", "generic"),
        ("aarch64-unknown-linux-gnu", "", "neon"),
        ("arm64-apple-darwin23", "+neon", "neon"),
        ("powerpc64le-unknown-linux-gnu", "+vsx", "generic"),
    ],
)
def test_the_isa_is_the_widest_that_the_target_has(triple, features, isa):
    assert target_isa(triple, enabled_features(features)) == isa


def test_a_later_sign_of_a_feature_wins():
    assert enabled_features("+avx2,-avx512f, +fma,-avx2") == {"fma"}


def test_vectors_can_be_narrowed_and_never_widened(monkeypatch):
    assert choose_isa("avx512", None) == "avx512"
    assert choose_isa("avx512", "avx2") == "avx2"
    assert choose_isa("avx2", "neon") == "neon"
    with pytest.raises(ConvError, match=r"'avx512'.*64.*'avx2'.*32"):
        choose_isa("avx2", "avx512")
    monkeypatch.setattr(module, "options", lambda: Options(isa="generic"))
    here = Machine.detect()
    assert (here.isa, here.vector_bytes) == ("generic", 16)


def test_the_target_is_that_of_numba_not_the_cpu(monkeypatch):
    monkeypatch.setattr(
        module, "numba_target", lambda: ("x86_64-unknown-linux-gnu", "haswell", frozenset({"avx2", "fma"}))
    )
    monkeypatch.setattr(module, "options", lambda: Options())
    here = Machine.detect()
    assert (here.isa, here.vector_bytes, here.cpu, here.features) == ("avx2", 32, "haswell", "avx2,fma")
    assert here.has("fma") and not here.has("avx")


MATRICES = frozenset({"avx512f", "amx-tile", "amx-bf16", "amx-int8"})


@pytest.mark.parametrize("allowed", [True, False])
def test_matrix_registers_that_the_system_keeps_back_are_not_there(allowed, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "numba_target", lambda: ("x86_64-unknown-linux-gnu", "sapphirerapids", MATRICES))
    monkeypatch.setattr(module, "options", lambda: Options())
    monkeypatch.setattr(module, "permitted", lambda features: asked.append(features) or allowed)
    here = Machine.detect()
    assert asked == [MATRICES] and here.has("avx512f")
    assert {here.has(feature) for feature in MATRICES - {"avx512f"}} == {allowed}


@pytest.mark.parametrize(
    ("features", "platform", "answer", "expected"),
    [
        (MATRICES, "linux", 0, True),
        (MATRICES, "linux", -1, False),
        (MATRICES, "darwin", 0, False),
        (frozenset({"avx512f"}), "linux", 0, False),
    ],
)
def test_the_system_is_asked_for_matrix_registers_where_there_are_any(
    features, platform, answer, expected, monkeypatch
):
    calls = []

    class Library:
        def syscall(self, *arguments):
            calls.append(arguments)
            return answer

    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: Library())
    monkeypatch.setattr(module.sys, "platform", platform)
    assert module.permitted.__wrapped__(features) is expected
    # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
    assert calls == ([(158, 0x1023, 18)] if platform == "linux" and features == MATRICES else [])


def test_instruction_caches_do_not_count_and_hyperthreads_share_one_l2(tmp_path):
    root = grow(
        tmp_path,
        SMT
        | cache(0, 1, "Data", "48K", "0,4")
        | cache(1, 1, "Instruction", "64K", "0,4")
        | cache(2, 2, "Unified", "2048K", "0,4")
        | cache(3, 3, "Unified", "32M", "0-7"),
    )
    assert cache_sizes(root) == {1: 48 << 10, 2: 2 << 20, 3: 32 << 20}


def test_an_l2_of_a_cluster_is_divided_among_its_cores_and_stands_in_for_an_l3(tmp_path, no_glibc):
    root = grow(tmp_path, cache(0, 1, "Data", "32K", "0") | cache(2, 2, "Unified", "1024K", "0-3"))
    assert cache_sizes(root) == {1: 32 << 10, 2: 256 << 10, 3: 256 << 10}


def test_damaged_cache_files_are_as_good_as_none(tmp_path, no_glibc):
    root = grow(tmp_path, cache(0, 1, "Data", "lots", "0") | {f"{CPU}/cpu0/cache/index1/level": "2"})
    assert cache_sizes(root) == DEFAULT_CACHES


def test_hyperthreads_of_a_core_count_once(tmp_path):
    root = grow(tmp_path, SMT)
    assert physical_cores(root, frozenset(range(8))) == 4
    assert physical_cores(root, frozenset({0, 4})) == 1
    assert physical_cores(root, frozenset({0, 99})) is None


def test_the_least_limit_of_all_groups_above_counts(tmp_path):
    root = grow(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/container",
            "sys/fs/cgroup/cpu.max": "max 100000",
            "sys/fs/cgroup/pod/cpu.max": "150000 100000",
            "sys/fs/cgroup/pod/container/cpu.max": "400000 100000",
        },
    )
    assert cgroup_quota(root) == 1.5


def test_a_group_that_is_mounted_as_the_root_is_found(tmp_path):
    root = grow(tmp_path, {"proc/self/cgroup": "0::/../../host/name", "sys/fs/cgroup/cpu.max": "200000 100000"})
    assert cgroup_quota(root) == 2.0


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
def test_the_first_version_of_control_groups_is_read_too(tmp_path, controllers):
    folder = f"sys/fs/cgroup/{controllers}/job"
    root = grow(
        tmp_path,
        {
            "proc/self/cgroup": f"9:cpuset:/\n4:{controllers}:/job\n1:name=systemd:/x:y\n0::/",
            f"{folder}/cpu.cfs_quota_us": "50000",
            f"{folder}/cpu.cfs_period_us": "100000",
        },
    )
    assert cgroup_quota(root) == 0.5
    grow(root, {f"{folder}/cpu.cfs_quota_us": "-1"})
    assert cgroup_quota(root) is None


@pytest.mark.parametrize("text", ["", "nonsense", "0::/", "0:", ":::", "4:cpu:/gone"])
def test_a_control_group_that_tells_nothing_is_no_limit(tmp_path, text):
    assert cgroup_quota(grow(tmp_path, {"proc/self/cgroup": text})) is None


@pytest.mark.parametrize("text", ["max", "", "100000 0", "x y", "-5 100000"])
def test_a_quota_that_is_no_number_is_no_limit(tmp_path, text):
    root = grow(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": text})
    assert cgroup_quota(root) is None


@pytest.mark.parametrize(
    ("changes", "usable"),
    [
        ({}, 4),
        ({"affinity": 3}, 3),
        ({"quota": 2.9}, 2),
        ({"quota": 0.3}, 1),
        ({"quota": 99.0}, 4),
        ({"cores": 1}, 1),
    ],
)
def test_usable_cores_are_the_least_of_all_limits_and_at_least_one(changes, usable):
    here = dataclasses.replace(machine(), cores=4, logical=8, affinity=8, quota=None)
    assert dataclasses.replace(here, **changes).usable_cores == usable


def test_systems_without_affinity_use_all_cpus(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert len(module.allowed_cpus()) == (os.cpu_count() or 1)


def test_sizes_and_lists_as_the_kernel_writes_them():
    assert [parse_count(text) for text in ("48K", "2M", "1G", "7", "-1", "K", "", None)] == [
        48 << 10, 2 << 20, 1 << 30, 7, None, None, None, None,
    ]  # fmt: skip
    assert parse_cpu_list("0-2,5") == {0, 1, 2, 5}
    assert parse_cpu_list("") == parse_cpu_list(None) == parse_cpu_list("a-b") == frozenset()
