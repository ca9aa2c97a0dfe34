"""The global order of rows: a function of (seed, stage, step), whatever reads it and however often it is stopped."""

import itertools
import json

import jax
import numpy as np
import pytest

from t5x_like.data import rendering
from t5x_like.data.pipeline import Pipeline
from t5x_like.objectives.table import OBJECTIVES
from tests.data.prepared_folder import counting_documents, write_mixture, write_task

LENGTHS = {"inputs": 64, "targets": 32}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("prepared")
    write_task(path, "spans", counting_documents(60), fields={"mean_noise_span_length": 2.0})
    write_task(path, "prefixes", counting_documents(90, low=5, high=60, seed=1), objective="PrefixLM")
    write_task(path, "held_out", counting_documents(11, seed=2), split="validation", objective="PrefixLM")
    write_task(path, "text", counting_documents(40, seed=3), objective="CausalLM")
    write_mixture(path, "mixture", {"spans": 2.0, "prefixes": 1.0})
    return path


def rows(directory, mixture="mixture", **changes):
    settings = {"lengths": LENGTHS, "batch_size": 16, "rows_per_block": 8, "num_streams": 8} | changes
    return Pipeline(directory=str(directory), mixture=mixture, **settings).train_rows(OBJECTIVES)


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def as_hosts(dataset, count):
    size = dataset.pipeline.batch_size // count
    return [iter(dataset.of_host(host * size, (host + 1) * size)) for host in range(count)]


def join(parts):
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_share_out_the_same_global_batches(directory, hosts):
    dataset = rows(directory)
    whole, shared = iter(dataset), as_hosts(dataset, hosts)
    for _ in range(12):
        assert_equal(next(whole), join([next(host) for host in shared]))


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 4), (4, 1), (2, 16), (16, 2)])
def test_a_run_goes_on_bit_for_bit_at_another_host_count(directory, before, after):
    dataset, stop = rows(directory), 1 + before * 3 + after
    whole = take(iter(dataset), stop + 8)
    first = as_hosts(dataset, before)
    for step in range(stop):
        assert_equal(whole[step], join([next(host) for host in first]))
    saved = {}
    for host in first:
        saved |= json.loads(json.dumps(host.get_state()))["streams"]
    second = as_hosts(dataset, after)
    for host in second:
        host.set_state({"streams": saved})
    for step in range(stop, stop + 8):
        assert_equal(whole[step], join([next(host) for host in second]))


def test_prefetching_keeps_the_order_and_the_position(directory):
    dataset = rows(directory)
    whole, ahead = iter(dataset), dataset.prefetched()
    for _ in range(9):
        assert_equal(next(whole), next(ahead))
    assert json.loads(json.dumps(ahead.get_state())) == json.loads(json.dumps(whole.get_state()))
    resumed = dataset.prefetched()
    resumed.set_state(ahead.get_state())
    assert_equal(next(whole), next(resumed))
    ahead.close()
    resumed.close()


def test_the_position_is_a_few_kilobytes_and_does_not_grow(directory):
    iterator = iter(rows(directory, batch_size=64, num_streams=64))
    sizes = []
    for _ in range(3):
        take(iterator, 30)
        sizes.append(len(json.dumps(iterator.get_state())))
    assert max(sizes) < 4096


def test_another_seed_or_stage_is_another_order(directory):
    first = next(iter(rows(directory)))
    assert not np.array_equal(first.tokens, next(iter(rows(directory, seed=1))).tokens)
    pipeline = rows(directory).pipeline
    assert not np.array_equal(first.tokens, next(iter(pipeline.train_rows(OBJECTIVES, stage=1))).tokens)


def test_every_epoch_has_every_token_once_in_a_new_order(tmp_path):
    """Ten documents of 15 distinct tokens and EOS are twenty full rows of 8: five blocks of one stream, ten batches."""
    write_task(tmp_path, "text", [np.arange(3 + 15 * i, 18 + 15 * i) for i in range(10)], objective="CausalLM")
    lengths = {"targets": 8}
    blocks = {"batch_size": 2, "rows_per_block": 4, "num_streams": 1}
    iterator = iter(rows(tmp_path, "text", lengths=lengths, render=rendering.decoder_only, **blocks))
    epochs = [np.concatenate([batch.targets.ravel() for batch in take(iterator, 10)]) for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == [1] * 10 + list(range(3, 153))
    assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[1], epochs[2])


