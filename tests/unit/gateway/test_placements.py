"""What the index's aliases say of where a collection is kept."""

import pytest

from winnow_gateway.placements import Placement, read_placement, split_stored, stored_name


@pytest.mark.parametrize(
    ("aliases", "expected"),
    [
        ({}, Placement(name="notes", live="notes")),
        ({"notes~next": "notes~b"}, Placement(name="notes", live="notes", next="notes~b")),
        ({"notes~held": "notes~b"}, Placement(name="notes", live="notes", next="notes~b", held=True)),
        (
            {"notes~live": "notes~b", "notes~former": "notes"},
            Placement(name="notes", live="notes~b", former="notes"),
        ),
        (
            {"notes~next": "notes~b", "notes~journal": "notes~journal-1"},
            Placement(name="notes", live="notes", next="notes~b", journal="notes~journal-1"),
        ),
        ({"notes~switching": "notes~b"}, Placement(name="notes", live="notes", next="notes~b")),
        # A run that began while another one switched has named what answers, or a journal alone.
        (
            {"notes~live": "notes~b", "notes~next": "notes~b", "notes~journal": "notes~journal-1"},
            Placement(name="notes", live="notes~b"),
        ),
        ({"notes~live": "notes~b", "notes~held": "notes~b"}, Placement(name="notes", live="notes~b")),
        ({"notes~journal": "notes~journal-1"}, Placement(name="notes", live="notes")),
        ({"note~live": "note~b", "notes2~live": "notes2~b"}, Placement(name="notes", live="notes")),
    ],
)
def test_aliases_say_where_a_collection_is_kept(aliases: dict[str, str], expected: Placement) -> None:
    assert read_placement("notes", aliases) == expected


@pytest.mark.parametrize("revision", ["", "6d3c0a41f0e2"])
def test_stored_names_are_taken_apart_again(revision: str) -> None:
    assert split_stored(stored_name("notes.2-b_c", revision)) == ("notes.2-b_c", revision)


@pytest.mark.parametrize(
    ("placement", "order"),
    [
        (Placement(name="n", live="n"), ("n",)),
        (Placement(name="n", live="n~b", former="n"), ("n", "n~b")),
        (Placement(name="n", live="n~b", former="n", next="n~c"), ("n", "n~b", "n~c")),
        # Going back: the former is filled from the live one.
        (Placement(name="n", live="n~b", former="n", next="n"), ("n~b", "n")),
    ],
)
def test_what_is_filled_comes_after_what_it_is_filled_from(placement: Placement, order: tuple[str, ...]) -> None:
    assert placement.oldest_first == order
