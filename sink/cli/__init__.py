"""The verbs of `sink`, in the groups of its help. Each is thin: `operations` does it, `commands` says it."""
