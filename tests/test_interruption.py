"""SIGINT waits for the end of a step; a second one does not."""

import signal
import threading

import pytest

from companion.interruption import Interruption


def test_the_first_signal_is_only_noted():
    with Interruption() as interruption:
        assert not interruption.asked
        signal.raise_signal(signal.SIGINT)
        assert interruption.asked


def test_a_second_signal_interrupts():
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert interruption.asked


def test_afterwards_signals_are_handled_as_before():
    before = signal.getsignal(signal.SIGINT)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_another_thread_is_left_alone():
    entered = []

    def enter():
        with Interruption() as interruption:
            entered.append(interruption.asked)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [False]
