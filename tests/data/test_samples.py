"""A random sample of a dataset: the same every time, in the dataset's order, no image read."""

from __future__ import annotations

from tiny import TinyImages

from residual.data import load_dataset


def test_a_sample_is_the_same_every_time_and_in_order():
    dataset = TinyImages(40)
    for count in (1, 10, 40):
        part, again = dataset.sample(count), TinyImages(40).sample(count)
        places = [dataset.sample_ids.index(name) for name in part.sample_ids]
        assert part.sample_ids == again.sample_ids
        assert places == sorted(set(places))
        assert len(part) == len(places) == count
        assert (part.labels == dataset.labels[places]).all()
        for number, place in enumerate(places[:3]):
            assert part[number][0].tobytes() == dataset[place][0].tobytes()
        own = (part.name, part.split, part.class_names)
        assert own == (dataset.name, dataset.split, dataset.class_names)
    for count in (40, 41, 10_000):
        assert dataset.sample(count).sample_ids == dataset.sample_ids


def test_samples_are_of_all_of_a_dataset_and_follow_the_seed():
    dataset = TinyImages(400)
    first, other = dataset.sample(40), dataset.sample(40, seed=1)
    assert set(first.sample_ids) != set(other.sample_ids)
    places = [dataset.sample_ids.index(name) for name in first.sample_ids]
    assert min(places) < 100
    assert max(places) > 300
    assert set(dataset.sample(39).sample_ids) < set(first.sample_ids)
    assert len(TinyImages(40, broken=(3,)).sample(40)) == 40  # no image is read
    shipped = load_dataset("letters", "val")
    part = shipped.sample(50)
    assert len(part) == 50
    assert set(part.sample_ids) < set(shipped.sample_ids)
    assert len(set(part.labels.tolist())) > 10
