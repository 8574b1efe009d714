"""ftbench: compare ways to fine-tune a pretrained language model on little data, and trust the numbers."""

__all__ = ["__version__"]
__version__ = "0.1.0"
