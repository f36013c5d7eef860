"""The ways to fine-tune that a study compares, on a tiny model."""

from collections import Counter

import datasets
import pytest
import torch
from datasets import Dataset
from small_study import MEASUREMENT, small_data, training
from tiny import save_tiny_checkpoint, tiny_gpt2

from ewc_hf.rehearsal import answers_of, kl_divergence
from ewc_hf.study import parse_settings, run_study
from ewc_hf.study.training import Memory, _LearningWithoutForgetting, _mixed, fine_tune

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's
WAYS = [
    "plain:interpolated", "rehearsal:1", "old_answers:1", "lwf:1", "replay:0.5", "self_replay:0.5", "dft", "eaft",
    "lora:2:learning_rate=1e-1,1e-2", "fisher:decoupled:1:rehearsal_weight=1",
    "rehearsal:1:lora_rank=2:learning_rate=1e-1", "fisher:loss:1:lora_rank=2:learning_rate=1e-1",
    "fisher:decoupled:3", "fisher:decoupled:3:importance_from=own",
]  # fmt: skip


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ways")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        model, settings = save_tiny_checkpoint(folder / "model"), parse_settings(WAYS)
        yield run_study(model, small_data(), settings, [0, 1], training(folder / "study"), MEASUREMENT)


def test_each_way_gives_a_model_of_its_own(records):
    trained = [record for record in records if record.fraction == 1 and record.seed == 0]
    assert len({record.retention_nll for record in trained}) == len(trained) == 15
    assert [record.name for record in trained if record.needs_old_text] == [
        "old_answers-1", "replay-0.5", "fisher-decoupled-1-rehearsal_weight=1",
        "fisher-loss-1-lora_rank=2-learning_rate=1e-1", "fisher-decoupled-3",
    ]  # fmt: skip
    assert all(record.seconds_a_step > 0 for record in trained)


def test_a_study_of_adapters_trains_them_in_plain_runs_too(records, tmp_path):
    model, options = save_tiny_checkpoint(tmp_path / "model"), {"learning_rate": 1e-1}
    study = [model, small_data(), parse_settings(["rehearsal:1"]), [0], training(tmp_path / "study", **options)]
    _, plain, rehearsed = run_study(*study, MEASUREMENT, lora_rank=2)
    nll = {record.name: record.retention_nll for record in records if record.seed == 0 and record.fraction == 1}
    assert plain.retention_nll == nll["lora-2-learning_rate=1e-1"]
    assert rehearsed.retention_nll == nll["rehearsal-1-lora_rank=2-learning_rate=1e-1"]
    assert "# Fine-tuning without forgetting, by LoRA of rank 2" in (tmp_path / "study" / "report.md").read_text()
    with pytest.raises(ValueError, match="got another lora_rank; choose another output_dir"):
        run_study(*study, MEASUREMENT)
    with pytest.raises(
        ValueError, match="adapters are held by the coupling 'loss' only: leave fisher-decoupled-3 out"
    ):
        run_study(
            model, small_data(), parse_settings(["fisher:decoupled:3"]), [0], study[-1], MEASUREMENT, lora_rank=2
        )
    with pytest.raises(ValueError, match="expected lora_rank >= 1, and no setting with a rank of its own, got 2"):
        run_study(model, small_data(), parse_settings(["lora:3"]), [0], study[-1], MEASUREMENT, lora_rank=2)


def test_models_on_the_way_are_measured_too(records):
    line = [record for record in records if "plain, interpolated" in record.curves and record.seed == 0]
    assert [(record.fraction, record.label) for record in line[1:]] == [
        (0.9, "0.9"), (0.8, "0.8"), (0.7, "0.7"), (0.6, "0.6"), (0.5, "0.5")
    ]  # fmt: skip
    assert [record.curves["plain, interpolated"] for record in line] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    nlls = [record.task_nll for record in (*line, records[0])]
    assert nlls == sorted(nlls), "from the trained model to the pretrained one"


def test_the_first_seed_writes_continuations(records):
    for record in records:
        written = record.continuations
        wanted = record.fraction == 1 and record.seed in (None, 0)
        kinds = ["task", "task", "retention", "retention", "retention"] if wanted else []
        assert [kind for kind, *_ in written] == kinds, record.name
        assert all(prompt and continuation for _, prompt, continuation in written)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_replay_mixes_a_share_of_other_blocks_in(tmp_path, share):
    task, old = (
        Dataset.from_dict({"input_ids": [[kind, number] for number in range(400)], "labels": [[1, 1]] * 400})
        for kind in (0, 1)
    )
    (setting,) = parse_settings([f"replay:{share}"])[1:]
    mixed = _mixed(task, old, setting, training(tmp_path))
    kinds = Counter(kind for kind, _ in mixed["input_ids"])
    assert kinds[1] / len(mixed) == pytest.approx(share, abs=0.07)
    assert len(set(map(tuple, mixed["input_ids"][:200]))) == 200
    assert mixed["input_ids"] != _mixed(task, old, setting, training(tmp_path, seed=1))["input_ids"]


def test_learning_without_forgetting_adds_the_divergence_at_the_tasks_positions(tmp_path):
    model, old = tiny_gpt2(), tiny_gpt2(seed=1)
    ids = torch.randint(0, 300, (4, 9), generator=torch.Generator().manual_seed(0))
    trainer = _LearningWithoutForgetting(model, training(tmp_path), old=old, weight=3.0)
    inputs = {"input_ids": ids, "labels": ids}
    model.train().apply(lambda module: setattr(module, "p", 0.0) if isinstance(module, torch.nn.Dropout) else None)
    torch.manual_seed(0)
    loss, outputs = trainer.compute_loss(model, dict(inputs), return_outputs=True)
    torch.manual_seed(0)
    answers = answers_of(old.eval()(input_ids=ids).logits.detach(), 32)
    torch.testing.assert_close(loss, outputs.loss + 3 * kl_divergence(outputs.logits, answers).mean())
    model.eval()
    assert trainer.compute_loss(model, dict(inputs)) == model(**inputs).loss


def test_adapters_are_merged(tmp_path):
    (setting,) = parse_settings(["lora:2:learning_rate=1e-1"])[1:]
    before = tiny_gpt2()
    model, seconds = fine_tune(
        setting, tiny_gpt2(), training(tmp_path), small_data().task_examples, Memory(None, None, None, tiny_gpt2)
    )
    assert type(model) is type(before) and seconds > 0
    changed = [
        name
        for (name, p), q in zip(model.named_parameters(), before.parameters(), strict=True)
        if not torch.equal(p, q)
    ]
    assert changed and all(".c_" in name and name.endswith("weight") for name in changed)
