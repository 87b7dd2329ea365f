"""One YAML file in; a fine-tuned, evaluated, comparable model out. Importing this package imports nothing else."""

__version__ = "0.1.0"
