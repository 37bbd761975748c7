"""What would mend a loss: small edits of its files, tried on the cases that fail. No file of the user is written to."""
