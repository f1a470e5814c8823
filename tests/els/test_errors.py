from els.errors import InputError, reason


def test_a_reason_is_one_short_line() -> None:
    error = RuntimeError("first line\n   second   line " + "x" * 500)
    assert reason(error).startswith("first line second line xxx")
    assert len(reason(error)) == 160
    assert len(reason(error, length=20)) == 20
    assert reason(KeyError("name"), named=True) == "KeyError: 'name'"


def test_bad_input_is_a_value_error() -> None:
    assert issubclass(InputError, ValueError)
