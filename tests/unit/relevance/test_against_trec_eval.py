"""The measures give what trec_eval gives, by `pytrec_eval`, on the same run."""

from __future__ import annotations

import random

import pytest
import pytrec_eval

from winnow_relevance import average_precision, ndcg, precision, recall, reciprocal_rank

CUTS = (1, 3, 10, 100)
NAMED = {"ndcg_cut": ndcg, "recall": recall, "P": precision, "map_cut": average_precision}
Run = dict[str, dict[str, float]]


def a_run(seed: int, *, tied: bool) -> tuple[dict[str, dict[str, int]], Run]:
    """Judgements of some queries, graded from -1 to 3, and scores of what was found for each."""
    chance = random.Random(seed)
    documents = [f"d{number}" for number in range(300)]
    judged, run = {}, {}
    for number in range(40):
        query = f"q{number}"
        judged[query] = {id_: chance.randint(-1, 3) for id_ in chance.sample(documents, chance.randint(1, 30))}
        found = chance.sample(documents, chance.randint(1, 150))
        run[query] = {id_: float(chance.randint(0, 9)) if tied else chance.random() for id_ in found}
    return judged, run


def by_trec_eval(judged: dict[str, dict[str, int]], run: Run) -> dict[str, dict[str, float]]:
    cuts = ",".join(map(str, CUTS))
    names = {f"{name}.{cuts}" for name in NAMED} | {"map", "recip_rank"}
    found: dict[str, dict[str, float]] = pytrec_eval.RelevanceEvaluator(judged, names).evaluate(run)
    return found


def assert_alike(judged: dict[str, dict[str, int]], run: Run, rankings: dict[str, list[str]]) -> None:
    theirs = by_trec_eval(judged, run)
    assert len(theirs) == len(judged)
    for query, ranking in rankings.items():
        grades = {id_: float(grade) for id_, grade in judged[query].items()}
        ours = {f"{name}_{k}": measure(ranking, grades, k=k) for name, measure in NAMED.items() for k in CUTS}
        ours["map"] = average_precision(ranking, grades, k=len(ranking))
        ours["recip_rank"] = reciprocal_rank(ranking, grades, k=len(ranking))
        assert ours == pytest.approx({name: theirs[query][name] for name in ours}, abs=1e-6), query


@pytest.mark.parametrize("seed", range(5))
def test_random_runs_without_ties_measure_the_same(seed: int) -> None:
    judged, run = a_run(seed, tied=False)
    assert_alike(judged, run, {query: sorted(found, key=lambda id_: -found[id_]) for query, found in run.items()})


@pytest.mark.parametrize("seed", range(5))
def test_with_ties_they_measure_the_same_if_the_greater_id_goes_first_as_in_trec_eval(seed: int) -> None:
    judged, run = a_run(seed, tied=True)
    rankings = {
        query: sorted(found, key=lambda id_, found=found: (found[id_], id_), reverse=True)  # type: ignore[misc]
        for query, found in run.items()
    }
    assert_alike(judged, run, rankings)
