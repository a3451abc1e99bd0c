"""Some of many, evenly spaced."""

from mmrkkd.evaluation.evenly import evenly


def test_places_go_from_the_first_to_the_last():
    assert evenly(10, 4) == [0, 3, 6, 9]
    # 3.5 is rounded to the even 4.
    assert evenly(8, 3) == [0, 4, 7]
    assert evenly(7, 1) == [0]


def test_a_short_list_gives_all_it_has():
    assert evenly(3, 5) == [0, 1, 2]
    assert evenly(0, 4) == []


def test_no_place_is_taken_twice():
    for length in range(1, 60):
        for count in range(1, length + 1):
            places = evenly(length, count)
            assert places == sorted(set(places))
            assert len(places) == count
