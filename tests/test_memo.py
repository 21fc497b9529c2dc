"""What was said last is said again of the very same objects, and of no others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from numbaconv.memo import said_last, said_last_of_two


class Value:
    """Equal to all others of its kind, as frozen values may be."""

    def __eq__(self, other):
        return isinstance(other, Value)

    def __hash__(self):
        return 0


def test_one_object_is_asked_for_once_in_a_row():
    calls = []
    again = said_last(lambda asked: calls.append(asked) or len(calls))
    a, b = Value(), Value()
    assert [again(a), again(a), again(b), again(b), again(a)] == [1, 1, 2, 2, 3]
    assert all(x is y for x, y in zip(calls, (a, b, a), strict=True))


def test_both_objects_have_to_be_the_same():
    calls = []
    again = said_last_of_two(lambda *asked: calls.append(asked) or len(calls))
    a, b = Value(), Value()
    assert [again(a, b), again(a, b), again(a, a), again(b, a), again(b, a), again(a, b)] == [1, 1, 2, 3, 3, 4]


def test_nothing_that_raised_is_said_again():
    calls = []

    def refuse(asked):
        calls.append(asked)
        raise ValueError

    again = said_last(refuse)
    for _ in range(2):
        try:
            again(calls)
        except ValueError:
            continue
    assert len(calls) == 2


def test_threads_hear_what_they_asked_for():
    one, two = said_last(id), said_last_of_two(lambda a, b: (id(a), id(b)))

    def ask(own):
        other = object()
        return all(one(own) == id(own) and two(own, other) == (id(own), id(other)) for _ in range(5000))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, [object() for _ in range(8)]))