def test_tasks_are_drawn_at_their_rates(directory):
    """Inputs of the spans task hold sentinels, those of the prefix task do not: 2 to 1 examples."""
    iterator, spans, others = iter(rows(directory)), 0, 0
    for batch in take(iterator, 60):
        encoder = batch.encoder
        for row in range(16):
            for segment in range(1, encoder.segment_ids[row].max() + 1):
                has_sentinel = (encoder.tokens[row][encoder.segment_ids[row] == segment] >= 259).any()
                spans, others = spans + has_sentinel, others + (not has_sentinel)
    assert abs(spans / (spans + others) - 2 / 3) < 0.02


def test_rows_are_laid_out_without_holes(directory):
    for batch in take(iter(rows(directory)), 5):
        for side in (batch, batch.encoder):
            real = side.segment_ids > 0
            assert (np.diff(real.astype(int), axis=1) <= 0).all()  # padding stands at the end only
            assert (side.tokens[~real] == 0).all()
            starts = np.diff(side.segment_ids, axis=1, prepend=0) != 0
            assert (side.positions[..., 0][starts & real] == 0).all()
        assert ((batch.loss_weights > 0) == (batch.segment_ids > 0)).all()
        assert (batch.segment_ids.max(axis=1) == batch.encoder.segment_ids.max(axis=1)).all()


def test_held_out_rows_hold_every_document_once_and_are_always_the_same(directory):
    pipeline = rows(directory).pipeline
    task = Pipeline(directory=str(directory), mixture="held_out", lengths=LENGTHS, batch_size=4).tasks()[0][0]
    first, second = (list(pipeline.held_out_rows(task, "validation", OBJECTIVES)) for _ in range(2))
    assert_equal(first, second)
    assert {len(batch.tokens) for batch in first} == {16}
    tokens = sum(int((side.segment_ids > 0).sum()) for batch in first for side in (batch, batch.encoder))
    segments = sum(int(batch.segment_ids.max(axis=1).sum()) for batch in first)
    assert tokens - 2 * segments == task.manifest["splits"]["validation"]["tokens"]["targets"]


def test_a_token_of_id_zero_is_not_padding(tmp_path):
    write_task(tmp_path, "text", [np.array([5, 0, 6, 0])], objective="CausalLM")
    batch = next(iter(rows(tmp_path, "text", lengths={"targets": 8}, render=rendering.decoder_only, batch_size=1)))
    assert batch.targets[0].tolist() == [5, 0, 6, 0, 1, 0, 0, 0]
    assert batch.loss_weights[0].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]


def test_too_few_sentinels_stop_the_run_before_it_begins(tmp_path):
    write_task(tmp_path, "spans", counting_documents(3), fields={"noise_density": 0.5}, extra_ids=5)
    with pytest.raises(ValueError, match="spans, but the vocabulary has 5 sentinels"):
        rows(tmp_path, "spans", lengths={"inputs": 64, "targets": 64})


def test_short_targets_are_refused_with_the_length_to_set(directory):
    with pytest.raises(ValueError, match="set targets to 114"):
        rows(directory, "spans", lengths={"inputs": 512, "targets": 113}, objective=OBJECTIVES["SpanCorruption"]())


def test_an_unknown_objective_is_not_looked_up_elsewhere(tmp_path):
    write_task(tmp_path, "odd", counting_documents(3), objective="os.system")
    with pytest.raises(ValueError, match=r"wants objective 'os.system', known are"):
        rows(tmp_path, "odd")


def test_a_misspelt_task_is_answered_with_the_nearest(directory):
    with pytest.raises(FileNotFoundError, match="did you mean spans"):
        rows(directory, "span")


