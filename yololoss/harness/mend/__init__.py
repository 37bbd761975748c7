"""What would mend a loss: small edits of its files, each tried on the cases that fail. Nothing is written to a file of the user."""
