"""The package's version, which `pyproject.toml` reads from here, and those of what its numbers depend on."""

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Return the versions of this package, of torch and of transformers."""
    import torch
    import transformers

    return {"ewc_hf": __version__, "torch": str(torch.__version__), "transformers": transformers.__version__}
