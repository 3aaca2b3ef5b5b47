"""Ids that callers give: one rule for numbers, text and UUIDs, and a near id for an unknown one."""

from __future__ import annotations

import decimal
import enum
import fractions
import uuid

import numpy as np
import pytest

from comet_rec.data import ids as ids_module
from comet_rec.data.ids import Ids
from comet_rec.data.nearest import nearest
from comet_rec.errors import UnknownIdError

Decimal = decimal.Decimal
ONE_UUID = uuid.UUID("00000000-0000-0000-0000-00000000abcd")


def texts(*values: str) -> Ids:
    array = np.empty(len(values), dtype=object)
    array[:] = sorted(values)
    return Ids("text", array)


INTS = Ids("int", np.array([-5, 0, 1, 7, 2**24, 2**53, 2**53 + 1]))
TEXTS = texts("1", "007", "2.0", "Alice", " bob", "carol   ", "9223372036854775809")
UUIDS = Ids("uuid", np.array([str(ONE_UUID)], dtype=object))


class Word(str, enum.Enum):  # noqa: UP042 - its str() is not its value
    ONE = "1"


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    "value",
    [
        1, np.int8(1), np.uint64(1), Number.ONE, 1.0, np.float16(1), np.float32(1), np.float64(1),
        "1", np.str_("1"), Word.ONE, Decimal(1), Decimal("1.00"), fractions.Fraction(2, 2),
        np.array(1), np.array("1"),
    ],
)  # fmt: skip
def test_what_stands_for_an_integer_exactly_is_that_id(value):
    stored, indices = INTS.lookup([value], "users")
    assert stored.dtype == np.int64
    assert (stored.tolist(), indices.tolist()) == ([1], [2])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("01", "no plain integer; did you mean 1"), (" 1", "did you mean 1"),
        ("1.0", "did you mean 1"), ("+1", "no plain integer"), ("1e0", "no plain integer"),
        ("1_0", "no plain integer"), ("１", "no plain integer"), ("-0", "no plain integer"),
        ("", "no plain integer"), pytest.param("9" * 5000, "no plain integer", id="long"),
        ("x", "such as -5, 0, 1"), pytest.param(10**5000, "too large", id="huge"),
        (True, "truth value"), (np.True_, "truth value"),
        (1.5, "no whole number"), (float("inf"), "no whole number"), (Decimal("1.5"), "no whole"),
        (Decimal("1E+999999999"), "too large"), (fractions.Fraction(1, 2), "no whole number"),
        (float("nan"), "missing value; leave it out"), (Decimal("NaN"), "missing"),
        (None, "missing"), (np.ma.masked, "missing"), (b"1", "bytes"), (1j, "complex"),
        ([1], "a list"), (ONE_UUID, "a UUID"), (np.datetime64("2020-01-01"), "a datetime64"),
    ],
)  # fmt: skip
def test_what_stands_for_no_integer_is_refused_with_the_reason(value, why):
    with pytest.raises(UnknownIdError, match=f"^users: .*{why}") as caught:
        INTS.lookup([0, value], "users")
    assert "(place 1)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert INTS.index([value]).tolist() == [-1]


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("float32", 24), ("float64", 53)])
def test_a_float_is_an_id_as_far_as_it_is_exact(dtype, bits):
    exact = np.array([2**bits], dtype=dtype)
    stored, _ = INTS.lookup(exact, "users")
    assert stored.tolist() == [2**bits]
    with pytest.raises(UnknownIdError, match=rf"float beyond 2\^{bits}"):
        INTS.lookup(exact + np.array([2], dtype=dtype), "users")


def test_an_integer_beyond_64_bits_is_an_unknown_id():
    stored, indices = INTS.lookup([1, 2**64, "18446744073709551616"], "users")
    assert stored.tolist() == [1, 2**64, 2**64]
    assert indices.tolist() == [2, -1, -1]


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("Alice", "Alice"), ("nobody", "nobody"), (1, "1"), (1.0, "1"), (Decimal(1), "1"),
        (np.uint64(2**63 + 1), "9223372036854775809"), (55, "55"), (ONE_UUID, str(ONE_UUID)),
        (" bob", " bob"), ("01", "01"),
    ],
)  # fmt: skip
def test_in_a_log_of_text_a_number_or_uuid_is_its_plain_text(value, stored):
    found, indices = TEXTS.lookup([value], "users")
    assert found.tolist() == [stored]
    known = stored in TEXTS.values.tolist()
    assert (indices[0] >= 0) == known
    assert TEXTS.external(indices).tolist() == [stored] if known else indices[0] == -1


