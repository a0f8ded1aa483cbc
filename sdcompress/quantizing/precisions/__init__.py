"""The precisions: a file is an entry by its name; the contract is ``_base``."""
