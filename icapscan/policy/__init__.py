"""Pure decisions: from a verdict and the rules to what is done. The only place that blocks or allows."""
