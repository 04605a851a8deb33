from reslab.benchmarking.rows import compare_devices, describe_case


def test_devices_are_compared_where_all_other_options_are_equal(finished_row):
    rows = [
        finished_row("cpu", 100.0), finished_row("cpu", 50.0, batch_size=8), finished_row("gpu", 3010.0),
        finished_row("gpu", 9000.0, compile=True),
        finished_row("gpu", 0.0, batch_size=8) | {"status": "out of memory"},
    ]  # fmt: skip
    (ratio,) = compare_devices(rows)
    assert ratio == {
        "faster": "gpu (bf16-mixed)", "slower": "cpu (32-true)", "ratio": 30.1,
        "precision": "auto", "memory_format": "channels_last", "compile": False, "with_graph": "auto", "batch_size": 64,
    }  # fmt: skip


def test_a_device_is_not_compared_with_itself_under_another_name(finished_row):
    assert compare_devices([finished_row("cpu", 1.0), finished_row("cpu", 2.0) | {"device": "auto"}]) == []


def test_a_case_is_called_a_graph_if_its_steps_were_replayed(finished_row):
    row = finished_row("gpu", 1.0, with_graph=True)
    assert describe_case(row | {"graph": True}, ["device", "with_graph"]) == "gpu, graph"
    assert describe_case(row | {"graph": "the device is cpu"}, ["device", "with_graph"]) == "gpu, no graph"
    assert describe_case(row | {"status": "failed"}, ["with_graph"]) == "graph"
