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
    with pytest.raises(ValueError, match=r"expected max_forgetting in settings, got 0\.5 for all, plain fine-tuning"):
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
    with pytest.raises(ValueError, match="another budget_texts"):
        run_study(model, data, settings[:1], [0], training(tmp_path / "study"), MEASUREMENT)
