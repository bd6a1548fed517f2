"""Rules for computing vectors."""

from dozen_embeddings.domain import batches, content_key


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
