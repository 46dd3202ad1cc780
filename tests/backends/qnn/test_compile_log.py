"""Traffic out of the compiler's log, as QNN 2.49.40 writes it."""

from __future__ import annotations

from mobilepack.backends.qnn.compile_log import Traffic, traffic

LOG = """\
Starting stage: Finalizing Graph Sequence

====== DDR bandwidth summary ======
spill_bytes=0
fill_bytes=12
write_total_bytes=393216
read_total_bytes=5249024

Completed stage: Finalizing Graph Sequence (101052 us)
Starting stage: Completion
====== DDR bandwidth summary ======
spill_bytes=8
fill_bytes=0
write_total_bytes=163840
read_total_bytes=5044224
"""


def test_each_graph_has_its_traffic_in_order() -> None:
    assert traffic(LOG) == (Traffic(0, 12, 393216, 5249024), Traffic(8, 0, 163840, 5044224))


def test_a_log_without_summaries_tells_nothing() -> None:
    assert traffic("Completed stage: Completion (31 us)\nspill_bytes=3\n") == ()
