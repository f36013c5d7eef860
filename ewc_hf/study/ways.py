"""Ways to fine-tune that a study compares, beside those that a penalty protects."""

from __future__ import annotations

from enum import StrEnum


class Way(StrEnum):
    """What is done to keep what a model knew."""

    PLAIN = "plain"
    """Nothing, or another option of the training: fewer steps, a lower learning rate."""
    PENALTY = "penalty"
    """Elastic Weight Consolidation with some importance; self-rehearsal may be beside it."""
    REHEARSAL = "rehearsal"
    """Rows that the old model wrote, and the divergence from its answers there."""
    OLD_ANSWERS = "old_answers"
    """The same with old text in place of the rows."""
    LEARNING_WITHOUT_FORGETTING = "lwf"
    """The divergence from the old model's answers on the task's own text (Li & Hoiem 2016, arXiv 1606.09282)."""
    REPLAY = "replay"
    """A share of the blocks is old text, learned as the task is."""
    SELF_REPLAY = "self_replay"
    """A share of the blocks is what the old model wrote, learned as the task is."""
    LORA = "lora"
    """Low-rank adapters, merged at the end (Hu et al. 2022, arXiv 2106.09685)."""
    DFT = "dft"
    """Each token's loss weighted by its probability (arXiv 2508.05629)."""
    EAFT = "eaft"
    """Each token's loss weighted by the entropy of the model's answer there (arXiv 2601.02151)."""

    @property
    def called(self) -> str:
        """What it is called in tables and pictures."""
        return _TITLES[self]

    @property
    def takes_strengths(self) -> bool:
        """Whether a number says how much of it: a weight, a share or a rank."""
        return self not in (Way.PLAIN, Way.PENALTY, Way.DFT, Way.EAFT)

    @property
    def needs_old_text(self) -> bool:
        """Whether old text is trained with; of a penalty its importance tells."""
        return self in (Way.OLD_ANSWERS, Way.REPLAY)


_TITLES = {
    Way.PLAIN: "plain",
    Way.PENALTY: "EWC",
    Way.REHEARSAL: "self-rehearsal",
    Way.OLD_ANSWERS: "old answers to old text",
    Way.LEARNING_WITHOUT_FORGETTING: "learning without forgetting",
    Way.REPLAY: "replay of old text",
    Way.SELF_REPLAY: "replay of own text",
    Way.LORA: "LoRA",
    Way.DFT: "DFT",
    Way.EAFT: "EAFT",
}
