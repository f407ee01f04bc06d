"""The whole study: the plan, its execution, the report, the claims ledger, the command line."""
