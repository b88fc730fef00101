"""What an export says of codes that use little of their widths."""

import msq_tf
from tests.msq_tf.reports.test_code_use import quiet_model
from tflite_export import export


def test_a_report_names_dead_channels_and_low_entropy(tmp_path):
    qmodel = msq_tf.quantize_model(
        quiet_model(), msq_tf.MSQConfig(granularity=msq_tf.PerTensor())
    )
    report = export(qmodel, tmp_path / "m.tflite", target="min_size")
    by_name = {tensor.name: tensor for tensor in report.tensors}
    assert (by_name["conv"].dead, by_name["conv"].channels) == (3, 8)
    assert by_name["head"].dead == 0
    assert by_name["head"].entropy < 4.0
    text = str(report)
    assert "note: channels whose codes are all zero: conv (3 of 8)" in text
    assert "less than half of their width: head (" in text
