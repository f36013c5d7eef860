"""What every recipe of fine-tuning does with its trainer."""

from __future__ import annotations

from ..trainer import EWCMixin


def train_and_save(trainer: EWCMixin, resume: bool) -> None:
    """Train, and save the whole model and what the run learned to remember, in the output folder.

    Args:
        trainer: its arguments are an `EWCConfig` or the like.
        resume: whether to go on from the last complete checkpoint, where the arguments name none.
    """
    trainer.train(resume_from_checkpoint=resume or trainer.args.resume_from_checkpoint)
    if trainer.is_fsdp_enabled:  # its checkpoints are sharded, its result is one model
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model()
    if trainer.args.ewc_synaptic:
        trainer.synaptic_consolidation().save_pretrained(trainer.args.output_dir)


def publish(trainer: EWCMixin) -> None:
    """Push model and card to the Hub where the arguments say so, or write the card into the output folder."""
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    else:
        trainer.create_model_card()
