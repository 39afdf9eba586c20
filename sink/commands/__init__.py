"""The command line: one file per verb, with its options and what it prints. `options` and `output` are shared."""
