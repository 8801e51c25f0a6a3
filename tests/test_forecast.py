"""The forecast: its cost model against hand calculation and published tables, and where its inputs come from."""

import json
import math

import pytest

from benchmarks.scaling.fabric import SIZES, fit, to_toml
from benchmarks.scaling.forecast import Fabric, Interval, all_reduce_s, compare_published, read_fabric, step_time_s, unexplained
from family.cli import main
from family.errors import UserError

FABRIC = Fabric(latency_us=10, bandwidth_gbit_s=8, gpus_per_node=4, intra_node_bandwidth_gbyte_s=10, intra_node_latency_us=1)


def test_one_gpu_sums_nothing():
    assert all_reduce_s(1e9, 1, FABRIC) == 0


def test_a_sum_within_a_node_is_a_ring():
    # 2 * 3 messages of 1 us, 2 * 3/4 of 100 MB at 10 GB/s
    assert all_reduce_s(100e6, 4, FABRIC) == pytest.approx(6e-6 + 1.5 * 0.01)


def test_a_sum_over_nodes_adds_the_network_by_ring_or_tree():
    inside = all_reduce_s(100e6, 4, FABRIC)
    assert all_reduce_s(100e6, 8, FABRIC) == pytest.approx(inside + 2 * 10e-6 + 0.1)  # 1 GB/s, 2 * 1/2 of 100 MB: the ring
    small = all_reduce_s(4, 4 * 64, FABRIC) - all_reduce_s(4, 4, FABRIC)
    assert small == pytest.approx(2 * 6 * 10e-6, rel=1e-3)  # 2 log2(64) messages: the tree, where the ring would take 126


def test_the_ends_of_a_step_time_are_all_hidden_and_nothing_hidden():
    times = step_time_s(0.3, 0.25, Interval(0, 0.5))
    assert times.low == pytest.approx(0.3 + 0.05) and times.high == pytest.approx(0.55 / 0.5)


def test_published_efficiencies_of_communication_bound_systems_lie_in_the_predicted_range():
    rows = [row for row in compare_published() if row["system"].startswith("Horovod")]
    assert len(rows) == 3
    for row in rows:
        low, high = row["predicted"]
        assert low < row["published"] < high, row["model"]


def test_what_communication_does_not_explain_is_a_term_of_its_own():
    lost = unexplained()
    assert 0.04 < lost.low < 0.05 and 0.25 < lost.high < 0.27
    b0 = next(row for row in compare_published() if (row["model"], row["gpus"]) == ("EfficientNet-B0", 8))
    assert min(b0["predicted"]) > 0.99 and b0["published"] < 0.75


def test_a_forecast_marks_each_input(capsys):
    assert main(["forecast", "--variant", "b0", "--cluster", "pyxis-8gpu", "--images-per-s", "1200", "--gpus", "1,8,64", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    one, eight, many = told["rows"]
    assert one["efficiency"] == [1, 1] and one["hours"][0] == pytest.approx(5e6 * 30 / 1200 / 3600, rel=1e-3)
    assert (eight["nodes"], many["nodes"]) == (1, 8) and many["efficiency"][0] < many["efficiency"][1] < 1
    assert all(item["from"].split(":")[0] in ("given", "measured", "assumed", "computed", "published") for item in told["inputs"])


def test_the_rate_comes_from_a_measurement(tmp_path, capsys):
    row = {"schema": 1, "kind": "training", "variant": "b0", "images_per_s": 50.0, "resolution_px": 128, "at": "2026-11-22T00:00:00",
           "machine": {"name": "a machine"}}  # fmt: skip
    (tmp_path / "results.jsonl").write_text(json.dumps(row) + "\n")
    words = ["forecast", "--variant", "b0", "--cluster", "pyxis-8gpu", "--gpus", "8", "--json"]
    assert main([*words, "--results", str(tmp_path / "results.jsonl")]) == 0
    assert "measured on a machine at 128 px" in capsys.readouterr().out
    assert main(words) == 2 and "bench train" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, said",
    [
        ("partition = 'x'", "no [fabric] table"),
        ("[fabric]\nlatency_us = 1", "lacks bandwidth_gbit_s"),
        ("[fabric]\nlatency = 1", "Did you mean 'latency_us'"),
        ("[fabric]\nlatency_us = -1", "takes a number above 0"),
        ("[fabric", "Expected"),
    ],
)
def test_bad_fabrics_are_refused(tmp_path, text, said):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UserError) as error:
        read_fabric(str(tmp_path / "c.toml"))
    assert said in str(error.value)


def test_measured_sums_give_back_the_network_that_made_them():
    n, latency_s, rate = 4, 20e-6, 3e9
    seconds = [2 * (n - 1) * latency_s + 2 * (n - 1) / n * size / rate for size in SIZES]
    found = fit(SIZES, seconds, n)
    assert found[0] == pytest.approx(latency_s, rel=0.05) and found[1] == pytest.approx(rate, rel=1e-6)


def test_a_measurement_becomes_lines_of_a_cluster(tmp_path):
    told = {"ranks": 2, "nodes": 2, "latency_us": 12.0, "bytes_per_s": 1e9, "at": "2026-11-22"}
    inside = {**told, "nodes": 1}
    assert "bandwidth_gbit_s = 8.000" in to_toml(told) and "intra_node_bandwidth_gbyte_s = 1.000" in to_toml(inside)
    (tmp_path / "c.toml").write_text(to_toml(told) + "gpus_per_node = 4\nintra_node_bandwidth_gbyte_s = 10\n")
    fabric = read_fabric(str(tmp_path / "c.toml"))
    assert (
        fabric.measured_fields == ("latency_us", "bandwidth_gbit_s")
        and fabric.measured == "2026-11-22, sums of 2 ranks on 2 nodes"
        and math.isclose(fabric.latency_us, 12)
    )
