"""`ewc-hf push`: an importance, rehearsal rows or both, to the Hub."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..consolidation import CONFIG_NAME, Consolidation
from ..engines import require_one_process
from ..rehearsal import REHEARSAL_CONFIG, Rehearsal
from .arguments import parse_arguments


@dataclass
class PushArguments:
    """What is uploaded, and where to."""

    folder: str = field(metadata={"help": "Folder with an importance, with rehearsal rows, or with both."})
    repo: str = field(metadata={"help": "owner/name on the Hub, or a name of your own; made where it is missing."})
    subfolder: str = field(default="", metadata={"help": "Of the repository."})
    branch: str | None = field(default=None, metadata={"help": "Of the repository; default its main one."})
    anchor_source: str | None = field(
        default=None, metadata={"help": "Hub id that holds the anchor, which is then not uploaded; often the same."}
    )
    private: bool = field(default=False, metadata={"help": "Make a new repository private."})


def main() -> None:
    """Upload what is there, and print the commits."""
    (args,) = parse_arguments(PushArguments, description="Upload an importance, rehearsal rows or both to the Hub.")
    require_one_process()
    folder, options = Path(args.folder), {"subfolder": args.subfolder, "revision": args.branch}
    has_importance, has_rows = ((folder / name).is_file() for name in (CONFIG_NAME, REHEARSAL_CONFIG))
    if not (has_importance or has_rows):
        raise ValueError(
            f"expected {CONFIG_NAME} or {REHEARSAL_CONFIG} in '{folder}', got neither; name the folder that "
            "`ewc-hf estimate` or `ewc-hf rehearse` wrote"
        )
    if args.anchor_source is not None and not has_importance:
        raise ValueError(f"expected an importance in '{folder}' beside anchor_source, got none; leave it out")
    options["private"] = args.private or None
    if has_importance:
        consolidation = Consolidation.from_pretrained(folder)
        print(f"importance   {consolidation.push_to_hub(args.repo, anchor_source=args.anchor_source, **options)}")
    if has_rows:
        print(f"rows         {Rehearsal.from_pretrained(folder).push_to_hub(args.repo, **options)}")
