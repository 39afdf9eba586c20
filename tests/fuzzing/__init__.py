"""Broken inputs: real messages, lines, texts, headers and records, mutated; each must end in an error of ours."""
