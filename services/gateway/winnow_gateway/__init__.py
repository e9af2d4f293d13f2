"""The front door: plans a search, retrieves, reranks, ingests and administers.

Logic (`planning`, `ordering`, `searching`, `ingesting`, `catalog`) works on the values in `documents`, `filters` and
`collections` and speaks through `ports`; `servicer` and `conversion` know Winnow's search contract, `embedder_client`
and `reranker_client` those of the model services, `qdrant_index` and `qdrant_filters` Qdrant's client.
"""