@pytest.mark.parametrize(("value", "spelled"), [(7, "007"), (2, "2.0"), (7.0, "007")])
def test_a_number_that_the_log_spells_otherwise_is_refused(value, spelled):
    with pytest.raises(UnknownIdError, match=f"did you mean '{spelled}'"):
        TEXTS.lookup([value], "users")


@pytest.mark.parametrize("value", [True, 1.5, b"Alice", None, float("nan"), ["Alice"]])
def test_in_a_log_of_text_other_types_are_refused(value):
    with pytest.raises(UnknownIdError, match=r"^items: "):
        TEXTS.lookup([value], "items")


@pytest.mark.parametrize(
    "value", [ONE_UUID, str(ONE_UUID), str(ONE_UUID).upper(), ONE_UUID.hex, np.str_(ONE_UUID)]
)
def test_a_uuid_is_known_in_its_usual_forms(value):
    stored, indices = UUIDS.lookup([value], "users")
    assert indices.tolist() == [0]
    assert UUIDS.as_external(stored).tolist() == [ONE_UUID]


@pytest.mark.parametrize("value", ["1", 1, ONE_UUID.int, "0" * 31, "{" + ONE_UUID.hex + "}", b"x"])
def test_what_is_no_uuid_is_refused_in_a_log_of_uuids(value):
    with pytest.raises(UnknownIdError, match="the ids of the log are UUIDs, such as '00000000-"):
        UUIDS.lookup([value], "users")


@pytest.mark.parametrize(
    ("ids", "value", "wanted"),
    [
        (TEXTS, "alice", "Alice"), (TEXTS, "ALICE ", "Alice"), (TEXTS, "bob", " bob"),
        (TEXTS, "carol", "carol   "), (TEXTS, "7", "007"), (TEXTS, "2", "2.0"),
        (TEXTS, "'Alice'", "Alice"), (TEXTS, "Alise", "Alice"), (TEXTS, "zebra", None),
        (texts("Straße 5", "Weg 9"), "strasse  5", "Straße 5"),
        (INTS, "007", 7), (INTS, "7.0", 7), (INTS, " 7 ", 7), (INTS, "x", None), (INTS, 8, None),
        (texts(str(ONE_UUID)), ONE_UUID.hex.upper(), str(ONE_UUID)),
        pytest.param(TEXTS, "x" * 10**6, None, id="long"),
        (texts(), "x", None),
    ],
)  # fmt: skip
def test_the_nearest_id_differs_in_blanks_case_zeros_or_a_letter(ids, value, wanted):
    assert nearest(ids, value) == wanted


def test_a_near_id_is_found_among_many_without_looking_at_all(monkeypatch):
    many = np.empty(300_000, dtype=object)
    many[:] = [f"user-{number:07}" for number in range(300_000)]
    ids = Ids("text", many)
    looked_at: list[int] = []
    matches = ids_module.nearest.__globals__["difflib"].get_close_matches

    def counted(word, possibilities, **named):
        looked_at.append(len(possibilities))
        return matches(word, possibilities, **named)

    monkeypatch.setattr("comet_rec.data.nearest.difflib.get_close_matches", counted)
    assert nearest(ids, "user-0012345x") == "user-0012345"
    assert looked_at[0] < 1_000
    assert ids.index(["user-0299999", "nobody"]).tolist() == [299_999, -1]
    assert "_position" not in vars(ids)  # the table of all texts was not made for two


def test_few_and_many_texts_are_found_alike(monkeypatch):
    ids = texts(*(f"{number % 7}-{number}" for number in range(200)))
    asked = [*ids.values.tolist()[::3], "x", "", "6-201"]
    few = ids.index(asked)
    monkeypatch.setattr(ids_module, "FEW", 0)
    assert ids.index(asked).tolist() == few.tolist()
    assert few[-3:].tolist() == [-1, -1, -1]


def test_the_callers_decimal_context_changes_no_id():
    ids = Ids("int", np.array([123_456_789]))
    with decimal.localcontext() as context:
        context.prec = 2
        context.traps[decimal.Inexact] = True
        assert ids.index([Decimal(123_456_789)]).tolist() == [0]
