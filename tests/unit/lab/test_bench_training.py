"""What the benchmark of training says of its turns."""

from io import StringIO

import pytest
from rich.console import Console

from winnow_lab.bench_training.command import compare, show
from winnow_lab.bench_training.worker import sample_groups


def test_ratios_are_taken_round_by_round() -> None:
    def turn(seconds: float) -> dict[str, float]:
        return {"seconds": seconds, "pairs": 100, "loss": 1.5}

    # The machine was twice as slow in the second round, for both.
    made = compare({"winnow": [turn(1), turn(2), turn(1)], "plain script": [turn(1.5), turn(3), turn(1.2)]})
    assert (made["ratio"], made["ratio_low"], made["ratio_high"]) == (1.5, 1.2, 1.5)
    assert made["winnow"] == {"pairs_per_second": 100.0, "low": 50.0, "high": 100.0, "loss": 1.5}
    stream = StringIO()
    show({"models": {"cross-encoder": made}}, Console(file=stream, width=100))
    assert "winnow / plain script: 1.50 (1.20 – 1.50)" in stream.getvalue()


def test_both_train_on_the_same_groups_every_time() -> None:
    groups = sample_groups(20, 4)
    assert groups == sample_groups(20, 4)
    for group in groups:
        assert len(set(group.documents)) == 4
        assert group.documents[0].startswith(group.query)
        assert group.labels == pytest.approx([1, 0, 0, 0])
