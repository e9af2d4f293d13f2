from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from winnow_client.cli.reading.mapping import FieldMapping, MetadataColumn, document_of
from winnow_client.cli.reading.records import Place, Row, Unfit
from winnow_client.collections import MetadataType
from winnow_client.documents import Document


def made(fields: dict[str, Any], **mapping: Any) -> Document:
    return document_of(Row(Place("f", 1), fields), FieldMapping(**mapping))


def test_the_usual_fields_need_no_mapping() -> None:
    fields = {"id": "1", "title": "T", "text": "x", "metadata": {"year": 2000}, "other": 1}
    assert made(fields) == Document(id="1", title="T", text="x", metadata={"year": 2000})


def test_fields_can_be_mapped() -> None:
    fields = {"_id": 7, "heading": "T", "body": "x"}
    assert made(fields, id="_id", title="heading", text="body") == Document(id="7", title="T", text="x")


def test_metadata_is_the_object_and_the_named_fields_or_all_others() -> None:
    fields = {"id": "1", "text": "x", "metadata": {"a": 1}, "b": 2, "c": None}
    named = (MetadataColumn("b"), MetadataColumn("c"), MetadataColumn("absent"))
    assert made(fields, metadata=named).metadata == {"a": 1, "b": 2}
    assert made(fields, all_metadata=True).metadata == {"a": 1, "b": 2, "c": None}


def test_an_object_in_a_cell_of_csv_is_read() -> None:
    assert made({"id": "1", "text": "x", "metadata": '{"a": 1}'}).metadata == {"a": 1}
    assert made({"id": "1", "text": "x", "metadata": ""}).metadata == {}


@pytest.mark.parametrize(
    ("value", "type_", "converted"),
    [
        ("2001", MetadataType.INTEGER, 2001),
        (" 2001 ", MetadataType.INTEGER, 2001),
        (2001.0, MetadataType.INTEGER, 2001),
        ("2.5", MetadataType.FLOAT, 2.5),
        ("Yes", MetadataType.BOOL, True),
        (False, MetadataType.BOOL, False),
        (7, MetadataType.KEYWORD, "7"),
        ("a ", MetadataType.KEYWORD, "a "),
        ("2024-05-01", MetadataType.DATETIME, "2024-05-01T00:00:00+00:00"),
        (["1", "2"], MetadataType.INTEGER, [1, 2]),
    ],
)
def test_a_type_converts_what_is_a_string_in_csv(value: Any, type_: MetadataType, converted: Any) -> None:
    metadata = made({"id": "1", "text": "x", "v": value}, metadata=(MetadataColumn("v", type_),)).metadata
    assert metadata == {"v": converted}
    assert type(metadata["v"]) is type(converted)


def test_a_blank_cell_of_a_number_is_no_value() -> None:
    assert (
        made({"id": "1", "text": "x", "v": " "}, metadata=(MetadataColumn("v", MetadataType.INTEGER),)).metadata == {}
    )


def test_values_of_parquet_become_values_of_json() -> None:
    fields = {
        "id": "1",
        "text": "x",
        "metadata": {
            "at": datetime(2024, 5, 1, 12),  # noqa: DTZ001
            "zoned": datetime(2024, 5, 1, 12, tzinfo=UTC),
            "on": date(2024, 5, 1),
            "price": Decimal("1.50"),
            "count": Decimal("3"),
            "inner": [{"on": date(2024, 5, 1)}],
        },
    }
    assert made(fields).metadata == {
        "at": "2024-05-01T12:00:00+00:00",
        "zoned": "2024-05-01T12:00:00+00:00",
        "on": "2024-05-01T00:00:00+00:00",
        "price": 1.5,
        "count": 3,
        "inner": [{"on": "2024-05-01T00:00:00+00:00"}],
    }


@pytest.mark.parametrize(
    ("fields", "reason", "said"),
    [
        ({"text": "x"}, "MISSING_FIELD", "'id' is missing; it has 'text': name one with --id-field"),
        ({"_id": "1", "text": "x"}, "MISSING_FIELD", "--id-field _id"),
        ({"id": None, "text": "x"}, "MISSING_FIELD", "'id' is missing"),
        ({"id": True, "text": "x"}, "WRONG_TYPE", "'id' is true or false"),
        ({"id": 1.5, "text": "x"}, "WRONG_TYPE", "'id' is a number"),
        ({"id": "1", "body": "x"}, "MISSING_FIELD", "'text' is missing"),
        ({"id": "1", "text": ["x"]}, "WRONG_TYPE", "'text' is a list"),
        ({"id": "1", "text": "x", "title": 3}, "WRONG_TYPE", "'title' is a number"),
        ({"id": "1", "text": "x", "metadata": [1]}, "WRONG_TYPE", "'metadata' is a list"),
        ({"id": "1", "text": "x", "metadata": "no"}, "WRONG_TYPE", "no JSON object"),
        ({"id": "1", "text": "x", "year": "soon"}, "WRONG_TYPE", "'year' is 'soon', which is no integer"),
    ],
)
def test_a_row_that_does_not_fit_says_why(fields: dict[str, Any], reason: str, said: str) -> None:
    with pytest.raises(Unfit) as caught:
        made(fields, metadata=(MetadataColumn("year", MetadataType.INTEGER),))
    assert caught.value.reason == reason
    assert said in caught.value.message


def test_a_refused_row_is_known_by_its_id_if_it_has_one() -> None:
    with pytest.raises(Unfit) as caught:
        made({"id": "seven", "text": 7})
    assert caught.value.id == "seven"


def test_only_the_columns_that_are_needed_are_asked_for() -> None:
    mapping = FieldMapping(id="_id", metadata=(MetadataColumn("year"),))
    assert mapping.columns == {"_id", "title", "text", "metadata", "year"}
    assert FieldMapping(all_metadata=True).columns is None
