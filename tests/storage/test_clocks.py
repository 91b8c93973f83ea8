"""Clocks that differ, in words; and the dates of answers, whoever wrote them."""

from __future__ import annotations

from email.utils import formatdate
from time import time

import pytest
from botocore.exceptions import ClientError

from ckptstore.storage.clocks import apart, date_of
from ckptstore.storage.s3failure import failure_of


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (86_400, "1 day ahead"),
        (-7_300, "2 hours behind"),
        (1_199.4, "20 minutes ahead"),
        (-61, "1 minute behind"),
        (0.2, "0 seconds ahead"),
    ],
)
def test_how_far_a_clock_is_off(seconds: float, said: str) -> None:
    assert apart(seconds) == said


def test_a_date_is_read_with_and_without_its_zone() -> None:
    for zone in ("GMT", "-0000", ""):
        answer = {
            "ResponseMetadata": {"HTTPHeaders": {"date": f"Thu, 01 Jan 1970 00:01:00 {zone}"}}
        }

        assert date_of(answer) == 60.0


@pytest.mark.parametrize("headers", [{}, {"date": "yesterday"}, {"date": None}, {"date": ""}])
def test_what_is_no_date_is_none(headers: dict[str, str]) -> None:
    assert date_of({"ResponseMetadata": {"HTTPHeaders": headers}}) is None
    assert date_of({}) is None


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(7_260, "is wrong: it is 2 hours behind; S3"), (-7_260, "is wrong: it is 2 hours ahead; S3")],
)
def test_a_refusal_because_of_the_time_says_how_wrong_the_clock_is(
    seconds: float, says: str
) -> None:
    refusal = {
        "Error": {"Code": "RequestTimeTooSkewed", "Message": "The difference is too large."},
        "ResponseMetadata": {
            "HTTPStatusCode": 403,
            "HTTPHeaders": {"date": formatdate(time() + seconds, usegmt=True)},
        },
    }

    failure = failure_of(ClientError(refusal, "ListObjectsV2"))

    error = failure.error("list", "s3://bucket/x", bucket="bucket", endpoint="http://host")
    assert says in str(error)
