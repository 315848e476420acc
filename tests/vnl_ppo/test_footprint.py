import dataclasses

import jax
import pytest

from tests.probes import Probe
from vnl_ppo import footprint
from vnl_ppo.config import PPOConfig
from vnl_ppo.footprint import Row, check_fits, compile_step, memory_table, peak_bytes, size_of
from vnl_ppo.loading import initial_weights
from vnl_ppo.networks import ActorCritic
from vnl_ppo.ppo import make_ppo
from vnl_ppo.recurrence import GRU
from vnl_ppo.teaching import make_teacher

CONFIG = PPOConfig(num_envs=8, batch_size=4, num_minibatches=4, unroll_length=5)
STEPS = 4 * 4 * 5
ENV = Probe(lambda x, a: x)
NETWORK = ActorCritic(1, {}, (8,), (8,))


def table(*arguments, **options):
    return {row.name: row.num_bytes for row in memory_table(*arguments, **options)}


def test_sizes_worked_by_hand():
    rows = table(ENV, NETWORK, CONFIG)
    # 2 inputs, 8 hidden, 2 or 1 outputs, each layer with biases; Adam holds two copies and a count.
    numbers = (3 * 8 + 9 * 2) + (3 * 8 + 9 * 1)
    assert rows["parameters"] == 4 * numbers
    assert rows["optimiser"] == 4 * (2 * numbers + 1)
    assert rows["statistics"] == 4 * (1 + 2 + 2)
    assert rows["rollout: observation proprio"] == 4 * 2 * STEPS
    assert rows["rollout: action, log-probability, value"] == 4 * 3 * STEPS
    assert rows["rollout: advantage, episode end"] == 5 * STEPS
    assert "rollout: memory at the unrolls' start" not in rows


def test_devices_share_and_seeds_add_up():
    one, two = table(ENV, NETWORK, CONFIG), table(ENV, NETWORK, CONFIG, num_devices=2)
    assert two["parameters"] == one["parameters"]
    assert 2 * two["environments"] == one["environments"]
    assert 2 * two["rollout: observation proprio"] == one["rollout: observation proprio"]
    three = table(ENV, NETWORK, dataclasses.replace(CONFIG, num_seeds=3))
    assert all(three[k] == 3 * x for k, x in one.items())


def test_seeds_share_one_teacher():
    weights = initial_weights(ENV, NETWORK)
    teacher = make_teacher(NETWORK, weights, ENV.observation_spec)
    rows = table(ENV, NETWORK, dataclasses.replace(CONFIG, num_seeds=3), teacher=teacher)
    alone = table(ENV, NETWORK, CONFIG)
    assert rows["teacher"] == alone["parameters"] + alone["statistics"]
    assert "teacher" not in alone


def test_a_memory_is_stored_once_for_each_unroll():
    rows = table(ENV, ActorCritic(1, {}, (8,), (8,), core=GRU(7)), CONFIG)
    assert rows["rollout: memory at the unrolls' start"] == 4 * 7 * 16


def test_the_peak_holds_what_the_table_says():
    rows = memory_table(ENV, NETWORK, CONFIG)
    peak = peak_bytes(compile_step(make_ppo(ENV, NETWORK, CONFIG, jax.local_devices()[:1])))
    assert sum(row.num_bytes for row in rows) < peak < 100 * sum(row.num_bytes for row in rows)


def test_a_run_that_does_not_fit_is_refused_with_the_table_and_the_remedy():
    rows = [Row("parameters", 2**20), Row("rollout: observation vision", 2**30)]
    check_fits(rows, 2**31, None)
    check_fits(rows, 2**30, 2**30)
    with pytest.raises(
        ValueError, match=r"(?s)1,500 MiB.*has 1,400 MiB.*unroll_length.*1,024.0 MiB"
    ):
        check_fits(rows, 1500 * 2**20, 1400 * 2**20)
    with pytest.raises(ValueError, match="env_chunk_size"):
        check_fits(rows, 2**32, 2**31)


def test_a_cpu_has_what_the_host_can_give_and_the_tightest_group_allows(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 24000000 kB\nMemAvailable:   20000 kB\n")
    assert footprint._free_on_host(meminfo) == 20000 * 1024
    assert footprint._free_on_host(tmp_path / "none") is None
    groups = tmp_path / "cgroup"
    for kind, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        root = tmp_path / ("v1" if kind else "v2")
        inner = root / kind / "job" / "step"
        inner.mkdir(parents=True)
        (inner / name).write_text(f"{2**63 - 4096}" if kind else "max\n")
        (inner.parent / name).write_text("3000\n")
        (inner.parent.parent / name).write_text("5000\n")
        groups.write_text(f"3:cpu:/elsewhere\n0:{kind}:/job/step\n")
        assert footprint._limit_of_group(groups, str(root)) == 3000
        # In a container the path may be that of the host.
        groups.write_text(f"0:{kind}:/host/only\n")
        assert footprint._limit_of_group(groups, str(root)) == 5000
    assert footprint._limit_of_group(groups, str(tmp_path / "nowhere")) is None
    assert footprint.available_bytes(jax.devices("cpu")[0]) > 0


def test_every_array_counts():
    assert size_of({"a": jax.ShapeDtypeStruct((2, 3), "uint8"), "b": (jax.random.key(0),)}) == 14
