"""Tests of a replica's report on its streams."""

from __future__ import annotations

from rejoinder.core.resilience.stream_report import StreamReport, StreamWatch


def test_a_replica_without_streams_is_not_silent() -> None:
    """A replica that has no stream reports no silence, also long after its last token."""
    watch = StreamWatch()
    stream = watch.opened(0.0)
    watch.token(stream, 1.0)
    watch.closed(stream)
    assert watch.report(0.7, 100.0) == StreamReport(0, 0.0)


def test_streams_that_wait_are_counted() -> None:
    """The report counts the streams that have waited for 0.7 s. A token to any stream ends the silence."""
    watch = StreamWatch()
    first, second, third = (watch.opened(float(at)) for at in range(3))
    assert watch.report(0.7, 2.5) == StreamReport(2, 2.5)
    watch.token(third, 2.6)
    assert watch.report(0.7, 3.0) == StreamReport(2, 0.3999999999999999)
    watch.closed(first)
    watch.token(second, 3.5)
    watch.token(third, 3.5)
    assert watch.report(0.7, 4.0) == StreamReport(0, 0.5)


def test_silence_counts_from_the_first_stream_after_a_pause() -> None:
    """After an idle minute, a new stream that waits for 2 s means a silence of 2 s, not of a minute."""
    watch = StreamWatch()
    watch.token(watch.opened(0.0), 0.0)
    watch.closed(1)
    watch.opened(60.0)
    assert watch.report(0.7, 62.0) == StreamReport(1, 2.0)
