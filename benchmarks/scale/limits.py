"""What S3 documents of itself: limits, speeds and prices, and the page that says each."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GUIDE", "S3", "SOURCES"]

GUIDE = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/"

SOURCES = (
    ("10,000 parts of 5 MiB to 5 GiB", GUIDE + "qfacts.html"),
    ("3,500 writes and 5,500 reads a second and prefix", GUIDE + "optimizing-performance.html"),
    ("85 to 90 MB/s a connection", GUIDE + "optimizing-performance-design-patterns.html"),
    ("503 SlowDown while a prefix is partitioned", GUIDE + "ErrorBestPractices.html"),
    ("prices", "https://aws.amazon.com/s3/pricing/"),
)


@dataclass(frozen=True)
class S3:
    """A service.

    Attributes:
        writes: PUT, COPY, POST and DELETE a second that a partitioned prefix takes.
        reads: GET and HEAD a second; a listing counts as one here.
        latency: seconds from a request to its answer's first byte: the middle of the 100 to
            200 ms that the guide gives for small objects.
        connection: bytes a second of one connection.
        slow_down: share of a second's requests that a prefix takes in one burst.
        parts: the most parts of an object.
        put_price: dollars a thousand PUT, COPY, POST and LIST, in us-east-1.
        get_price: dollars a thousand of all others; DELETE is free.
        storage_prices: dollars a GB and month, and up to how many GB.
    """

    writes: float = 3500
    reads: float = 5500
    latency: float = 0.15
    connection: float = 85e6
    slow_down: float = 0.1
    parts: int = 10_000
    put_price: float = 0.005
    get_price: float = 0.0004
    storage_prices: tuple[tuple[float, float], ...] = (
        (50e3, 0.023),
        (500e3, 0.022),
        (float("inf"), 0.021),
    )

    def price(self, requests: dict[str, int]) -> float:
        """Return dollars for requests, by kind."""
        dear = sum(requests.get(kind, 0) for kind in ("PUT", "POST", "COPY", "LIST"))
        cheap = sum(requests.get(kind, 0) for kind in ("GET", "HEAD"))
        return (dear * self.put_price + cheap * self.get_price) / 1000

    def storage_price(self, nbytes: float) -> float:
        """Return dollars a month for bytes that are kept all the time."""
        dollars, below = 0.0, 0.0
        for limit, price in self.storage_prices:
            dollars += max(min(nbytes / 1e9, limit) - below, 0) * price
            below = limit
        return dollars
