"""A setting of a study may have a budget of forgetting."""

import dataclasses

import pytest
from small_study import MEASUREMENT, small_data, training
from tiny import save_tiny_checkpoint, tiny_tokenizer
from transformers import AutoModelForCausalLM

from ewc_hf import generate_rehearsal
from ewc_hf.study import parse_settings, run_study


def test_a_budget_is_kept_on_its_own_text(tmp_path, datasets_cache):
    model, data = save_tiny_checkpoint(tmp_path / "model"), small_data()
    settings = parse_settings(["plain:max_forgetting=0.01,1000"])
    with pytest.raises(ValueError, match="expected budget_text for settings with max_forgetting, got none"):
        run_study(model, data, settings, [0], training(tmp_path / "study"), MEASUREMENT)
    with pytest.raises(ValueError, match=r"expected no max_forgetting for all runs, plain fine-tuning too, got 0\.5"):
        run_study(model, data, settings, [0], training(tmp_path / "study", max_forgetting=0.5), MEASUREMENT)
    pretrained, tokenizer = AutoModelForCausalLM.from_pretrained(model), tiny_tokenizer()
    own = generate_rehearsal(pretrained, tokenizer, 8, 16, progress=False).texts(tokenizer)
    with_text = dataclasses.replace(data, retention_texts=own, budget_texts=own)
    records = run_study(model, with_text, settings, [0], training(tmp_path / "study"), MEASUREMENT)
    _, plain, tight, loose = records
    assert 0 < tight.forgetting <= 0.01 * (1 + 1e-6) < plain.forgetting == loose.forgetting
    assert tight.curves == {"plain, to a budget": 100.0}
    assert plain.task_nll == loose.task_nll < tight.task_nll
    assert not (tmp_path / "study" / "_start").exists()


def test_budgets_come_later_to_a_study(tmp_path, datasets_cache):
    model, data, args = save_tiny_checkpoint(tmp_path / "model"), small_data(), training(tmp_path / "study")
    settings = parse_settings(["plain:max_forgetting=1"])
    pretrained, plain = run_study(model, data, settings[:1], [0], args, MEASUREMENT)
    with_text = dataclasses.replace(data, budget_texts=data.retention_texts)
    again = run_study(model, with_text, settings, [0], args, MEASUREMENT)
    assert [run.seconds for run in again[:2]] == [pretrained.seconds, plain.seconds], "not run again"
    assert len(run_study(model, data, settings[:1], [0], args, MEASUREMENT)) == 2
    other = dataclasses.replace(data, budget_texts=data.retention_texts[:1])
    with pytest.raises(ValueError, match="another budget_texts"):
        run_study(model, other, settings, [0], args, MEASUREMENT)