@pytest.mark.parametrize("damage", ["truncate", "remove", "flip"])
def test_a_damaged_shard_is_named(tmp_path, damage):
    folder = write_task(tmp_path, "text", counting_documents(50), objective="CausalLM")
    shard = folder / "train-00001-of-00002.array_record"
    data = bytearray(shard.read_bytes())
    if damage == "remove":
        shard.unlink()
    else:
        data[len(data) // 2] ^= 255
        shard.write_bytes(data[: len(data) // 2] if damage == "truncate" else data)
    with pytest.raises(ValueError, match=r"train-00001-of-00002\.array_record"):
        iterator = iter(rows(tmp_path, "text", lengths={"targets": 64}, render=rendering.decoder_only))
        take(iterator, 50)


def test_names_may_not_lead_out_of_the_folder(directory):
    with pytest.raises(ValueError, match="use letters"):
        rows(directory, "../spans")


def test_tasks_whose_examples_have_different_fields_share_rows(tmp_path):
    """Masked tokens alone and pairs with labels: every batch has every field, 0 where a task does not have it."""
    write_task(tmp_path, "masked", counting_documents(60), objective="MaskedLM")
    fields = {"sentence_ends": list(range(40, 60))}
    write_task(tmp_path, "paired", counting_documents(60, seed=1), objective="NextSentence", fields=fields)
    write_mixture(tmp_path, "both", {"masked": 5.0, "paired": 1.0})
    data = Pipeline(
        directory=str(tmp_path),
        mixture="both",
        lengths={"targets": 64},
        batch_size=4,
        rows_per_block=4,
        render=rendering.in_place,
    )
    batches = list(itertools.islice(data.train_rows(OBJECTIVES), 40))
    assert all(set(batch.aux) == {"pair"} and batch.type_ids is not None for batch in batches)
    with_pairs = [int((batch.aux["pair"] > 0).sum()) for batch in batches]
    assert 0 < sum(with_pairs) < sum(int((batch.positions[..., 0] == 0).sum()) for batch in batches)
    alone = [batch for batch in batches if not (batch.aux["pair"] > 0).any()]
    assert alone and not any(batch.type_ids.any() for batch in alone)


def test_one_example_a_row(tmp_path):
    write_task(tmp_path, "masked", counting_documents(60, low=5, high=20), objective="MaskedLM")
    data = Pipeline(
        directory=str(tmp_path),
        mixture="masked",
        lengths={"targets": 64},
        batch_size=4,
        rows_per_block=4,
        render=rendering.in_place,
        examples_per_row=1,
    )
    batches = list(itertools.islice(data.train_rows(OBJECTIVES), 20))
    assert {int(batch.segment_ids.max()) for batch in batches} == {1}
    assert all((batch.segment_ids[:, 0] == 1).all() for batch in batches)


def test_next_tokens_and_masked_tokens_are_mixed_on_one_stack(tmp_path):
    """One task in three is predicted left to right, the others in place: told apart by attn_order, in one batch."""
    write_task(tmp_path, "causal", counting_documents(60), objective="CausalLM")
    write_task(tmp_path, "masked", counting_documents(60, seed=1), objective="MaskedLM")
    write_mixture(tmp_path, "both", {"causal": 1.0, "masked": 2.0})
    settings = {"lengths": {"targets": 64}, "batch_size": 6, "rows_per_block": 12, "render": rendering.decoder_only}
    data = Pipeline(directory=str(tmp_path), mixture="both", **settings)
    shares, kinds = [], set()
    for batch in itertools.islice(data.train_rows(OBJECTIVES), 60):
        for row in range(6):
            for segment in range(1, int(batch.segment_ids[row].max()) + 1):
                here = batch.segment_ids[row] == segment
                is_causal = bool(batch.attn_order[row][here].any())
                if here.sum() > 8:
                    shares.append(is_causal)
                    kinds.add((is_causal, bool((batch.loss_weights[row][here] == 1).all())))
    assert kinds == {(True, True), (False, False)}
    assert 0.25 < np.mean(shares) < 0.42
