"""What the pipeline costs, measured against loops that do the same work with nothing around it."""
