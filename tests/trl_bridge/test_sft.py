"""`EWCSFTTrainer` on chats: as TRL's own without what holds, and held with it."""

import pytest
import torch
from chats import arguments, consolidation, dataset, displacement, model, rehearsal, tokenizer
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer, TrlParser

from ewc_hf import EWCFields, EWCMixin
from ewc_hf.engines import adapted_matrices
from ewc_hf.sft import EWCSFTConfig, EWCSFTTrainer

pytestmark = [
    pytest.mark.usefixtures("datasets_cache"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),  # TRL's own default
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),  # PEFT asks for it
]

LORA = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")


def trainer_of(folder, kind=EWCSFTTrainer, config=EWCSFTConfig, held=None, peft_config=None, **options):
    args, held = arguments(config, folder, **options), held or {}
    return kind(model(), args, None, dataset(), processing_class=tokenizer(), peft_config=peft_config, **held)


def trained(*args, **options):
    trainer = trainer_of(*args, **options)
    trainer.train()
    return trainer


def logged(trainer, key):
    return [log[key] for log in trainer.state.log_history if key in log]


@pytest.mark.parametrize("assistant_only_loss", [False, True])
def test_without_what_holds_it_is_trls_trainer(tmp_path, assistant_only_loss):
    options = {"assistant_only_loss": assistant_only_loss}
    own, trls = trained(tmp_path, **options), trained(tmp_path, SFTTrainer, SFTConfig, **options)
    assert logged(own, "loss") == logged(trls, "loss") and logged(own, "entropy") == logged(trls, "entropy")
    for p, q in zip(own.model.parameters(), trls.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0)


@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
@pytest.mark.parametrize("options", [{}, {"packing": True, "max_length": 32}], ids=["whole", "packed"])
@pytest.mark.filterwarnings("ignore:.*padding-free.*:UserWarning", "ignore:.*flash.*:UserWarning")
def test_a_penalty_holds_the_weights(tmp_path, coupling, options):
    moved = []
    for ewc_lambda in (0, 1e4):
        options = {**options, "ewc_lambda": ewc_lambda, "ewc_coupling": coupling}
        trainer = trained(tmp_path, held={"consolidation": consolidation()}, **options)
        moved.append(displacement(trainer.model))
    assert 0 < moved[1] < moved[0] / 4
    assert logged(trainer, "ewc_penalty") and logged(trainer, "mean_token_accuracy")


def test_a_consolidation_of_the_base_holds_a_model_that_lora_tunes(tmp_path):
    changes = []
    for ewc_lambda in (0, 1e4):
        held = {"consolidation": consolidation()}
        trainer = trained(tmp_path, held=held, peft_config=LORA, ewc_lambda=ewc_lambda, learning_rate=0.1)
        matrices = adapted_matrices(trainer.model).values()
        changes.append(sum(matrix.change(slice(None), torch.float32).square().sum().item() for matrix in matrices))
    assert 0 < changes[1] < changes[0] / 4


def test_beside_rehearsal_the_task_loss_is_trls_over_micro_batches_of_any_length(tmp_path):
    options = {"gradient_accumulation_steps": 2, "max_steps": 1, "assistant_only_loss": True}
    with_rows, without = trained(tmp_path, held={"rehearsal": rehearsal()}, **options), trained(tmp_path, **options)
    assert logged(with_rows, "loss") == pytest.approx(logged(without, "loss"), rel=1e-5)


@pytest.mark.parametrize("peft_config", [None, LORA], ids=["whole", "lora"])
def test_rehearsal_rows_ride_and_the_task_loss_knows_nothing_of_them(tmp_path, peft_config):
    with_rows = trained(tmp_path, held={"rehearsal": rehearsal()}, peft_config=peft_config)
    without = trained(tmp_path, peft_config=peft_config)
    assert len(logged(with_rows, "rehearsal_kl")) == 3
    assert logged(with_rows, "loss")[0] == pytest.approx(logged(without, "loss")[0], rel=1e-5), "of the first step"
    assert logged(with_rows, "loss")[2] != pytest.approx(logged(without, "loss")[2], rel=1e-5)


def test_what_has_no_logits_refuses_rehearsal(tmp_path):
    with pytest.raises(ValueError, match=r"expected loss_type='nll' beside rehearsal, .*, got 'dft'; leave"):
        trainer_of(tmp_path, held={"rehearsal": rehearsal()}, loss_type="dft")

    class Bare(EWCMixin, SFTTrainer):
        pass

    with pytest.raises(ValueError, match=r"expected .*logits"):
        trained(tmp_path, Bare, held={"rehearsal": rehearsal()})


@pytest.mark.filterwarnings("ignore:.*padding-free.*:UserWarning", "ignore:.*flash.*:UserWarning")
def test_packed_sequences_refuse_rehearsal_with_the_cure(tmp_path):
    with pytest.raises(ValueError, match=r"packed sequences with position_ids cannot take rows"):
        trained(tmp_path, held={"rehearsal": rehearsal()}, packing=True, max_length=32)


def test_evaluation_is_trls(tmp_path):
    trainer = EWCSFTTrainer(
        model(), arguments(EWCSFTConfig, tmp_path), train_dataset=dataset(), eval_dataset=dataset(4),
        processing_class=tokenizer(), rehearsal=rehearsal(), retention_texts={"old": ["Snow fell on the bridge."]},
    )  # fmt: skip
    metrics = trainer.evaluate()
    assert {"eval_loss", "eval_entropy", "eval_old_perplexity"} <= metrics.keys()


def test_trls_parser_reads_the_options_from_yaml(tmp_path):
    options = f"output_dir: {tmp_path}\nuse_cpu: true\newc_lambda: 3\newc_coupling: loss\nmax_length: 7\n"
    (tmp_path / "config.yaml").write_text(options)
    (args,) = TrlParser(EWCSFTConfig).parse_args_and_config(
        ["--config", str(tmp_path / "config.yaml"), "--rehearsal_rows", "5"]
    )
    assert isinstance(args, EWCFields) and isinstance(args, SFTConfig)
    assert (args.ewc_lambda, args.ewc_coupling, args.max_length, args.rehearsal_rows) == (3, "loss", 7, 5)
