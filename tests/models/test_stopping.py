import signal
from types import SimpleNamespace

import pytest

from els.models.stopping import SIGNALS, Stopping

ALONE = SimpleNamespace(is_global_zero=True, world_size=1)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_before_the_first_step_a_signal_stops_at_once(number: signal.Signals) -> None:
    before, stopping = handlers(), Stopping()
    with pytest.raises(SystemExit) as stop, stopping.listening():
        signal.raise_signal(number)
    assert stop.value.code == 128 + number
    assert handlers() == before


def test_while_training_the_first_is_remembered_and_the_second_stops(
    capsys: pytest.CaptureFixture,
) -> None:
    stopping = Stopping()
    with stopping.listening():
        stopping.on_train_start(ALONE, None)
        assert not stopping.wanted(ALONE)
        signal.raise_signal(signal.SIGINT)
        assert stopping.wanted(ALONE)
        assert "stopping after this step" in capsys.readouterr().out
        with pytest.raises(SystemExit) as stop:
            signal.raise_signal(signal.SIGTERM)
    assert stop.value.code == 128 + signal.SIGINT  # the one that came first


def test_handlers_that_others_put_in_between_are_replaced() -> None:
    stopping = Stopping()
    with stopping.listening():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stopping.on_train_start(ALONE, None)
        signal.raise_signal(signal.SIGTERM)
    assert stopping.signum == signal.SIGTERM


def test_a_process_that_is_not_the_first_says_nothing_and_ends_well(
    capsys: pytest.CaptureFixture,
) -> None:
    """Lightning ends the first process when another fails."""
    stopping = Stopping()
    stopping.setup(SimpleNamespace(is_global_zero=False), None, "fit")
    with stopping.listening():
        stopping.on_train_start(ALONE, None)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(SystemExit) as stop:
            stopping.stop()
    assert stop.value.code == 0
    assert not capsys.readouterr().out
