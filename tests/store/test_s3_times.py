"""Times as S3 servers write them: in ISO 8601 within answers, in other ways in headers."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavmill.pipeline.store.s3 import _moment

moments = st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1)).map(lambda at: at.replace(microsecond=0, tzinfo=UTC))


@given(moments)
def test_a_time_is_read_however_it_is_written(at):
    for written in (at.isoformat(), at.strftime("%Y-%m-%dT%H:%M:%S.000Z"), format_datetime(at, usegmt=True)):
        assert _moment(written) == at
    assert _moment(at.timestamp()) == at


@pytest.mark.parametrize("text", ["yesterday", "", "2026-13-45T00:00:00Z"])
def test_what_is_no_time_is_an_error(text):
    with pytest.raises(ValueError):
        _moment(text)
