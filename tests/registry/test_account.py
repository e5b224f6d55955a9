from __future__ import annotations

import threading

from airgap.arrival import Arrival
from airgap.registry.account import Account


def test_each_host_has_one_account() -> None:
    account = Account()
    account.of("b.example").request()
    account.of("a.example:5000").request()
    account.of("b.example").request()
    assert [(one.host, one.requests) for one in account.activity()] == [
        ("a.example:5000", 1),
        ("b.example", 2),
    ]


def test_bytes_are_counted_of_what_was_sent_alone() -> None:
    account = Account()
    for arrival, size in ((Arrival.SENT, 5), (Arrival.MOUNTED, 7), (Arrival.PRESENT, 9)):
        account.of("a").arrived(arrival, size)
    (activity,) = account.activity()
    assert (activity.sent, activity.mounted, activity.present) == (1, 1, 1)
    assert activity.sent_bytes == 5


def test_what_was_tried_again_is_told_with_the_reason_and_the_time() -> None:
    host = Account().of("a")
    host.retried("answer 503", 1.25)
    host.retried("answer 503", 2)
    host.retried("no connection", 0)
    host.waited(0.5)
    activity = host.activity()
    assert activity.retries == {"answer 503": 2, "no connection": 1}
    assert activity.waited == 3.8


def test_no_count_is_lost_between_threads() -> None:
    account = Account()

    def count() -> None:
        for _ in range(500):
            account.of("a").received(3)
            account.of("a").fetched()

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (activity,) = account.activity()
    assert (activity.fetched, activity.fetched_bytes) == (4000, 12000)
