r"""Measure forgetting with and without the penalty: pretrained, plain, and every setting, over several seeds.

accelerate launch recipes/forgetting_study.py --config recipes/forgetting_study.yaml --model gpt2 \
    --retention books_train.parquet --retention_test books_test.parquet \
    --task dialogs_train.parquet --task_test dialogs_test.parquet --retention_name books --task_name dialogs

The settings, seeds and lengths stand in the YAML file; what is given on the command line wins. Finished runs are kept
in the output folder, so the same command goes on where it was interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ewc_hf.cli import CodeArguments, parse_arguments
from ewc_hf.config import EWCConfig
from ewc_hf.study import (
    MEAN_NLL,
    BudgetText,
    Measurement,
    StudyTexts,
    markdown_report,
    parse_settings,
    read_study_data,
    require_text_for_budgets,
    run_study,
    study_title,
    sweeps_of,
    write_sweep,
)


@dataclass
class StudyArguments:
    """What is compared."""

    settings: list[str] = field(
        default_factory=lambda: ["fisher:loss:10,30,100,300", "fisher:decoupled:10,30,100,300"],
        metadata={
            "help": "METHOD:COUPLING:LAMBDAS (fisher, mas, l2), WAY:STRENGTHS (rehearsal, old_answers, replay, "
            "self_replay, lwf, lora), plain, dft or eaft; then :OPTION=VALUES of EWCConfig, and :interpolated."
        },
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Each setting runs once with each."})
    lora_rank: int | None = field(
        default=None, metadata={"help": "Train LoRA's adapters of this rank in every run, in plain fine-tuning too."}
    )


def main() -> None:
    """Run the study."""
    args, texts, code, budget, training, measurement = parse_arguments(
        StudyArguments, StudyTexts, CodeArguments, BudgetText, EWCConfig, Measurement, description=__doc__
    )
    settings = parse_settings(args.settings)
    require_text_for_budgets(training, settings, has_text=budget.budget_text is not None)

    # 1. Text: packed blocks to learn from, whole documents to measure on.
    data = read_study_data(texts, budget, code.trust_remote_code)

    # 2. Importance, fine-tuning and perplexity for each setting and seed.
    records = run_study(
        texts.model,
        data,
        settings,
        args.seeds,
        training,
        measurement,
        texts.shared,
        args.lora_rank,
        code.trust_remote_code,
    )

    # 3. The report's tables, and which lambda is best; the same and the pictures are in the output folder.
    print(markdown_report(records, data.names, study_title(args.lora_rank)))
    if sweeps := sweeps_of(records):
        print(write_sweep(sweeps, Path(training.output_dir), "Which lambda", MEAN_NLL))


if __name__ == "__main__":
    main()
