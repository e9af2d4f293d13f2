"""The messages in protos/README.md are ones that the contracts know."""

from __future__ import annotations

import json
import re
from pathlib import Path

from google.protobuf import descriptor_pool, json_format, message_factory

from winnow.search.v1 import search_service_pb2

PAGE = (Path(__file__).parents[3] / "protos" / "README.md").read_text(encoding="utf-8")
CALL = re.compile(r"-d '([^']+)' \\\n +\S+ ([\w.]+)/(\w+)")


def test_every_message_of_the_page_is_one_that_its_method_takes() -> None:
    pool = descriptor_pool.Default()
    assert search_service_pb2.DESCRIPTOR.package == "winnow.search.v1"
    calls = CALL.findall(PAGE)
    assert {method for _, _, method in calls} == {"CreateCollection", "IngestDocuments", "Search"}
    for text, service, method in calls:
        request = message_factory.GetMessageClass(pool.FindServiceByName(service).FindMethodByName(method).input_type)
        rest = text.strip()
        while rest:
            message, end = json.JSONDecoder().raw_decode(rest)
            json_format.ParseDict(message, request())
            rest = rest[end:].strip()
