"""`Preemption` hears that a training is to end, and how soon, and leaves all as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

import ckptstore
from ckptstore import Preemption, UnsupportedError

BOTH = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _handlers_are_put_back():
    before = [signal.getsignal(number) for number in BOTH]
    yield
    assert [signal.getsignal(number) for number in BOTH] == before


@pytest.mark.parametrize("number", BOTH, ids=lambda number: number.name)
def test_a_signal_is_a_request_and_nothing_else(number):
    with Preemption(within=60) as preemption:
        assert (preemption.requested, preemption.reason) == (False, None)
        assert preemption.remaining() is None
        os.kill(os.getpid(), number)

        assert (preemption.requested, preemption.reason) == (True, number.name)
        assert 0 < preemption.remaining() <= 60


def test_a_second_signal_does_what_it_did_before():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with Preemption() as preemption:
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == []
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == [signal.SIGTERM]
        assert preemption.reason == "SIGTERM"
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_ctrl_c_interrupts():
    with Preemption():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("second", "ignored"), [("SIGTERM", False), ("SIGINT", True)])
def test_a_second_signal_ends_a_program_that_has_no_handler_or_ignores_it(second, ignored):
    program = (
        "import os, signal, ckptstore\n"
        f"signal.signal(signal.SIGINT, signal.SIG_IGN) if {ignored} else None\n"
        "with ckptstore.Preemption() as preemption:\n"
        f"    os.kill(os.getpid(), signal.{second})\n"
        "    print(preemption.reason, flush=True)\n"
        f"    os.kill(os.getpid(), signal.{second})\n"
        "    print('not reached')\n"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)

    assert result.returncode == -signal.Signals[second]
    assert result.stdout.decode().split() == [second]


def test_the_first_reason_and_the_earliest_deadline_count():
    with Preemption(within=10, signals=()) as preemption:
        preemption.request("the spot market", within=120)
        assert preemption.remaining() > 60
        preemption.request("a person")

        assert preemption.reason == "the spot market"
        assert preemption.remaining() <= 10


def test_nothing_is_left_when_time_is_up():
    over = threading.Event()
    with Preemption(within=0.001, signals=(), expired=over.set) as preemption:
        preemption.request("a test")
        assert over.wait(60)
        assert preemption.remaining() == 0.0


def test_time_is_not_up_before_anybody_asks_nor_after_the_end():
    over = []
    with Preemption(within=0.001, signals=(), expired=lambda: over.append(1)):
        pass
    with Preemption(within=1000, signals=(), expired=lambda: over.append(1)) as preemption:
        preemption.request("a test")

    assert over == []


def test_an_earlier_deadline_that_comes_later_is_kept():
    over = threading.Event()
    with Preemption(within=1000, signals=(), expired=over.set) as preemption:
        preemption.request("a test")
        preemption.request("a test", within=0.001)
        assert over.wait(60)


@pytest.mark.parametrize(("answer", "reason"), [("the market", "the market"), (True, "a notice")])
def test_a_notice_is_asked_for_until_it_is_there(answer, reason):
    answers = iter([None, False, answer])
    with Preemption(
        signals=(), notice=lambda: next(answers), notice_every=0.001, notice_within=100
    ) as preemption:
        while not preemption.requested:
            threading.Event().wait(0.001)

    assert preemption.reason == reason
    assert 30 < preemption.remaining() <= 100


def test_a_notice_that_fails_is_said_once_and_asked_for_again(caplog):
    answers = iter([OSError("no network"), OSError("no network"), "the market"])

    def notice():
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    with Preemption(signals=(), notice=notice, notice_every=0.001) as preemption:
        while not preemption.requested:
            threading.Event().wait(0.001)

    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "the notice of a preemption could not be asked for: OSError('no network')" in said[0]


def test_in_another_thread_it_works_by_request_only():
    found = []

    def work():
        try:
            Preemption().__enter__()
        except UnsupportedError as error:
            found.append(str(error))
        with Preemption(signals=()) as preemption:
            preemption.request("a test")
            found.append(preemption.reason)

    thread = threading.Thread(target=work, name="worker")
    thread.start()
    thread.join()

    assert found[0].startswith("signals are heard in the main thread only, and this is 'worker'")
    assert found[1] == "a test"


def test_a_fork_has_no_training_to_save():
    program = (
        "import os, signal, ckptstore\n"
        "with ckptstore.Preemption() as preemption:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        os._exit(0)\n"
        "    print(os.waitpid(child, 0)[1], preemption.requested)\n"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert result.stdout.decode().split() == [str(int(signal.SIGTERM)), "False"]


def test_a_handler_that_somebody_put_in_its_place_stays():
    def theirs(number, frame):
        pass

    before = signal.getsignal(signal.SIGTERM)
    with Preemption(signals=(signal.SIGTERM,)):
        signal.signal(signal.SIGTERM, theirs)

    assert signal.signal(signal.SIGTERM, before) is theirs


def test_what_cannot_be_heard_changes_nothing():
    with pytest.raises(UnsupportedError, match="signal SIGKILL cannot be heard"):
        Preemption(signals=(signal.SIGTERM, signal.SIGKILL)).__enter__()
    with pytest.raises(UnsupportedError, match="signal 9999 cannot be heard"):
        Preemption(signals=(signal.SIGTERM, 9999)).__enter__()


@pytest.mark.parametrize("within", [0, -1, float("nan"), float("inf"), "30", True, None])
def test_a_time_that_is_none_is_named(within):
    with pytest.raises(UnsupportedError, match="within is .*, not a number of seconds above 0"):
        Preemption(within)


def test_a_request_without_a_time_is_refused_and_not_heard():
    with Preemption(signals=()) as preemption:
        with pytest.raises(UnsupportedError, match="within is 0"):
            preemption.request("a test", within=0)
        assert not preemption.requested


def test_it_is_entered_once():
    with Preemption(signals=()) as preemption, pytest.raises(UnsupportedError, match="twice"):
        preemption.__enter__()


def test_it_imports_no_torch_and_is_a_public_name():
    program = "import sys, ckptstore; ckptstore.Preemption; print('torch' in sys.modules)"

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert result.stdout == b"False\n"
    assert "Preemption" in ckptstore.__all__
