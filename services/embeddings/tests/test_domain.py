"""Rules for computing vectors."""

from dozen_embeddings.domain import CATEGORIES, FLAGGED_FROM, batches, content_key, moderate, sentences


def test_a_key_depends_on_model_account_and_text() -> None:
    keys = {
        content_key(*parts) for parts in [("m", "a", "t"), ("n", "a", "t"), ("m", "b", "t"), ("m", "a", "u")]
    }
    assert len(keys) == 4


def test_batches_hold_texts_of_like_length_and_keep_within_the_limit() -> None:
    lengths = [200, 3, 256, 5, 4, 250]
    grouped = list(batches(lengths, 512))
    assert grouped == [[1, 4, 3], [0, 5], [2]]
    assert sorted(position for batch in grouped for position in batch) == list(range(6))


def test_a_text_above_the_limit_is_a_batch_of_its_own() -> None:
    assert list(batches([900, 2], 512)) == [[1], [0]]
    assert list(batches([], 512)) == []


def test_a_text_is_cut_into_sentences_that_the_model_reads_whole() -> None:
    assert sentences("One. Two!\nThree\n\n") == ["One.", "Two!", "Three"]
    assert [len(piece.split()) for piece in sentences("word " * 130)] == [60, 60, 10]
    assert sentences(" \n ") == []


def test_a_text_is_flagged_for_its_worst_sentence() -> None:
    harmless = ({"hate": 0.1, "violence": 0.2}, 0.3)
    assert moderate([harmless, ({"hate": 0.1, "violence": 0.6}, 0.5)]).flagged == {"violence"}
    assert moderate([harmless, ({"hate": 0.7, "violence": 0.6}, 0.5)]).flagged == {"hate"}
    assert not moderate([harmless, ({"hate": 0.1, "violence": 0.6}, 0.7)]).flagged
    assert not moderate([({"hate": FLAGGED_FROM - 0.01, "violence": 0.0}, 0.0)]).flagged
    found = moderate([harmless, ({"hate": 0.5, "violence": 0.1}, 0.9)])
    assert (found.scores["hate"], found.scores["violence"], found.scores["sexual"]) == (0.5, 0.2, 0.0)
    assert set(moderate([]).scores) == set(CATEGORIES)
