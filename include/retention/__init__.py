"""Delete and mask expired records that are not under legal hold: plan, approve, execute, verify."""
