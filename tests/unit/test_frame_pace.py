from consumer.frame_pace import FramePace

EASY = {"took_s": 0.0001, "period_s": 0.01, "held_back_bytes": 0}
HARD = {"took_s": 0.006, "period_s": 0.01, "held_back_bytes": 0}
STUCK = {"took_s": 0.0001, "period_s": 0.01, "held_back_bytes": 1024 * 1024}


def after(pace: FramePace, strain: dict[str, float], passes: int) -> float:
    for _ in range(passes):
        pace.after_pass(**strain)
    return pace.interval_s


def test_nothing_is_gathered_while_sending_keeps_up() -> None:
    assert after(FramePace(0.0), EASY, 100) == 0.0


def test_passes_that_take_much_of_the_time_move_apart_up_to_20_ms() -> None:
    pace = FramePace(0.0)

    assert 0 < after(pace, HARD, 1) < 0.02
    assert after(pace, HARD, 20) == 0.02


def test_first_tokens_right_behind_another_pass_are_no_strain() -> None:
    assert after(FramePace(0.0), {"took_s": 0.0005, "period_s": 0.0006, "held_back_bytes": 0}, 20) == 0.0


def test_a_connection_that_holds_back_moves_them_apart_too() -> None:
    assert after(FramePace(0.0), STUCK, 20) == 0.02


def test_they_close_up_again_when_the_strain_is_gone() -> None:
    pace = FramePace(0.0)
    after(pace, HARD, 20)

    assert after(pace, EASY, 20) == 0.0


def test_a_pace_that_is_just_right_is_kept() -> None:
    pace = FramePace(0.0)
    wide = after(pace, HARD, 2)

    assert after(pace, {"took_s": 0.002, "period_s": 0.01, "held_back_bytes": 0}, 20) == wide


def test_the_operators_own_interval_is_never_undercut() -> None:
    pace = FramePace(0.05)

    assert after(pace, EASY, 20) == 0.05
    assert after(pace, HARD, 20) == 0.05
