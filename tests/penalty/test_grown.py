"""Models whose tokenizer got more tokens: old rows of the vocabulary are held, those of the added tokens are free."""

import logging

import pytest
import torch
from adapted_models import adapted, llama
from conftest import VOCAB
from small_runs import arguments, examples, small_model, spread_consolidation, weights

from ewc_hf import Consolidation, EWCTrainer
from ewc_hf.engines import Part
from ewc_hf.penalty import require_matching_model
from ewc_hf.penalty.grown import GrownRows

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT asks for it

ADDED = 3


def grown(model):
    before = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(before + ADDED, mean_resizing=False)
    return model.double(), before


def evenly_important(model):
    anchor = {name: p.detach() for name, p in model.named_parameters()}
    importance = {name: torch.ones_like(p) for name, p in anchor.items()}
    unit = {"method": "fisher", "unit": "nats per token", "labels": "ground_truth"}
    return Consolidation.create(importance, anchor, num_examples=1, num_tokens=1, **unit)


@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("build", [small_model, llama], ids=["tied", "untied"])
def test_old_rows_are_held_and_added_ones_are_free(tmp_path, caplog, build, coupling, stored):
    consolidation = evenly_important(build())
    if stored:
        consolidation.save_pretrained(tmp_path / "ewc")
        consolidation = str(tmp_path / "ewc")
    moved = []
    for ewc_lambda in (0, 1e8):
        torch.manual_seed(0)
        model, before = grown(build())
        start = weights(model)
        how = {"ewc_coupling": coupling, "max_steps": 12, "learning_rate": 0.05, "optim": "sgd", "max_grad_norm": 0}
        args = arguments(tmp_path, ewc_lambda=ewc_lambda, lr_scheduler_type="constant", **how)
        with caplog.at_level(logging.WARNING):
            trainer = EWCTrainer(model=model, args=args, consolidation=consolidation, train_dataset=examples(20))
        trainer.train()
        moved.append({name: (p - start[name]).abs() for name, p in weights(model).items()})
    assert f"rows: the {before} of the consolidation are held, those of added tokens move freely" in caplog.text
    free, held = moved
    for name in free:
        assert held[name][:before].norm() < free[name][:before].norm() * (0.5 if coupling == "loss" else 1e-4), name
    of_vocabulary = "transformer.wte.weight" if build is small_model else "lm_head.weight"
    assert held[of_vocabulary][before:].min() > 0, "the softmax moves rows of tokens that are never seen"


def test_added_tokens_beside_adapters_are_copies_of_modules():
    model, _ = grown(llama())
    model = adapted(model, drawn=False, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    protected = require_matching_model(spread_consolidation(llama()), model)
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= protected


@pytest.mark.parametrize("rows", [slice(0, 2), slice(2, 6), slice(5, 7), slice(6, None), ...], ids=str)
def test_rows_are_known_ones_and_zeros(rows):
    known = torch.randn(5, 3)
    whole = torch.cat([known, torch.zeros(2, 3)])
    torch.testing.assert_close(GrownRows(known, whole.shape)[rows], whole[rows])


@pytest.mark.parametrize(("start", "size"), [(0, 21), (4, 9), (13, 8), (16, 5), (20, 1)])
def test_a_part_of_grown_rows_is_that_of_the_whole(start, size):
    known = torch.randn(5, 3)
    whole = torch.cat([known, torch.zeros(2, 3)])
    part = Part(start, torch.Size((size,)))
    torch.testing.assert_close(part.of(GrownRows(known, whole.shape)), part.of(whole))


def lengthen(module):
    module.weight = torch.nn.Parameter(torch.cat([module.weight.detach(), module.weight.detach()[:1]]))


SPOILED = {
    "fewer tokens": lambda model: model.resize_token_embeddings(9),
    "more positions": lambda model: lengthen(model.transformer.wpe),
    "wider": lambda model: lengthen(model.transformer.ln_f),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_other_shapes_are_refused(spoil):
    consolidation, model = spread_consolidation(small_model()), small_model()
    spoil(model)
    with pytest.raises(ValueError, match=r"expected '.*' of shape .* as in the consolidation, got .*; estimate"):
        require_matching_model(consolidation, model)


def test_a_consolidation_of_more_tokens_is_refused():
    model, _ = grown(small_model())
    with pytest.raises(ValueError, match=r"expected 'transformer.wte.weight' of shape \(43, 8\)"):
        require_matching_model(spread_consolidation(model), small_model())


@pytest.mark.parametrize("tokens", [[1, 4], [4, VOCAB], [VOCAB, VOCAB + 1]], ids=["old", "both", "added"])
@pytest.mark.parametrize("build", [small_model, llama], ids=["tied", "untied"])
def test_rows_that_are_trained_by_themselves_are_held_where_they_are_old(tmp_path, caplog, build, tokens):
    consolidation = evenly_important(build())
    table = "transformer.wte.weight" if build is small_model else "model.embed_tokens.weight"
    moved = []
    for ewc_lambda in (0, 1e8):
        torch.manual_seed(0)
        model, _ = grown(build())
        model = adapted(model, drawn=False, target_modules=["c_attn"] if build is small_model else ["q_proj"],
                        trainable_token_indices=tokens)  # fmt: skip
        (rows,) = (p for name, p in model.named_parameters() if "trainable_tokens_delta" in name)
        start = rows.detach().clone()
        how = {"max_steps": 12, "learning_rate": 0.05, "optim": "sgd", "max_grad_norm": 0}
        args = arguments(tmp_path, ewc_lambda=ewc_lambda, lr_scheduler_type="constant", **how)
        texts = torch.arange(20 * 8).remainder(VOCAB + ADDED).view(20, 8)
        data = [{"input_ids": text, "labels": text} for text in texts]
        with caplog.at_level(logging.WARNING):
            EWCTrainer(model=model, args=args, consolidation=consolidation, train_dataset=data).train()
        moved.append((rows - start).norm(dim=1))
    free, held = moved
    assert free.min() > 0
    for token, unheld, left in zip(tokens, free, held, strict=True):
        assert left < unheld * 0.5 if token < VOCAB else left > 0
    assert f"'{table}' has {VOCAB + ADDED} rows: the {VOCAB} of the consolidation are held" in caplog.text
    assert "are not in the model" not in caplog.text
