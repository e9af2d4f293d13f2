"""From texts to tensors and back, knowing nothing of gRPC.

`opening` turns settings into a model and what computes it; `bi_encoder` and `cross_encoder` are what a service holds of
it. Below them `tokenization` makes token sequences, `scheduling` brings them in batches to the lanes of an engine of
`engines`. `models` finds, checks, loads and names a model, and keeps what was made of it; `reference` and `parity` say
how close an engine comes to the model's own library. Heavy libraries are imported when they are needed, not before.
"""
