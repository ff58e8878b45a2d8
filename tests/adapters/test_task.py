"""The steps of a task on Picto: where bases come from, and that fits see the right splits."""

import numpy as np
import pytest
import torch
from pictures import write_folder
from tiny import fittings, tiny_clip

import residual
from residual.adapters import FitSettings, fitting
from residual.data import dataset_names, load_dataset
from residual.errors import ResidualError
from residual.store.encode import encode_dataset
from residual.workflows.run import run_tasks
from residual.workflows.task import adapt, encode_task, reference_from
from residual.workflows.train import train_on


@pytest.fixture(scope="module")
def picto():
    return residual.load_encoder("picto", device="cpu")


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    return f"folder:{write_folder(tmp_path_factory.mktemp('task') / 'digits')}"


def test_the_sum_of_units_is_pictos_output(picto):
    pixels = picto.pixels([load_dataset(name, "test")[0][0] for name in dataset_names()])
    split = residual.decompose(picto, pixels)
    assert split.contributions.shape == (10, 1, 1 + 8 + 48, 192)
    miss = (split.contributions.sum(2) - split.output).norm() / split.output.norm()
    assert miss <= 1e-5


def test_mixed_bases_come_from_train_pictures_of_every_dataset(picto):
    told = []
    reference = reference_from(picto, per_dataset=3, progress=lambda *step: told.append(step))
    assert reference.skipped == ()
    assert len(reference.heads) == 48
    assert reference.output.components.shape[1] == 192
    bases = reference.bases
    assert bases.origin.samples == 3 * len(dataset_names())
    assert bases.origin.datasets == ("mixed/train",)
    stages = ["encode for bases", "fit bases", "fit bases of the output"]
    assert list(dict.fromkeys(stage for stage, *_ in told)) == stages
    for stage in stages:
        steps = [step for step in told if step[0] == stage]
        assert steps == sorted(steps)
        assert steps[-1] == (stage, 30, 30)


def test_bases_from_a_file_are_those_that_were_saved(picto, name, tmp_path):
    bases = reference_from(picto, name).bases
    bases.save(tmp_path / "bases.safetensors")
    again = reference_from(picto, str(tmp_path / "bases.safetensors")).bases
    assert torch.equal(torch.cat(bases.components), torch.cat(again.components))


def test_bases_of_another_encoder_are_refused(picto, name, tmp_path):
    other = residual.wrap_encoder(tiny_clip())
    store = encode_dataset(other, load_dataset(name, "train"))
    residual.fit_bases(store, ("mlp", "head")).save(tmp_path / "other.safetensors")
    with pytest.raises(ResidualError, match="are of another encoder"):
        reference_from(picto, str(tmp_path / "other.safetensors"))


def test_bases_of_heads_alone_are_refused(picto, name, tmp_path):
    store = encode_dataset(picto, load_dataset(name, "train"))
    residual.fit_bases(store).save(tmp_path / "heads.safetensors")
    with pytest.raises(ResidualError, match="all 56 heads and MLPs of picto; 8 are missing"):
        reference_from(picto, str(tmp_path / "heads.safetensors"))


def test_pictures_left_out_of_the_bases_are_listed(picto, name, tmp_path):
    root = write_folder(tmp_path / "broken")
    broken = load_dataset(f"folder:{root}", "train").sample_ids[5]
    (root / broken).write_bytes(b"")
    (run,) = run_tasks(picto, [name], fittings(epochs=1), bases=f"folder:{root}", on_error="skip")
    assert run.summary["skipped"] == [broken]


def test_an_encoder_without_text_is_classified_by_class_means(name, tmp_path):
    module = tiny_clip()
    encoder = residual.wrap_encoder(module)
    assert not encoder.has_text
    task = encode_task(encoder, name)
    train = task.stores["train"]
    output = torch.nn.functional.normalize(train.output().double(), dim=1)
    means = torch.stack([output[torch.from_numpy(train.labels) == c].mean(0) for c in range(3)])
    test = torch.nn.functional.normalize(task.stores["test"].output().double(), dim=1)
    guess = (test @ torch.nn.functional.normalize(means, dim=1).T).argmax(1).numpy()
    assert task.zero_shot == pytest.approx(np.mean(guess == task.stores["test"].labels))


def test_classes_that_do_not_work_are_refused_before_anything_is_encoded(picto, name, monkeypatch):
    wrong = {}

    def loaded(*words, **how):
        dataset = load_dataset(*words, **how)
        vars(dataset).update(wrong)
        return dataset

    monkeypatch.setattr("residual.workflows.task.load_dataset", loaded)
    monkeypatch.setattr("residual.workflows.task.encode_dataset", lambda *_, **__: pytest.fail("encoded"))
    textless = residual.wrap_encoder(tiny_clip())
    for encoder in (picto, textless):
        wrong.update(class_names=("a", "b", " "))
        with pytest.raises(ResidualError, match="can't be empty: class 2 of 3 is"):
            list(run_tasks(encoder, [name], fittings(epochs=1), bases=name))
        with pytest.raises(ResidualError, match="can't be empty: class 2 of 3 is"):
            train_on(encoder, name, "residual", fitting("residual"), bases=name)
        with pytest.raises(ResidualError, match="can't be empty: class 2 of 3 is"):
            encode_task(encoder, name)
    wrong.update(class_names=("a", "b", "c"), templates=("a photo",))
    with pytest.raises(ResidualError, match=r"need {} where .* isn't in \['a photo'\]"):
        list(run_tasks(picto, [name], fittings(epochs=1), bases=name))


def test_unknown_method(picto, name):
    task = encode_task(picto, name)
    with pytest.raises(ResidualError, match="Unknown method 'lora'"):
        adapt(task, reference_from(picto, name), "lora", [FitSettings()])


def test_test_pictures_do_not_touch_the_weights(picto, name):
    """Wrong labels on test change the accuracy and nothing else; wrong labels on train change the weights."""
    bases = reference_from(picto, name)
    task = encode_task(picto, name)
    fitted = adapt(task, bases, "residual", [FitSettings(epochs=3)])[0]
    task.stores["test"].labels[:] = (task.stores["test"].labels + 1) % 3
    again = adapt(task, bases, "residual", [FitSettings(epochs=3)])[0]
    assert torch.equal(fitted.adapter.lambdas, again.adapter.lambdas)
    assert fitted.accuracy + again.accuracy <= 1
    task.stores["train"].labels[:] = (task.stores["train"].labels + 1) % 3
    misled = adapt(task, bases, "residual", [FitSettings(epochs=3)])[0]
    assert not torch.equal(fitted.adapter.lambdas, misled.adapter.lambdas)


def test_a_run_gives_one_summary_a_dataset(picto, name, tmp_path):
    other = f"folder:{write_folder(tmp_path / 'digits', classes=('3', '5'))}"
    runs = list(run_tasks(picto, [name, other], fittings(epochs=2), bases=name))
    assert [run.summary["dataset"] for run in runs] == ["folder:digits"] * 2  # without where they are
    for run in runs:
        star = run.adapted["residual_star"][0].adapter
        assert set(star.units) == set(range(9, 57))
        assert (star.others, star.tail) == ("zero", "drop")
        full = run.adapted["residual"][0].adapter
        assert set(full.units) == set(range(1, 57))
        assert full.others == "keep"
        assert run.summary["parameters"]["residual"] == sum(full.bases.ranks)
